"""The `Devices` part of the simulated hypervisor: NICs of a running guest come and go."""

from __future__ import annotations

from dataclasses import replace

from sterna.domain.errors import NotFound, Permanent
from sterna.domain.model import Data, Nic
from sterna.domain.plugs import plug_type
from sterna.sim.libvirt import qemu
from sterna.sim.world.things import SimDomain
from sterna.sim.world.world import World

_AS_SEEN_ELSEWHERE: Data = {
    "device": None,
    "managed": True,
    "mtu": None,
    "physical_network": None,
    "external_ids": {},
}
"""What a domain's definition does not say of a NIC that nothing has plugged yet."""


def detach_nic(world: World, host_name: str, uuid: str, nic: Nic) -> None:
    """The guest releases it at once. Raises NotFound, Permanent during a copy."""
    domain = _running(world, host_name, uuid)
    assert domain.live is not None
    gone = [n for n in domain.live.nics if _key(n) == _key(nic)]
    if gone and domain.job is not None:
        raise Permanent("libvirt refused: cannot modify a domain that is being migrated")
    domain.live = replace(domain.live, nics=tuple(n for n in domain.live.nics if n not in gone))
    for lost in gone:
        if lost.managed and lost.device:
            world.remove_port(host_name, lost.device)
        world.tell(host_name, "domain", uuid, f"NIC {lost.mac} detached")


def attach_nic(world: World, host_name: str, uuid: str, nic: Nic) -> None:
    """In its old place. Raises NotFound, Permanent."""
    domain, host = _running(world, host_name, uuid), world.hosts[host_name]
    assert domain.live is not None
    if any(_key(n) == _key(nic) for n in domain.live.nics):
        return
    bare = nic.model_copy(update=_AS_SEEN_ELSEWHERE)
    try:
        qemu.check_nic(host, bare)
    except qemu.LibvirtSays as error:
        raise Permanent(f"libvirt refused: {error}") from error
    order = [_key(n) for n in (domain.inactive or domain.live).nics]
    plugged = qemu.plugged_by_libvirt(world, host, uuid, bare)
    nics = sorted(
        (*domain.live.nics, plugged), key=lambda n: order.index(_key(n)) if _key(n) in order else len(order)
    )
    domain.live = replace(domain.live, nics=tuple(nics))
    world.tell(host_name, "domain", uuid, f"NIC {nic.mac} attached")


def _key(nic: Nic) -> tuple[str, bool]:
    return nic.mac, plug_type(nic).hot_unplugged


def _running(world: World, host_name: str, uuid: str) -> SimDomain:
    domain = world.hosts[host_name].domains.get(uuid)
    if domain is None or not domain.active:
        raise NotFound(f"{host_name}: no VM {uuid} runs on this host")
    return domain
