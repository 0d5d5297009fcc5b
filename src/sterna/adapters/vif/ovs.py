"""OVS normal plug: the guest's tap is a port of the integration bridge (protocol P10, P12, R6, F4).

The tap is made ahead of the guest, so that the port is wired before the guest arrives. Before the copy it makes way
for the tap that libvirt makes, which takes over the same port (ADR 15). Port and external_ids are written in one
transaction, as Nova's os-vif writes them, so that Neutron agents and OVN treat it as theirs.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sterna.adapters.vif import links, ovsdb
from sterna.adapters.vif.announce import say
from sterna.adapters.vif.ovsdb import OvsDb
from sterna.domain.errors import Permanent
from sterna.domain.model import Nic, Refusal
from sterna.domain.plugs import OVS, device_name, name_taken, no_bridge

_NO_DEVICE = "patch"
"""A type of interface that has no device of the host. Without a peer it is not made either."""


class OvsVif:
    """`ports.vif.Vif` for OVS normal plug."""

    def __init__(self, db: OvsDb) -> None:
        self._db = db

    async def describe(self, nic: Nic) -> Nic | None:
        """The NIC's port as Open vSwitch has it now; None where it is not plugged here. Raises Unreachable."""
        return await self._db.run(lambda api: _describe(api, nic))

    async def check(self, nic: Nic) -> list[Refusal]:
        """The bridge must be there, and the tap's name free. Raises Unreachable."""
        return await self._db.run(lambda api: missing_bridge(api, nic) or _name_taken(api, nic))

    async def claim(self, nic: Nic, taken: Collection[str]) -> Nic:
        """Needs nothing for itself."""
        return nic

    async def plug(self, nic: Nic, *, vm_uuid: str, device: str) -> Nic:
        """P10: the tap, its port on the NIC's bridge, and its external_ids. The same already there is not an error.

        Raises Conflict if `device` belongs to something else, NotFound if there is no such bridge, Permanent if
        the switch or the kernel refuses, Unreachable if Open vSwitch does not answer.
        """
        return await self._db.run(lambda api: _plug(api, nic, vm_uuid, device))

    async def make_way(self, nic: Nic) -> None:
        """Before M4: the tap goes, its port stays and keeps its OpenFlow number. Raises Conflict, Unreachable."""
        await self._db.run(lambda api: _make_way(api, nic.device or ""))

    async def wired(self, nic: Nic) -> bool:
        """P12: has ovs-vswitchd given the port a number, without an error? Raises Unreachable."""
        return await self._db.forwards(nic.device or "")

    async def announce(self, nic: Nic) -> None:
        """The guest's own announcements, in through its port and out as the switch sees fit.

        Raises NotFound where the port is not on that bridge, Permanent, Temporary, Unreachable.
        """
        bridge = nic.bridge or ""
        await self._db.run(lambda api: say(api, self._db.remote, bridge, nic.device or "", nic))

    async def unplug(self, nic: Nic, *, for_good: bool = True) -> bool:
        """R6, F4: the port off its bridge and the tap gone. False where there was nothing.

        Only for taps Sterna made: libvirt reuses its own names (`vnet3`) for other guests at once.
        A tap without a port, left by a plug that was interrupted in between, goes as well. What another NIC has by
        now stays. Raises Conflict if the port is on another bridge than `nic.bridge`, or the tap is no port and in
        use; Unreachable.
        """
        return await self._db.run(lambda api: _unplug(api, nic))

    async def put_back(self, nic: Nic) -> bool:
        """R6: a port again, as `nic` was described. False without its device. Raises Permanent, Unreachable."""
        return await self._db.run(lambda api: ovsdb.put_back(api, nic.device or "", nic))

    async def made_ahead(self) -> list[Nic]:
        """The ports whose tap Sterna made. Raises Unreachable."""
        return await self._db.run(_made_ahead)


def missing_bridge(api: Any, nic: Nic) -> list[Refusal]:
    """A refusal where Open vSwitch has no such bridge."""
    return [] if ovsdb.rows(api, "Bridge", name=nic.bridge or "") else [no_bridge(nic)]


def _name_taken(api: Any, nic: Nic) -> list[Refusal]:
    if not ovsdb.rows(api, "Interface", name=device_name(nic)):
        return links.against_tap(nic)
    what = ovsdb.against_port(api, device_name(nic), nic)
    return [name_taken(nic, what)] if what else []


def _plug(api: Any, nic: Nic, vm_uuid: str, device: str) -> Nic:
    ids = ovsdb.ids_for(nic, vm_uuid)
    ovsdb.check_free(api, device, nic.bridge or "", ids)
    with links.iproute() as ipr:
        links.make_tap(ipr, device, nic, ours=bool(ovsdb.rows(api, "Interface", name=device)))
    ovsdb.add_port(api, device, nic, ids)
    plugged = _describe(api, nic.model_copy(update={"device": device}))
    if plugged is None:
        raise Permanent(f"{device} was added to {nic.bridge}, but the switch does not show it")
    return plugged.model_copy(update={"managed": False})


def _make_way(api: Any, device: str) -> None:
    """An agent's flows name the port by its number, so the tap that libvirt makes must get the same one.

    ovs-vswitchd has to release the device: its user-space datapath would else keep a socket to the one that is
    gone, and never notice libvirt's. It does at a change of the interface's type, which leaves everything else.
    """
    known = ovsdb.rows(api, "Interface", name=device)
    with links.iproute() as ipr:
        links.check_closed(ipr, device)
    for interface in known:
        number = ovsdb.first(interface.ofport) or 0
        columns = [("ofport_request", number)] if number > 0 else []
        _set(api, device, ("type", _NO_DEVICE), *columns)
    with links.iproute() as ipr:
        links.remove_tap(ipr, device)
    if known:
        _set(api, device, ("type", ""))


def _set(api: Any, device: str, *columns: tuple[str, Any]) -> None:
    with api.transaction(check_error=True) as txn:
        txn.add(api.db_set("Interface", device, *columns))


def _describe(api: Any, nic: Nic) -> Nic | None:
    interface = None
    if nic.device:
        found = ovsdb.rows(api, "Interface", name=nic.device)
        # A name alone proves nothing: `vnet3` may have become another guest's.
        interface = next((i for i in found if _same_mac(i.external_ids.get("attached-mac"), nic.mac)), None)
    if interface is None and nic.port_id:
        for row in ovsdb.rows(api, "Interface"):
            if row.external_ids.get("iface-id") == nic.port_id and ovsdb.bridge_of(api, row)[0]:
                interface = row
    return ovsdb.as_seen(api, nic, interface) if interface is not None else None


def _made_ahead(api: Any) -> list[Nic]:
    found = []
    for row in ovsdb.made_by_sterna(api):
        nic = Nic(mac=row.external_ids.get("attached-mac", ""), plug=OVS, managed=False)
        seen = ovsdb.as_seen(api, nic, row)
        if seen is not None and not row.name.startswith("qvo"):  # those are the hybrid plug's
            found.append(seen.model_copy(update={"mtu": None}))
    return found


def _unplug(api: Any, nic: Nic) -> bool:
    device = nic.device or ""
    if ovsdb.is_anothers(api, device, nic):
        return False
    had_port = ovsdb.remove_port(api, device, nic.bridge or "")
    with links.iproute() as ipr:
        if not had_port:
            return links.delete_free_tap(ipr, device, nic)
        link = links.link_of(ipr, device)
        if link is not None:
            links.delete(ipr, link)
    return True


def _same_mac(one: str | None, other: str) -> bool:
    return one is not None and one.lower() == other.lower()
