"""The Vif port on a simulated switch: OVS normal plug with a tap made ahead of the guest."""

from __future__ import annotations

from sterna.adapters.sim.host import SimHost
from sterna.adapters.sim.things import SimPort
from sterna.adapters.sim.world import SimWorld
from sterna.domain.errors import Conflict, NotFound, Permanent
from sterna.domain.model import Nic
from sterna.ports.vif import MADE_BY


class SimVif:
    """One simulated host's switch (ports.vif.Vif)."""

    def __init__(self, world: SimWorld, host: str) -> None:
        self._world = world
        self._host = world.hosts[host]

    async def describe(self, nic: Nic) -> Nic | None:
        """The NIC's port by device (if it carries the NIC's MAC), else by port id; None where there is none."""
        await self._called()
        port = self._find(nic)
        if port is None:
            return None
        return nic.model_copy(
            update={
                "bridge": port.bridge,
                "vlan": port.tag,
                "mtu": port.mtu or nic.mtu,
                "device": port.device,
                "port_id": port.external_ids.get("iface-id", nic.port_id),
                "external_ids": dict(port.external_ids),
            }
        )

    async def bridge_exists(self, bridge: str) -> bool:
        """Is there such a bridge here?"""
        return bridge in (await self._called()).bridges

    async def plug(self, nic: Nic, *, vm_uuid: str, device: str) -> Nic:
        """P10. Raises Conflict if `device` belongs to something else, NotFound without the bridge."""
        here = await self._called()
        if not nic.bridge or not nic.port_id:
            raise Permanent(f"NIC {nic.mac} has no bridge or no port id to be plugged with")
        if nic.bridge not in here.bridges:
            raise NotFound(f"there is no bridge {nic.bridge} on {here.name}", fix=f"ovs-vsctl add-br {nic.bridge}")
        ids = {
            "iface-id": nic.port_id,
            "iface-status": "active",
            "attached-mac": nic.mac,
            "vm-uuid": vm_uuid,
        }
        _check_free(here, device, nic.bridge, ids)
        external_ids = nic.external_ids | ids | MADE_BY
        wanted = SimPort(device, nic.bridge, nic.vlan, nic.mtu, external_ids)
        if here.ports.get(device) != wanted or device not in here.taps:
            self._world.add_port(here.name, wanted)
        return nic.model_copy(update={"device": device, "managed": False, "external_ids": dict(external_ids)})

    async def wired(self, device: str) -> bool:
        """P12: a port forwards once its tap is there and the switch works."""
        here = await self._called()
        return device in here.ports and device in here.taps and here.switch_forwards

    async def announce(self, device: str, *, bridge: str, mac: str) -> None:
        """The network knows the address here. Raises NotFound without the port."""
        here = await self._called()
        port = here.ports.get(device)
        if port is None or port.bridge != bridge or device not in here.taps:
            raise NotFound(f"{device} is no working port of {bridge}")
        self._world.learnt[mac.lower()] = here.name

    async def unplug(self, device: str, *, bridge: str) -> bool:
        """R6, F4. Raises Conflict if the port is on another bridge."""
        here = await self._called()
        port = here.ports.get(device)
        if port is not None and port.bridge != bridge:
            raise Conflict(f"{device} is a port of {port.bridge}, not {bridge}: left alone")
        return self._world.remove_port(here.name, device)

    async def put_back(self, nic: Nic) -> bool:
        """R6: the port of a tap that lost it."""
        here = await self._called()
        device = nic.device or ""
        if device not in here.taps:
            return False
        if device not in here.ports:
            port = SimPort(device, nic.bridge or "", nic.vlan, nic.mtu, dict(nic.external_ids))
            self._world.add_port(here.name, port)
        return True

    async def made_ahead(self) -> list[Nic]:
        """The ports whose tap was made by `plug`."""
        here = await self._called()
        return [
            Nic(
                mac=p.external_ids.get("attached-mac", ""),
                plug="ovs",
                port_id=p.external_ids.get("iface-id"),
                bridge=p.bridge,
                vlan=p.tag,
                device=p.device,
                managed=False,
                external_ids=dict(p.external_ids),
            )
            for p in here.ports.values()
            if p.external_ids.items() >= MADE_BY.items()
        ]

    async def _called(self) -> SimHost:
        await self._world.clock.sleep(self._world.pace.call_ms / 1000)
        return self._host

    def _find(self, nic: Nic) -> SimPort | None:
        port = self._host.ports.get(nic.device or "")
        if port is not None and port.external_ids.get("attached-mac", "").lower() == nic.mac.lower():
            return port
        named = [p for p in self._host.ports.values() if p.external_ids.get("iface-id") == nic.port_id]
        return named[-1] if named and nic.port_id else None


def _check_free(here: SimHost, device: str, bridge: str, ids: dict[str, str]) -> None:
    port = here.ports.get(device)
    if port is None:
        return
    for key in ("iface-id", "vm-uuid"):
        other = port.external_ids.get(key)
        if other != ids[key]:
            raise Conflict(f"{device} is already a port with {key} {other or 'unset'}, not {ids[key]}")
    if port.bridge != bridge:
        raise Conflict(f"{device} is already a port of {port.bridge}, not {bridge}")
