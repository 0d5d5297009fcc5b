"""What a running guest needs of its host, and what is missing: the world's own conscience."""

from __future__ import annotations

from collections.abc import Iterator

from sterna.domain.model import Disk, DiskKind, Nic
from sterna.domain.plugs import hybrid_names, plug_type
from sterna.sim.world.host import SimHost
from sterna.sim.world.iscsi import SimIscsi
from sterna.sim.world.things import SimDomain, SimGuest


def missing(host: SimHost, iscsi: SimIscsi, guest: SimGuest, domain: SimDomain) -> Iterator[str]:
    """Everything this running guest ought to have on this host and has not, in words."""
    assert domain.live is not None
    for nic in domain.live.nics:
        yield from _nic(host, nic)
    for disk in domain.live.disks:
        if disk.kind is DiskKind.FILE:
            yield from _file(host, guest, disk)
        elif disk.kind is DiskKind.ISCSI:
            yield from _iscsi(host, iscsi, guest, disk)
            held = (s for s in iscsi.sessions if s.host == host.name and s.uuid == domain.uuid)
            if disk.iscsi and not any(s.target == disk.iscsi.target for s in held):
                yield f"disk {disk.target}: its session was cut"
        elif disk.kind is DiskKind.BLOCK:
            yield from _iscsi(host, iscsi, guest, disk)
            if disk.path not in host.devices:
                yield f"disk {disk.target}: its device {disk.path} is gone"
            if disk.iscsi and not any((s.host, s.target) == (host.name, disk.iscsi.target) for s in iscsi.sessions):
                yield f"disk {disk.target}: its session was cut"


def _nic(host: SimHost, nic: Nic) -> Iterator[str]:
    if plug_type(nic).hot_unplugged:
        if nic.pci not in host.functions:
            yield f"NIC {nic.mac}: there is no virtual function {nic.pci}"
        return
    device = nic.device or ""
    if device not in host.taps:
        yield f"NIC {nic.mac}: its tap {device} is gone"
    if device not in host.ports:
        yield f"NIC {nic.mac}: its tap {device} is on no bridge"
    if plug_type(nic).keeps_bridge:
        between, inner, outer = hybrid_names(nic.port_id or "")
        if outer not in host.ports or not {between, inner, outer} <= host.links:
            yield f"NIC {nic.mac}: nothing joins {between} and the switch"


def _file(host: SimHost, guest: SimGuest, disk: Disk) -> Iterator[str]:
    found = host.file(disk.path or "")
    if found is None:
        yield f"disk {disk.target}: its file {disk.path} is gone"
    elif found.content != guest.written.get(disk.target, found.content):
        yield f"disk {disk.target}: {disk.path} does not hold what the guest wrote"


def _iscsi(host: SimHost, iscsi: SimIscsi, guest: SimGuest, disk: Disk) -> Iterator[str]:
    assert disk.iscsi is not None
    target = iscsi.targets.get(disk.iscsi.target)
    if target is None:
        yield f"disk {disk.target}: its target {disk.iscsi.target} is gone"
        return
    if (disk.iscsi.initiator or host.initiator) not in target.admitted:
        yield f"disk {disk.target}: {host.name} is no longer admitted to {target.name}"
    if target.volume.content != guest.written.get(disk.target, target.volume.content):
        yield f"disk {disk.target}: {target.name} does not hold what the guest wrote"
