"""Whether a VM still is what its destination was prepared for. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from sterna.domain.claims import with_medium
from sterna.domain.model import Disk, DiskKind, Nic, Vm
from sterna.domain.plugs import plug_type


def changes(before: Vm, now: Vm) -> tuple[str, ...]:
    """What of its disks and NICs has changed, in words.

    `before`, `now`: the VM with its NICs as they are plugged into its host. Functions of the host do not count: the
    guest gives them up before the copy.
    """
    return (*_of_disks(before, now), *_of_nics(before, now))


def _of_disks(before: Vm, now: Vm) -> Iterator[str]:
    then, here = ({disk.target: disk for disk in vm.disks} for vm in (before, now))
    for target in sorted({*then, *here}):
        if target not in here:
            yield f"disk {target} was detached"
        elif target not in then:
            yield f"disk {target} was attached"
        elif _stands_on(then[target]) != _stands_on(here[target]):
            yield f"disk {target} is {_words(here[target])} now, it was {_words(then[target])}"


def _stands_on(disk: Disk) -> tuple[object, ...]:
    return *with_medium(disk).place, disk.backing_path, disk.format


def _words(disk: Disk) -> str:
    disk = with_medium(disk)
    if disk.kind is DiskKind.EMPTY:
        return "empty"
    place = disk.path or " ".join(str(source.names) for source in disk.sources) or disk.kind
    return f"{place} on {disk.backing_path}" if disk.backing_path else str(place)


def _of_nics(before: Vm, now: Vm) -> Iterator[str]:
    then, here = (_copied_nics(vm) for vm in (before, now))
    for mac in sorted({*then, *here}):
        if mac not in here:
            yield f"NIC {mac} was detached"
        elif mac not in then:
            yield f"NIC {mac} was attached"
        elif _plugged(then[mac]) != _plugged(here[mac]):
            at, was = (nic.bridge or nic.parent or nic.plug for nic in (here[mac], then[mac]))
            yield f"NIC {mac} is at {at} now, it was at {was}"


def _copied_nics(vm: Vm) -> dict[str, Nic]:
    return {nic.mac.lower(): nic for nic in vm.nics if not plug_type(nic).hot_unplugged}


def _plugged(nic: Nic) -> tuple[str | None, ...]:
    return nic.plug, nic.bridge, nic.parent, nic.mode, nic.port_id
