"""The two definitions a migration leaves on the destination: the live one and the one that boots from cold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sterna.domain.copying import CopyPlan, DestinationDisk, DestinationNic
from sterna.domain.definition_changes import DefinitionChange, DefinitionChanges, bounded
from sterna.domain.errors import Permanent
from sterna.domain.model import Disk, DiskKind, Nic
from sterna.domain.plugs import Joins, plug_type
from sterna.sim.world.things import Definition


def incoming_definition(source: Definition, plan: CopyPlan) -> Definition:
    """DEST_XML: disks as the destination reaches them, NICs with the names it gave them.

    Raises Permanent where the plan names a disk or NIC the VM does not have, or misses one of its NICs.
    """
    made = {n.mac: n for n in plan.nics if not plug_type(n).hot_unplugged}  # functions come after the copy
    present = [n for n in source.nics if not plug_type(n).hot_unplugged]
    for nic in present:
        if nic.mac not in made:
            raise Permanent(f"the plan has no entry for NIC {nic.mac}", fix="prepare the destination again")
    if spare := made.keys() - {n.mac for n in present}:
        raise Permanent(f"the plan plugs NICs the VM does not have: {', '.join(sorted(spare))}")
    if spare := {d.target for d in plan.disks} - {d.target for d in source.disks}:
        raise Permanent(f"the plan names disks the VM does not have: {', '.join(sorted(spare))}")
    nics = tuple(_live(n, made[n.mac]) for n in present)
    return replace(source, nics=nics, disks=_disks(source.disks, plan), epoch=plan.epoch)


def persistent_definition(live: Definition, inactive: Definition | None, plan: CopyPlan) -> Definition:
    """PERSIST_XML: the same disks, NICs plugged by libvirt itself at a cold start."""
    cold = inactive or live
    made = {(n.mac, plug_type(n).hot_unplugged): n for n in plan.nics}
    nics = tuple(_cold(n, made.get((n.mac, plug_type(n).hot_unplugged))) for n in cold.nics)
    disks = tuple(
        disk for disk in plan.disks if disk.kind is not DiskKind.EMPTY
    )  # such a medium is looked for again
    kept = _disks(cold.disks, plan.model_copy(update={"disks": disks}))
    return replace(cold, nics=nics, disks=kept, epoch=plan.epoch)


def changes_for(live: Definition, inactive: Definition | None, plan: CopyPlan) -> DefinitionChanges:
    """Where these two differ from what the source has. Raises Permanent as `incoming_definition`."""
    running = list(_differences(live, incoming_definition(live, plan)))
    if inactive is None or not plan.persistent:
        return bounded(running, None)
    return bounded(running, list(_differences(inactive, persistent_definition(live, inactive, plan))))


_PLACES_OF_A_NIC = {
    "plug": "@type",
    "bridge": "source/@bridge",
    "parent": "source/@dev",
    "mode": "source/@mode",
    "pci": "source/address",
    "vlan": "vlan/tag/@id",
    "port_id": "virtualport/parameters/@interfaceid",
    "device": "target/@dev",
}


def _differences(before: Definition, after: Definition) -> Iterator[DefinitionChange]:
    disks, nics = {d.target: d for d in after.disks}, {(n.mac, n.plug): n for n in after.nics}
    by_mac = {n.mac: n for n in after.nics}
    for disk in before.disks:
        there = disks.get(disk.target)
        for where, old, new in _places(disk, there) if there is not None else ():
            yield DefinitionChange(where=f"devices/disk[{disk.target}]/source/{where}", before=old, after=new)
    for nic in before.nics:
        plugged = nics.get((nic.mac, nic.plug)) or by_mac.get(nic.mac)
        for name, where in _PLACES_OF_A_NIC.items() if plugged is not None else ():
            old, new = (_text(getattr(one, name)) for one in (nic, plugged))
            if old != new:
                yield DefinitionChange(where=f"devices/interface[{nic.mac}]/{where}", before=old, after=new)


def _places(disk: Disk, there: Disk) -> Iterator[tuple[str, str, str]]:
    if disk.path != there.path:
        yield "@file", _text(disk.path), _text(there.path)
    ours, theirs = ((one.iscsi.initiator if one.iscsi else None) for one in (disk, there))
    if ours != theirs:
        yield "initiator/iqn/@name", _text(ours), _text(theirs)


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _live(nic: Nic, made: DestinationNic) -> Nic:
    """As the source has it, plugged by libvirt with a device of the name that P10 used."""
    if plug_type(made).joins is Joins.PARENT:
        return _on_parent(nic, made)
    return Nic(
        mac=nic.mac,
        plug=made.plug,
        port_id=made.port_id or None,
        bridge=made.bridge,
        vlan=nic.vlan if made.vlan is None else made.vlan,
        mtu=made.mtu,
        device=made.device,
    )


def _on_parent(nic: Nic, made: DestinationNic) -> Nic:
    port = made.port_id or nic.port_id
    return Nic(mac=nic.mac, plug=made.plug, parent=made.parent, mode=made.mode, mtu=made.mtu, port_id=port)


def _cold(nic: Nic, made: DestinationNic | None) -> Nic:
    """The form in which libvirt plugs it itself."""
    if made is not None and plug_type(made).joins is Joins.PARENT:
        return _on_parent(nic, made)
    if made is not None and plug_type(made).hot_unplugged:
        return nic.model_copy(update={"pci": made.pci})
    update: dict[str, object] = {"device": None, "managed": True}
    if made is not None:
        update |= {"plug": made.plug, "bridge": made.bridge, "port_id": made.port_id or None, "mtu": made.mtu}
        update["vlan"] = nic.vlan if made.vlan is None else made.vlan
    return nic.model_copy(update=update)


def _disks(disks: tuple[Disk, ...], plan: CopyPlan) -> tuple[Disk, ...]:
    planned = {d.target: d for d in plan.disks}
    return tuple(_disk(d, p) if (p := planned.get(d.target)) is not None else d for d in disks)


def _disk(disk: Disk, planned: DestinationDisk) -> Disk:
    secrets = disk.secrets
    if planned.login is not None:
        secrets = (planned.login, *(ref for ref in secrets if ref != disk.chap))
    return disk.model_copy(update={**planned.way, "secrets": secrets})
