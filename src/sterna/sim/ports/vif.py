"""The Vif port on a simulated host: one class per plug type, as the real ones, behind one that chooses.

The hybrid plug is in `vif_hybrid.py`.
"""

from __future__ import annotations

from collections.abc import Collection

from sterna.domain.errors import Conflict, NotFound, Permanent
from sterna.domain.model import Nic, Refusal
from sterna.domain.plugs import (
    PASSTHROUGH,
    PLUG_TYPES,
    Joins,
    PlugType,
    carried_ids,
    claimed,
    device_name,
    differs,
    hybrid_names,
    is_supported,
    name_taken,
    no_bridge,
    plug_type,
)
from sterna.ports.vif import MADE_BY
from sterna.sim.ports.vif_hybrid import SimHybrid
from sterna.sim.ports.vif_ports import as_seen, check_free, ids_for, is_made_ahead, unplug_tap
from sterna.sim.world.host import SimHost
from sterna.sim.world.things import SimPort
from sterna.sim.world.world import World


class SimVif:
    """One simulated host (ports.vif.Vif), every plug type."""

    def __init__(self, world: World, host: str) -> None:
        self._world = world
        self._host = world.hosts[host]
        here = (world, self._host)
        self._by_type = {kind.name: _simulated(*here, kind) for kind in PLUG_TYPES if is_supported(kind.name)}

    async def describe(self, nic: Nic) -> Nic | None:
        """The NIC as it is plugged here; None where it is not, or of an unknown type."""
        await self._called()
        return self._by_type[nic.plug].describe(nic) if nic.plug in self._by_type else None

    async def check(self, nic: Nic) -> list[Refusal]:
        """What this host lacks for it."""
        await self._called()
        missing = self._by_type[nic.plug].check(nic) if nic.plug in self._by_type else []
        return missing or (self._name_taken(nic) if plug_type(nic).made_ahead else [])

    def _name_taken(self, nic: Nic) -> list[Refusal]:
        """A tap or a port of the name that its tap is to have, which is not its own."""
        device = device_name(nic)
        port = self._host.ports.get(device)
        if port is None:
            is_used = device in self._host.taps and bool(self._host.users_of(device))
            return [name_taken(nic, "a tap that a process has open")] if is_used else []
        behind = plug_type(nic).keeps_bridge
        bridge = hybrid_names(nic.port_id or "")[0] if behind else nic.bridge
        other = "" if behind else differs(nic, port.external_ids)
        if port.bridge == bridge and port.guest_mac == nic.mac.lower() and not other:
            return []
        return [name_taken(nic, f"a port of {port.bridge}, {other or 'of another NIC'}")]

    async def claim(self, nic: Nic, taken: Collection[str]) -> Nic:
        """P8. Raises Conflict where what it needs for itself is not free."""
        await self._called()
        vif = self._by_type.get(nic.plug)
        if isinstance(vif, SimHostdev):
            return vif.claim(nic, taken)
        if claimed(nic) in taken:
            raise Conflict(f"{nic.parent} is reserved for another incoming guest")
        return nic

    async def plug(self, nic: Nic, *, vm_uuid: str, device: str) -> Nic:
        """P10. Raises Conflict if `device` belongs to something else, NotFound without the bridge or parent."""
        await self._called()
        if nic.plug not in self._by_type:
            raise Permanent(f"NIC {nic.mac}: nothing here can be plugged as {nic.plug!r}")
        return self._by_type[nic.plug].plug(nic, vm_uuid, device)

    async def make_way(self, nic: Nic) -> None:
        """Before M4. Raises Conflict where a QEMU has the tap."""
        await self._called()
        device = nic.device or ""
        if device in self._host.taps and self._host.users_of(device):
            raise Conflict(f"a process has {device} open: left alone")
        kind = plug_type(nic)
        if kind.joins is Joins.OPEN_VSWITCH and not kind.keeps_bridge:
            self._world.remove_tap(self._host.name, device)
        elif kind.made_ahead:
            self._world.remove_port(self._host.name, device)

    async def wired(self, nic: Nic) -> bool:
        """P12: a port forwards once its tap is there and the switch works."""
        await self._called()
        return self._by_type[nic.plug].wired(nic)

    async def announce(self, nic: Nic) -> None:
        """The network knows the address here. Raises NotFound without the port."""
        await self._called()
        if not self._by_type[nic.plug].is_on(nic):
            raise NotFound(f"{nic.device} is no working port of {nic.bridge or nic.parent}")
        self._world.learnt[nic.mac.lower()] = self._host.name

    async def unplug(self, nic: Nic, *, for_good: bool = True) -> bool:
        """R6, F4. Raises Conflict if the port is on another bridge."""
        await self._called()
        return self._by_type[nic.plug].unplug(nic, for_good)

    async def put_back(self, nic: Nic) -> bool:
        """R6: the port of a device that lost it."""
        await self._called()
        return nic.plug in self._by_type and self._by_type[nic.plug].put_back(nic)

    async def made_ahead(self) -> list[Nic]:
        """The ports that `plug` made."""
        await self._called()
        return [nic for vif in self._by_type.values() for nic in vif.made_ahead()]

    async def _called(self) -> None:
        await self._world.clock.sleep(self._world.pace.call_ms / 1000)


class SimHostdev:
    """A virtual function."""

    def __init__(self, world: World, host: SimHost) -> None:
        self._host = host

    def describe(self, nic: Nic) -> Nic | None:
        """With its physical network."""
        network = self._host.functions.get(nic.pci or "")
        return nic.model_copy(update={"physical_network": network}) if network else None

    def check(self, nic: Nic) -> list[Refusal]:
        """One must be free."""
        if self._free(nic, ()):
            return []
        message = f"no virtual function of {nic.physical_network} is free for NIC {nic.mac}"
        return [Refusal(code="vf-missing", message=message, fix="free one")]

    def claim(self, nic: Nic, taken: Collection[str]) -> Nic:
        """The first free one."""
        free = self._free(nic, taken)
        if not free:
            raise Conflict(f"no virtual function of {nic.physical_network} is free for NIC {nic.mac}")
        return nic.model_copy(update={"pci": free[0]})

    def plug(self, nic: Nic, vm_uuid: str, device: str) -> Nic:
        """Still there, still free?"""
        if nic.pci not in self._host.functions:
            raise NotFound(f"there is no virtual function {nic.pci} here")
        if nic.pci in self._host.guests_functions():
            raise Conflict(f"virtual function {nic.pci} has been taken by another guest")
        return nic

    def wired(self, nic: Nic) -> bool:
        """Is it there?"""
        return nic.pci in self._host.functions

    is_on = wired

    def unplug(self, nic: Nic, for_good: bool) -> bool:
        """Nothing."""
        return False

    def put_back(self, nic: Nic) -> bool:
        """Nothing."""
        return False

    def made_ahead(self) -> list[Nic]:
        """None, ever."""
        return []

    def _free(self, nic: Nic, taken: Collection[str]) -> list[str]:
        mine = sorted(pci for pci, network in self._host.functions.items() if network == nic.physical_network)
        return [pci for pci in mine if pci not in self._host.guests_functions() and pci not in taken]


class SimSwitch:
    """A tap on an Open vSwitch or a Linux bridge."""

    def __init__(self, world: World, host: SimHost, kind: PlugType) -> None:
        self._world, self._host, self._plug = world, host, kind.name
        self._is_switch = kind.joins is Joins.OPEN_VSWITCH

    def describe(self, nic: Nic) -> Nic | None:
        """By device (if it carries the NIC's MAC), else by port id, else (Linux bridge) by MAC."""
        port = self._find(nic)
        return as_seen(nic, port) if port is not None else None

    def check(self, nic: Nic) -> list[Refusal]:
        """The bridge must be there."""
        return [] if nic.bridge in self._bridges else [no_bridge(nic)]

    def plug(self, nic: Nic, vm_uuid: str, device: str) -> Nic:
        """The tap on its bridge, marked; as it is already: nothing."""
        if not nic.bridge or (not nic.port_id and self._is_switch):
            raise Permanent(f"NIC {nic.mac} has no bridge or no port id to be plugged with")
        for refusal in self.check(nic):
            raise NotFound(refusal.message, fix=refusal.fix)
        ids = ids_for(nic, vm_uuid, status=self._is_switch)
        check_free(self._host.ports.get(device), nic.bridge, ids)
        external_ids = (carried_ids(nic) if self._is_switch else {}) | ids | MADE_BY
        mtu = nic.mtu or (None if self._is_switch else 1500)
        wanted = SimPort(device, nic.bridge, nic.vlan, mtu, external_ids, plug=self._plug, mac=nic.mac)
        if self._host.ports.get(device) != wanted or device not in self._host.taps:
            self._world.add_port(self._host.name, wanted)
        update = {"device": device, "managed": False, "external_ids": dict(external_ids), "mtu": mtu}
        return nic.model_copy(update=update)

    def wired(self, nic: Nic) -> bool:
        """Its tap is on the bridge; an Open vSwitch may not forward yet."""
        return nic.device in self._host.ports and nic.device in self._host.taps and self._forwards

    def is_on(self, nic: Nic) -> bool:
        """Is its tap on that bridge?"""
        port = self._host.ports.get(nic.device or "")
        return port is not None and port.bridge == nic.bridge and nic.device in self._host.taps

    def unplug(self, nic: Nic, for_good: bool) -> bool:
        """The tap is gone."""
        return unplug_tap(self._world, self._host, nic)

    def put_back(self, nic: Nic) -> bool:
        """Onto the switch; a Linux bridge has no agent that would take a port off."""
        device = nic.device or ""
        if device not in self._host.taps or not self._is_switch:
            return False
        if device not in self._host.ports:
            ids = dict(nic.external_ids)
            port = SimPort(device, nic.bridge or "", nic.vlan, nic.mtu, ids, plug=self._plug, mac=nic.mac)
            self._world.put_port(self._host.name, port)
        return True

    def made_ahead(self) -> list[Nic]:
        """The taps Sterna made on this kind of bridge."""
        return [
            as_seen(Nic(mac=p.guest_mac, plug=self._plug, managed=False), p).model_copy(update={"mtu": None})
            for p in self._host.ports.values()
            if p.plug == self._plug and is_made_ahead(p) and not p.bridge.startswith("qbr")
        ]

    @property
    def _bridges(self) -> set[str]:
        return set(self._host.bridges) if self._is_switch else self._host.linux_bridges

    @property
    def _forwards(self) -> bool:
        return self._host.switch_forwards or not self._is_switch

    def _find(self, nic: Nic) -> SimPort | None:
        here = [p for p in self._host.ports.values() if p.plug == self._plug and not p.bridge.startswith("qbr")]
        mine = [p for p in here if p.guest_mac == nic.mac.lower()]
        by_port = [p for p in here if nic.port_id and p.external_ids.get("iface-id") == nic.port_id]
        by_name = [p for p in mine if p.device == nic.device]
        if not self._is_switch:
            known = [p for p in mine if p.external_ids.get("iface-id") in (None, nic.port_id) or not nic.port_id]
            return next(iter([*[p for p in by_name if p in known], *known]), None)
        return by_name[0] if by_name else (by_port[-1] if by_port else None)


class SimMacvtap:
    """A macvtap, which libvirt makes with the guest."""

    def __init__(self, world: World, host: SimHost) -> None:
        self._world, self._host = world, host

    def describe(self, nic: Nic) -> Nic | None:
        """The guest's macvtap, by its MAC."""
        port = self._find(nic)
        if port is None:
            return None
        seen = {"parent": port.bridge, "mode": port.mode, "device": port.device, "mtu": port.mtu}
        return nic.model_copy(update=seen)

    def check(self, nic: Nic) -> list[Refusal]:
        """The parent must be there, and free for passthrough."""
        if nic.parent not in self._host.parents:
            message = f"there is no network device {nic.parent} (NIC {nic.mac})"
            return [
                Refusal(code="parent-missing", message=message, fix=f"give a device there the name {nic.parent}")
            ]
        above = self._host.on_parent(nic.parent)
        taken = [p.device for p in above if PASSTHROUGH in (nic.mode, p.mode)]
        if not taken:
            return []
        message = f"{nic.parent} is not free for NIC {nic.mac} in mode {nic.mode}: {', '.join(taken)} is on it"
        return [Refusal(code="parent-busy", message=message, fix="move that guest away, or choose another host")]

    def plug(self, nic: Nic, vm_uuid: str, device: str) -> Nic:
        """Only a look."""
        for refusal in self.check(nic):
            error = NotFound if refusal.code == "parent-missing" else Conflict
            raise error(refusal.message, fix=refusal.fix)
        return nic.model_copy(update={"device": None, "managed": True})

    def wired(self, nic: Nic) -> bool:
        """Is it there?"""
        return self._find(nic) is not None

    is_on = wired

    def unplug(self, nic: Nic, for_good: bool) -> bool:
        """What libvirt left of it."""
        port = self._find(nic)
        return (
            port is not None and port.device == nic.device and self._world.remove_port(self._host.name, port.device)
        )

    def put_back(self, nic: Nic) -> bool:
        """Nobody takes it away."""
        return False

    def made_ahead(self) -> list[Nic]:
        """None, ever."""
        return []

    def _find(self, nic: Nic) -> SimPort | None:
        mine = [p for p in self._host.ports.values() if p.plug == nic.plug and p.guest_mac == nic.mac.lower()]
        mine.sort(key=lambda p: p.device != nic.device)
        return mine[0] if mine else None


def _simulated(world: World, host: SimHost, kind: PlugType) -> SimSwitch | SimHybrid | SimMacvtap | SimHostdev:
    """A plug type on a host, by what a NIC is a part of there."""
    if kind.keeps_bridge:
        return SimHybrid(world, host, kind)
    match kind.joins:
        case Joins.PARENT:
            return SimMacvtap(world, host)
        case Joins.FUNCTION:
            return SimHostdev(world, host)
        case _:
            return SimSwitch(world, host, kind)
