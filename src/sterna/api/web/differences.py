"""Where the destination has a VM's disks and NICs, and how it is reached there: from the journal of the source."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sterna.domain.copying import DestinationNic
from sterna.domain.entries.notes import AnswerReceived
from sterna.domain.entries.source import Snapshot
from sterna.domain.journal import Entry, Role
from sterna.domain.model import Nic, Reached
from sterna.domain.step import History

_OF_A_NIC = ("bridge", "device", "parent", "mode", "vlan", "mtu", "port_id", "pci")


class Difference(NamedTuple):
    """One device or address. '' where one side has none."""

    what: str
    before: str
    after: str
    remark: str = ""


def devices_of(entries: Iterable[Entry]) -> list[Difference] | None:
    """Those that are not as on the source, or are copied. None until the destination has answered."""
    history = History.read(sorted((e for e in entries if e.role is Role.SOURCE), key=lambda e: e.seq))
    snapshot, answer = history.find(Snapshot), history.find(AnswerReceived)
    if snapshot is None or answer is None:
        return None
    vm = snapshot.vm
    disks, nics = {one.target: one for one in answer.disks}, {one.mac: one for one in answer.nics}
    found = []
    for disk in vm.disks:
        there = disks.get(disk.target)
        before, after = _place(disk), _place(there) if there else ""
        remark = "copied" if there and there.copied else ""
        found.append(Difference(f"disk {disk.target}", before, after, remark))
    for nic in vm.nics:
        plug = nics.get(nic.mac)
        before, after = _plug(nic), _plug(plug) if plug else ""
        found.append(Difference(f"NIC {nic.mac}", before, after))
    found += [Difference("listens at", before, after) for before, after in answer.listens.items()]
    return [one for one in found if one.before != one.after or one.remark]


def _place(disk: Reached) -> str:
    """Where its bytes are, as one text."""
    if disk.path:
        return disk.path
    known = (source.names for source in disk.sources)
    return "; ".join(" LUN ".join(map(str, one)) if isinstance(one, tuple) else str(one) for one in known)


def _plug(nic: Nic | DestinationNic) -> str:
    """What it is plugged into. A device that libvirt makes with the guest has no name before."""
    fields = ((name, getattr(nic, name)) for name in _OF_A_NIC if name != "device")
    said = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in fields if value)
    return f"{nic.plug}: {said}" if said else nic.plug
