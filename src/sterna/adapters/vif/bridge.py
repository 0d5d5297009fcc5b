"""Linux bridge: the guest's tap is a port of a bridge of the kernel (protocol P10, P12, R6, F4).

The tap is made ahead of the guest, and makes way for libvirt's own before the copy (ADR 15). A bridge keeps no
words about its ports, so whose the tap is stands in its alias (`links.py`). The MTU is the bridge's own; the VLAN
libvirt sets for its own tap.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from sterna.adapters.vif import links
from sterna.adapters.vif.frames import announcements
from sterna.adapters.vif.links import Netlink
from sterna.domain.bridge_vlans import not_filtered
from sterna.domain.errors import Conflict, NotFound, Permanent
from sterna.domain.model import Nic, Refusal
from sterna.domain.plugs import BRIDGE, device_name, differs, name_taken, no_bridge
from sterna.kit.command import run
from sterna.ports.vif import MADE_BY

_LIMIT_S = 5.0
"""It takes some 3 ms."""


class LinuxBridgeVif:
    """`ports.vif.Vif` for Linux bridges."""

    def __init__(self, netlink: Netlink) -> None:
        self._netlink = netlink

    async def describe(self, nic: Nic) -> Nic | None:
        """The NIC's tap where it is a port of a bridge: by its name, else by port id, else by MAC."""
        return await self._netlink.run(lambda: _describe(nic))

    async def check(self, nic: Nic) -> list[Refusal]:
        """The bridge must be there, and the tap's name free. Raises Unreachable, as every call here may."""
        return await self._netlink.run(lambda: _check(nic))

    async def claim(self, nic: Nic, taken: Collection[str]) -> Nic:
        """Needs nothing for itself."""
        return nic

    async def plug(self, nic: Nic, *, vm_uuid: str, device: str) -> Nic:
        """P10: the tap, marked, on its bridge. The same already there is not an error.

        Raises Conflict if `device` belongs to something else, NotFound if there is no such bridge, Permanent.
        """
        return await self._netlink.run(lambda: _plug(nic, vm_uuid, device))

    async def make_way(self, nic: Nic) -> None:
        """Before M4: the tap goes; libvirt puts its own on the bridge. Raises Conflict."""

        def remove() -> None:
            with links.iproute() as ipr:
                links.remove_tap(ipr, nic.device or "")

        await self._netlink.run(remove)

    async def wired(self, nic: Nic) -> bool:
        """P12: is the tap up and on a bridge? The bridge forwards as soon as QEMU opens it."""

        def look() -> bool:
            with links.iproute() as ipr:
                link = links.link_of(ipr, nic.device or "")
                return link is not None and bool(link["flags"] & links.IFF_UP) and bool(link.get("master"))

        return await self._netlink.run(look)

    async def announce(self, nic: Nic) -> None:
        """The bridge's ports see the guest's announcements, and the bridge learns that it is behind its tap, in
        each VLAN of it. What the host itself sends is in no NIC's VLAN: one that has a VLAN is announced by QEMU,
        once the guest runs.

        Raises NotFound where the tap is not on that bridge, Permanent, Temporary.
        """
        device, bridge = nic.device or "", nic.bridge or ""
        await self._netlink.run(lambda: _must_be_port(device, bridge))
        if nic.vlan is None:
            await self._netlink.run(lambda: send(bridge, announcements(nic)))
        result = await run(
            ["bridge", "fdb", "replace", nic.mac, "dev", device, "master", "dynamic"], limit_s=_LIMIT_S
        )
        if result.code != 0:
            raise Permanent(f"{bridge} does not take the address of {device}: {result.words}")

    async def unplug(self, nic: Nic, *, for_good: bool = True) -> bool:
        """R6, F4: the tap is deleted. False where there was none. Raises Conflict if it is elsewhere, or in use."""
        return await self._netlink.run(lambda: _unplug(nic))

    async def put_back(self, nic: Nic) -> bool:
        """R6: no agent takes such a device from its place."""
        return False

    async def made_ahead(self) -> list[Nic]:
        """The taps on Linux bridges that Sterna made."""
        return await self._netlink.run(_made_ahead)


def send(device: str, frames: Sequence[bytes]) -> None:
    """Frames out of one of the host's own devices. Raises Permanent."""
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.settimeout(_LIMIT_S)
            raw.bind((device, 0))
            for frame in frames:
                raw.send(frame)
    except OSError as error:
        raise Permanent(f"nothing can be sent through {device}: {error.strerror}") from error


def _check(nic: Nic) -> list[Refusal]:
    with links.iproute() as ipr:
        if not links.is_bridge(ipr, nic.bridge or ""):
            return [no_bridge(nic)]
        link = links.link_of(ipr, device_name(nic))
        marks = links.read_marks(link) if link is not None else {}
    return [*against_vlan(nic), *(links.against_tap(nic) or _against_marks(nic, marks))]


def filters_vlans(bridge: str, sysfs: Path = Path("/sys")) -> bool:
    """Without it a bridge takes no notice of its ports' VLANs."""
    try:
        return (sysfs / f"class/net/{bridge}/bridge/vlan_filtering").read_text().strip() == "1"
    except OSError:
        return False


def against_vlan(nic: Nic, sysfs: Path = Path("/sys")) -> list[Refusal]:
    """What the bridge has against the NIC's VLAN."""
    if nic.vlan is None or filters_vlans(nic.bridge or "", sysfs):
        return []
    return [not_filtered(nic)]


def _against_marks(nic: Nic, marks: dict[str, str]) -> list[Refusal]:
    """What `_is_ours` will say of a tap that is free, or on the right bridge."""
    other = differs(nic, marks) if marks.get("attached-mac") == nic.mac else f"of NIC {marks.get('attached-mac')}"
    return [name_taken(nic, f"a tap {other} that Sterna made")] if marks and other else []


def _plug(nic: Nic, vm_uuid: str, device: str) -> Nic:
    if not nic.bridge:
        raise Permanent(f"NIC {nic.mac} has no bridge to be plugged into")
    marks = MADE_BY | {"vm-uuid": vm_uuid, "attached-mac": nic.mac}
    marks |= {"iface-id": nic.port_id} if nic.port_id else {}
    with links.iproute() as ipr:
        bridge = links.link_of(ipr, nic.bridge)
        if bridge is None or links.kind(bridge) != "bridge":
            raise NotFound(f"there is no Linux bridge {nic.bridge}", fix=f"ip link add {nic.bridge} type bridge")
        found = links.link_of(ipr, device)
        ours = found is not None and _is_ours(ipr, found, marks, nic.bridge)
        like_bridge = nic if nic.mtu else nic.model_copy(update={"mtu": bridge.get("mtu")})
        link = links.make_tap(ipr, device, like_bridge, ours=ours)
        links.put_marks(ipr, link, marks)
        ipr.link("set", index=link["index"], master=bridge["index"])
    plugged = _describe(nic.model_copy(update={"device": device}))
    if plugged is None:
        raise Permanent(f"{device} was added to {nic.bridge}, but it is not there")
    return plugged.model_copy(update={"managed": False})


def _is_ours(ipr: Any, link: Any, marks: dict[str, str], bridge: str) -> bool:
    """This VM's own tap of an earlier attempt. Raises Conflict for another's, or on another bridge."""
    there, on = links.read_marks(link), links.master(ipr, link)
    for key in ("vm-uuid", "attached-mac", "iface-id"):
        if (there or on) and there.get(key) != marks.get(key):
            is_now = there.get(key) or "unset"
            raise Conflict(f"{links.name(link)} is already a port with {key} {is_now}, not {marks.get(key)}")
    if on is not None and on != bridge:
        raise Conflict(f"{links.name(link)} is already a port of {on}, not {bridge}")
    return bool(there)


def _describe(nic: Nic) -> Nic | None:
    with links.iproute() as ipr:
        taps = [t for t in ipr.get_links() if links.kind(t) == "tun" and t.get("master")]
        # A name alone proves nothing: `vnet3` may have become another guest's.
        mine = [t for t in taps if links.belongs_to(t, nic.mac) and _same_port(t, nic)]
        mine.sort(key=lambda t: links.name(t) != nic.device)
        for tap in mine:
            bridge = links.master(ipr, tap)
            if bridge is not None and links.is_bridge(ipr, bridge):
                return _as_seen(nic, tap, bridge)
    return None


def _same_port(tap: Any, nic: Nic) -> bool:
    port = links.read_marks(tap).get("iface-id")
    return port is None or nic.port_id is None or port == nic.port_id


def _as_seen(nic: Nic, tap: Any, bridge: str) -> Nic:
    marks = links.read_marks(tap)
    seen = {
        "bridge": bridge,
        "mtu": tap.get("mtu"),
        "device": links.name(tap),
        "port_id": marks.get("iface-id", nic.port_id),
        "external_ids": marks,
    }
    if not filters_vlans(bridge):
        seen["vlan"] = None
    return nic.model_copy(update=seen)


def _must_be_port(device: str, bridge: str) -> None:
    with links.iproute() as ipr:
        link = links.link_of(ipr, device)
        if link is None or links.master(ipr, link) != bridge:
            raise NotFound(f"{device} is not a port of {bridge}")


def _unplug(nic: Nic) -> bool:
    device = nic.device or ""
    with links.iproute() as ipr:
        link = links.link_of(ipr, device)
        if link is None:
            return False
        on = links.master(ipr, link)
        if on is None:
            return links.delete_free_tap(ipr, device, nic)
        if links.is_anothers(link, nic):
            return False
        if on != nic.bridge or links.kind(link) != "tun":
            raise Conflict(f"{device} is a port of {on}, not {nic.bridge}: left alone")
        links.delete(ipr, link)
    return True


def _made_ahead() -> list[Nic]:
    found = []
    with links.iproute() as ipr:
        for tap in ipr.get_links():
            marks = links.read_marks(tap)
            bridge = links.master(ipr, tap) if marks else None
            if bridge is None or not marks.items() >= MADE_BY.items() or bridge.startswith("qbr"):
                continue
            nic = Nic(mac=marks.get("attached-mac", ""), plug=BRIDGE, managed=False)
            found.append(_as_seen(nic, tap, bridge).model_copy(update={"mtu": None}))
    return found
