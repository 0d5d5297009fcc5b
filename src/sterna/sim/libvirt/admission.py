"""What a simulated libvirt has against a copy before it begins, in its own words. Called by `hypervisor.py`."""

from __future__ import annotations

from sterna.domain.copying import CopyPlan
from sterna.domain.model import DiskKind
from sterna.domain.plugs import plug_type
from sterna.sim.libvirt import qemu, streams
from sterna.sim.libvirt.copying import SimCopy
from sterna.sim.world.host import SimHost
from sterna.sim.world.things import Definition, SimDomain
from sterna.sim.world.world import World

BUSY = (
    "Timed out during operation: cannot acquire state change lock "
    "(held by monitor=remoteDispatchDomainMigratePerform3Params)"
)


def dial(world: World, here: SimHost, uri: str) -> SimHost:
    """The host whose libvirtd answers there. Raises LibvirtSays."""
    peer = world.host_at(uri)
    if peer is None or not peer.libvirtd_up:
        raise qemu.LibvirtSays(f"unable to connect to server at '{uri}': Connection refused")
    if not world.joined(here.name, peer.name, "control"):
        raise qemu.LibvirtSays(f"unable to connect to server at '{uri}': Connection timed out")
    return peer


def begin(world: World, here: SimHost, domain: SimDomain, plan: CopyPlan) -> SimCopy:
    """The copy, under way. Raises LibvirtSays where it is refused."""
    if domain.definition.epoch != plan.epoch:
        raise qemu.LibvirtSays(f"the domain carries epoch {domain.definition.epoch}, the plan {plan.epoch}")
    if domain.job is not None:
        raise qemu.LibvirtSays(BUSY)
    if domain.live is None or not domain.running:
        raise qemu.LibvirtSays("Requested operation is not valid: domain is not running")
    peer = dial(world, here, plan.destination_uri)
    if peer is here:
        raise qemu.LibvirtSays("internal error: Attempt to migrate guest to the same host " + here.host_uuid)
    streams.check_flags(plan)
    _check_safe(here, domain.live, plan)
    copy = SimCopy(world, here, peer, domain, plan)
    copy.start()
    return copy


def _check_safe(here: SimHost, live: Definition, plan: CopyPlan) -> None:
    """libvirt refuses a file that is neither copied nor on a folder it knows to be shared."""
    held = [n.pci for n in live.nics if plug_type(n).hot_unplugged]
    if held:
        raise qemu.LibvirtSays(f"cannot migrate a domain with <hostdev mode='subsystem' type='pci'>: {held[0]}")
    copied = {d.target for d in plan.disks if d.copied}
    for disk in live.disks:
        alone = disk.kind is DiskKind.FILE and disk.path and not here.takes_for_shared(disk.path)
        if alone and disk.target not in copied and not disk.read_only:
            raise qemu.LibvirtSays(
                f"Unsafe migration: Migration without shared storage is unsafe: disk {disk.target} ({disk.path})"
            )
