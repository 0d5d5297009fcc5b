"""What the simulated plug types share: marks of a port, conflicts, and taking a tap away."""

from __future__ import annotations

from sterna.domain.errors import Conflict
from sterna.domain.model import Nic
from sterna.domain.plugs import is_own, vm_of
from sterna.ports.vif import MADE_BY
from sterna.sim.world.host import SimHost
from sterna.sim.world.things import SimPort
from sterna.sim.world.world import World


def ids_for(nic: Nic, vm_uuid: str, *, status: bool) -> dict[str, str]:
    """The marks of a guest's port; `status`: as Nova writes them into Open vSwitch."""
    ids = {"attached-mac": nic.mac, "vm-uuid": vm_uuid}
    ids |= {"iface-id": nic.port_id} if nic.port_id else {}
    return ids | ({"iface-status": "active"} if status else {})


def as_seen(nic: Nic, port: SimPort) -> Nic:
    """The NIC as its port has it."""
    seen = {
        "bridge": port.bridge,
        "vlan": port.tag,
        "mtu": port.mtu or nic.mtu,
        "device": port.device,
        "port_id": port.external_ids.get("iface-id", nic.port_id),
        "external_ids": dict(port.external_ids),
    }
    return nic.model_copy(update=seen)


def is_made_ahead(port: SimPort) -> bool:
    """Did `plug` make it?"""
    return port.external_ids.items() >= MADE_BY.items()


def check_free(port: SimPort | None, bridge: str, ids: dict[str, str]) -> None:
    """Raises Conflict if the port is somebody else's, or on another bridge."""
    if port is None:
        return
    is_now = {"iface-id": port.external_ids.get("iface-id"), "vm-uuid": vm_of(port.external_ids)}
    for key, other in is_now.items():
        if other != ids.get(key):
            raise Conflict(f"{port.device} is already a port with {key} {other or 'unset'}, not {ids.get(key)}")
    if port.bridge != bridge:
        raise Conflict(f"{port.device} is already a port of {port.bridge}, not {bridge}")


def unplug_tap(world: World, host: SimHost, nic: Nic) -> bool:
    """The port and its tap, or the bare tap; not another NIC's. Raises Conflict if it is on another bridge."""
    device = nic.device or ""
    port = host.ports.get(device)
    if port is not None and not is_own(nic, port.guest_mac, port.external_ids):
        return False
    if port is not None and port.bridge != nic.bridge:
        raise Conflict(f"{device} is a port of {port.bridge}, not {nic.bridge}: left alone")
    return world.remove_port(host.name, device)
