"""The simulated OVS hybrid plug: tap - bridge `qbr` - veth `qvb`/`qvo` - switch, all four there or not."""

from __future__ import annotations

from sterna.domain.errors import Conflict, NotFound, Permanent
from sterna.domain.model import Nic, Refusal
from sterna.domain.plugs import (
    PlugType,
    between_taken,
    carried_ids,
    differs,
    hybrid_names,
    is_own,
    no_bridge,
    tap_name,
)
from sterna.ports.vif import MADE_BY
from sterna.sim.ports.vif_ports import as_seen, check_free, ids_for, is_made_ahead
from sterna.sim.world.host import SimHost
from sterna.sim.world.things import TAP_BEHIND, SimPort
from sterna.sim.world.world import World


class SimHybrid:
    """OVS hybrid plug of one host."""

    def __init__(self, world: World, host: SimHost, kind: PlugType) -> None:
        self._world, self._host, self._plug = world, host, kind.name

    def describe(self, nic: Nic) -> Nic | None:
        """Through the bridge its tap is on, else by port id; `device` is the tap."""
        tap = self._host.ports.get(nic.device or "")
        between = tap.bridge if tap is not None and tap.guest_mac == nic.mac.lower() else ""
        if not between.startswith("qbr"):
            between = hybrid_names(nic.port_id)[0] if nic.port_id else ""
        outer = self._host.ports.get(f"qvo{between.removeprefix('qbr')}")
        if outer is None or (nic.port_id and outer.external_ids.get("iface-id") != nic.port_id):
            return None
        return as_seen(nic, outer).model_copy(update={"device": self._tap_on(between, nic.device)})

    def check(self, nic: Nic) -> list[Refusal]:
        """The switch's bridge must be there, and its port's name free."""
        if nic.bridge not in self._host.bridges:
            return [no_bridge(nic)]
        outer = hybrid_names(nic.port_id or "")[2]
        port = self._host.ports.get(outer)
        if port is None or (port.bridge == nic.bridge and not differs(nic, port.external_ids)):
            return []
        return [between_taken(nic, outer, f"a port of {port.bridge}")]

    def plug(self, nic: Nic, vm_uuid: str, device: str) -> Nic:
        """Bridge, veth, the switch's port, the tap; what is there stays."""
        if not nic.bridge or not nic.port_id:
            raise Permanent(f"NIC {nic.mac} has no bridge or no port id to be plugged with")
        if nic.bridge not in self._host.bridges:
            raise NotFound(no_bridge(nic).message, fix=no_bridge(nic).fix)
        here, ids = self._host.name, ids_for(nic, vm_uuid, status=True)
        between, inner, outer = hybrid_names(nic.port_id)
        check_free(self._host.ports.get(outer), nic.bridge, ids)
        for name in (between, inner, outer):
            self._world.add_link(here, name)
        external_ids = carried_ids(nic) | ids | MADE_BY
        port = SimPort(outer, nic.bridge, nic.vlan, nic.mtu, external_ids, plug=self._plug, mac=nic.mac)
        if self._host.ports.get(outer) != port:
            self._world.put_port(here, port)
        marks = ids_for(nic, vm_uuid, status=False) | MADE_BY
        tap = SimPort(device, between, mtu=nic.mtu, external_ids=marks, plug=TAP_BEHIND, mac=nic.mac)
        if self._host.ports.get(device) != tap or device not in self._host.taps:
            self._world.add_port(here, tap)
        return nic.model_copy(update={"device": device, "managed": False, "external_ids": dict(external_ids)})

    def wired(self, nic: Nic) -> bool:
        """The tap is on its bridge, and the switch forwards for the veth."""
        between, _, outer = hybrid_names(nic.port_id or "")
        tap = self._host.ports.get(nic.device or "")
        on = tap is not None and tap.bridge == between and nic.device in self._host.taps
        return on and outer in self._host.ports and self._host.switch_forwards

    def is_on(self, nic: Nic) -> bool:
        """Is the veth a port of that bridge?"""
        port = self._host.ports.get(hybrid_names(nic.port_id or "")[2])
        return port is not None and port.bridge == nic.bridge

    def unplug(self, nic: Nic, for_good: bool) -> bool:
        """All four, or only the tap Sterna made."""
        here, (between, inner, outer) = self._host.name, hybrid_names(nic.port_id or "")
        taps = [p for p in self._host.ports.values() if p.bridge == between]
        if not for_good:
            gone = [self._world.remove_port(here, p.device) for p in taps if is_made_ahead(p)]
            return any(gone)
        port = self._host.ports.get(outer)
        if port is not None and not is_own(nic, port.guest_mac, port.external_ids):
            return False
        if port is not None and port.bridge != nic.bridge:
            raise Conflict(f"{outer} is a port of {port.bridge}, not {nic.bridge}: left alone")
        gone = [self._world.remove_port(here, outer)]
        gone += [self._world.remove_port(here, tap.device) for tap in taps]
        gone += [self._world.remove_link(here, name) for name in (inner, outer, between)]
        return any([*gone, self._world.remove_tap(here, tap_name(nic))])

    def put_back(self, nic: Nic) -> bool:
        """The veth is a port of the switch again."""
        outer = hybrid_names(nic.port_id or "")[2]
        if outer not in self._host.links:
            return False
        if outer not in self._host.ports:
            ids = dict(nic.external_ids)
            port = SimPort(outer, nic.bridge or "", nic.vlan, nic.mtu, ids, plug=self._plug, mac=nic.mac)
            self._world.put_port(self._host.name, port)
        return True

    def made_ahead(self) -> list[Nic]:
        """The ports Sterna made; without `device` where the tap is gone."""
        found = []
        for port in self._host.ports.values():
            if port.plug == self._plug and is_made_ahead(port):
                seen = as_seen(Nic(mac=port.guest_mac, plug=self._plug, managed=False), port)
                device = self._tap_on(f"qbr{port.device.removeprefix('qvo')}", None)
                found.append(seen.model_copy(update={"mtu": None, "device": device}))
        return found

    def _tap_on(self, between: str, wanted: str | None) -> str | None:
        taps = [p.device for p in self._host.ports.values() if p.bridge == between and p.device in self._host.taps]
        taps.sort(key=lambda device: device != wanted)
        return taps[0] if taps else None
