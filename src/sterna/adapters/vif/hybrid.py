"""OVS hybrid plug: tap - Linux bridge `qbr` - veth `qvb`/`qvo` - integration bridge (protocol P10, P12, R6, F4).

What an iptables firewall on the host needs: it filters on the Linux bridge in between. All four devices are named,
and the port that the switch wires (`qvo...`) is marked, as Nova's os-vif does, so that Neutron's agents treat it as
theirs. As the switch's end of the veth is there before the guest, they can wire it and say so before P11 returns.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from sterna.adapters.vif import links, ovsdb
from sterna.adapters.vif.announce import say
from sterna.adapters.vif.ovs import missing_bridge
from sterna.adapters.vif.ovsdb import OvsDb
from sterna.domain.errors import Conflict, Permanent
from sterna.domain.model import Nic, Refusal
from sterna.domain.plugs import HYBRID, between_taken, hybrid_names, tap_name
from sterna.ports.vif import MADE_BY


class HybridVif:
    """`ports.vif.Vif` for OVS hybrid plug."""

    def __init__(self, db: OvsDb) -> None:
        self._db = db

    async def describe(self, nic: Nic) -> Nic | None:
        """The NIC's port as Open vSwitch has it (`device` is the guest's tap), found through the tap's bridge or
        the port id; None where it is not plugged here. Raises Unreachable."""
        return await self._db.run(lambda api: _describe(api, nic))

    async def check(self, nic: Nic) -> list[Refusal]:
        """The switch's bridge must be there, and the names of all four devices free. Raises Unreachable."""
        between = nic.model_copy(update={"bridge": hybrid_names(nic.port_id or "")[0]})

        def check(api: Any) -> list[Refusal]:
            return missing_bridge(api, nic) or [*_against_names(api, nic), *links.against_tap(between)]

        return await self._db.run(check)

    async def claim(self, nic: Nic, taken: Collection[str]) -> Nic:
        """Needs nothing for itself."""
        return nic

    async def plug(self, nic: Nic, *, vm_uuid: str, device: str) -> Nic:
        """P10: bridge, veth, the switch's port, and the tap. What is there already of this VM stays.

        Raises Conflict if a name belongs to something else, NotFound without the switch's bridge, Permanent,
        Unreachable.
        """
        return await self._db.run(lambda api: _plug(api, nic, vm_uuid, device))

    async def make_way(self, nic: Nic) -> None:
        """Before M4: only the tap goes; libvirt puts its own on `qbr`. Raises Conflict."""

        def remove(_: Any) -> None:
            with links.iproute() as ipr:
                links.remove_tap(ipr, nic.device or "")

        await self._db.run(remove)

    async def wired(self, nic: Nic) -> bool:
        """P12: is the tap on its bridge, and does the switch forward for the veth? Raises Unreachable."""

        def look(api: Any) -> bool:
            bridge, _, outer = hybrid_names(nic.port_id or "")
            with links.iproute() as ipr:
                tap = links.link_of(ipr, nic.device or "")
                if tap is None or not tap["flags"] & links.IFF_UP or links.master(ipr, tap) != bridge:
                    return False
            return self._db.sees(api, outer)

        return await self._db.run(look)

    async def announce(self, nic: Nic) -> None:
        """The guest's own announcements, in through the veth and out as the switch sees fit.

        Raises NotFound where the veth is not on that bridge, Permanent, Temporary, Unreachable.
        """
        bridge, outer = nic.bridge or "", hybrid_names(nic.port_id or "")[2]
        await self._db.run(lambda api: say(api, self._db.remote, bridge, outer, nic))

    async def unplug(self, nic: Nic, *, for_good: bool = True) -> bool:
        """R6, F4: the switch's port, the tap, the veth and the Linux bridge. False where there was nothing.

        Not `for_good`: only the tap Sterna made. Raises Conflict if the port is on another bridge than
        `nic.bridge`, or something else is on the Linux bridge; Permanent, Unreachable.
        """
        return await self._db.run(lambda api: _unplug(api, nic, for_good))

    async def put_back(self, nic: Nic) -> bool:
        """R6: the veth is a port of the switch again. False where it is gone. Raises Permanent, Unreachable."""
        outer = hybrid_names(nic.port_id or "")[2]
        return await self._db.run(lambda api: ovsdb.put_back(api, outer, nic))

    async def made_ahead(self) -> list[Nic]:
        """The ports Sterna made; without `device` where the tap is gone. Raises Unreachable."""
        return await self._db.run(_made_ahead)


def _plug(api: Any, nic: Nic, vm_uuid: str, device: str) -> Nic:
    ids = ovsdb.ids_for(nic, vm_uuid)
    bridge, inner, outer = hybrid_names(nic.port_id or "")
    ovsdb.check_free(api, outer, nic.bridge or "", ids)
    with links.iproute() as ipr:
        between = _make_bridge(ipr, bridge)
        _make_veth(ipr, inner, outer, nic.mtu)
        _join(ipr, inner, between)
    ovsdb.add_port(api, outer, nic, ids)
    with links.iproute() as ipr:
        found = links.link_of(ipr, device)
        ours = found is not None and found.get("master") == between
        tap = links.make_tap(ipr, device, nic, ours=ours)
        links.put_marks(
            ipr, tap, MADE_BY | {"vm-uuid": vm_uuid, "attached-mac": nic.mac, "iface-id": ids["iface-id"]}
        )
        _join(ipr, device, between)
    plugged = _describe(api, nic.model_copy(update={"device": device}))
    if plugged is None:
        raise Permanent(f"{outer} was added to {nic.bridge}, but the switch does not show it")
    return plugged.model_copy(update={"device": device, "managed": False})


def _against_names(api: Any, nic: Nic) -> list[Refusal]:
    """What speaks against making the bridge, the veth and the switch's port."""
    bridge, inner, outer = hybrid_names(nic.port_id or "")
    if what := ovsdb.against_port(api, outer, nic):
        return [between_taken(nic, outer, what)]
    found = []
    with links.iproute() as ipr:
        for name, kind in ((bridge, "bridge"), (inner, "veth"), (outer, "veth")):
            link = links.link_of(ipr, name)
            if link is not None and links.kind(link) != kind:
                found.append(between_taken(nic, name, f"a device ({links.kind(link) or 'hardware'})"))
    return found


def _make_bridge(ipr: Any, name: str) -> int:
    """The Linux bridge: it forwards at once, and floods instead of learning (one guest is behind it). Its index."""
    link = links.link_of(ipr, name)
    if link is None:
        ipr.link(
            "add",
            ifname=name,
            kind="bridge",
            br_forward_delay=0,
            br_stp_state=0,
            br_ageing_time=0,
            br_mcast_snooping=0,
        )
        link = links.link_of(ipr, name)
        if link is None:
            raise Permanent(f"{name} was created and has disappeared")
    elif links.kind(link) != "bridge":
        raise Conflict(f"{name} exists and is not a Linux bridge")
    links.quieten(name)
    with contextlib.suppress(OSError):  # a kernel without multicast snooping
        Path(f"/sys/class/net/{name}/bridge/multicast_snooping").write_text("0")
    ipr.link("set", index=link["index"], state="up")
    return int(link["index"])


def _make_veth(ipr: Any, inner: str, outer: str, mtu: int | None) -> None:
    found = [links.link_of(ipr, name) for name in (inner, outer)]
    for name, link in zip((inner, outer), found, strict=True):
        if link is not None and links.kind(link) != "veth":
            raise Conflict(f"{name} exists and is not a veth")
    if None in found:
        for link in found:
            if link is not None:  # half of another pair: no use to anybody under this name
                links.delete(ipr, link)
        ipr.link("add", ifname=inner, kind="veth", peer={"ifname": outer})
    for name in (inner, outer):
        links.quieten(name)
        link = links.link_of(ipr, name)
        more = {"mtu": mtu} if mtu else {}
        ipr.link("set", index=link["index"], state="up", **more)


def _join(ipr: Any, device: str, bridge: int) -> None:
    link = links.link_of(ipr, device)
    if link is None:
        raise Permanent(f"{device} was created and has disappeared")
    if link.get("master") not in (None, 0, bridge):
        raise Conflict(f"{device} is already a port of {links.master(ipr, link)}")
    ipr.link("set", index=link["index"], master=bridge)


def _describe(api: Any, nic: Nic) -> Nic | None:
    with links.iproute() as ipr:
        tap = links.link_of(ipr, nic.device or "")
        bridge = links.master(ipr, tap) if tap is not None and links.belongs_to(tap, nic.mac) else None
        if bridge is None and nic.port_id:
            bridge = hybrid_names(nic.port_id)[0]
        if bridge is None or not bridge.startswith("qbr"):
            return None
        device = _tap_on(ipr, bridge, nic)
    for interface in ovsdb.rows(api, "Interface", name=f"qvo{bridge.removeprefix('qbr')}"):
        if nic.port_id is None or interface.external_ids.get("iface-id") == nic.port_id:
            return ovsdb.as_seen(api, nic, interface, device=device)
    return None


def _tap_on(ipr: Any, bridge: str, nic: Nic) -> str | None:
    """The guest's tap on the Linux bridge: the one the NIC names, else the one that is open, else any."""
    taps = [t for t in _ports(ipr, bridge) if links.kind(t) == "tun"]
    taps.sort(key=lambda t: (links.name(t) != nic.device, not links.is_open(t)))
    return links.name(taps[0]) if taps else None


def _ports(ipr: Any, bridge: str) -> list[Any]:
    found = links.link_of(ipr, bridge)
    return [link for link in ipr.get_links() if link.get("master") == found["index"]] if found is not None else []


def _unplug(api: Any, nic: Nic, for_good: bool) -> bool:
    bridge, inner, outer = hybrid_names(nic.port_id or "")
    if not for_good:
        with links.iproute() as ipr:
            ours = [t for t in _ports(ipr, bridge) if links.read_marks(t).items() >= MADE_BY.items()]
            for tap in ours:
                links.delete(ipr, tap)
            return bool(ours)
    if ovsdb.is_anothers(api, outer, nic):
        return False
    with links.iproute() as ipr:
        _check_only_guests(ipr, bridge, inner)
    gone = ovsdb.remove_port(api, outer, nic.bridge or "")
    with links.iproute() as ipr:
        taps = [t for t in _ports(ipr, bridge) if links.kind(t) == "tun"]
        rest = [links.link_of(ipr, n) for n in (inner, outer, bridge)]
        for link in [*taps, *(r for r in rest if r is not None)]:
            gone = True
            links.delete(ipr, link)
        return links.delete_free_tap(ipr, tap_name(nic), nic) or gone


def _check_only_guests(ipr: Any, bridge: str, inner: str) -> None:
    """Raises Conflict where something hangs on the Linux bridge that is neither a tap nor its own veth."""
    strangers = [links.name(p) for p in _ports(ipr, bridge) if links.kind(p) != "tun" and links.name(p) != inner]
    if strangers:
        raise Conflict(f"{', '.join(strangers)} is on {bridge}: left alone")


def _made_ahead(api: Any) -> list[Nic]:
    found = []
    for row in ovsdb.made_by_sterna(api):
        if not row.name.startswith("qvo"):
            continue
        nic = Nic(mac=row.external_ids.get("attached-mac", ""), plug=HYBRID, managed=False)
        with links.iproute() as ipr:
            device = _tap_on(ipr, f"qbr{row.name.removeprefix('qvo')}", nic)
        seen = ovsdb.as_seen(api, nic, row, device=device)
        if seen is not None:
            found.append(seen.model_copy(update={"mtu": None}))
    return found
