"""macvtap: a device on top of one of the host's own NICs (protocol P10, F4). libvirt makes it and removes it.

So nothing is made ahead: P10 only looks whether the destination's libvirt will be able to. A parent in passthrough
mode is one guest's alone.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from sterna.adapters.vif import links
from sterna.adapters.vif.bridge import send
from sterna.adapters.vif.frames import announcements
from sterna.adapters.vif.links import Netlink
from sterna.domain.errors import Conflict, NotFound
from sterna.domain.model import Nic, Refusal
from sterna.domain.plugs import PASSTHROUGH, claimed

_ON_PARENT = ("macvtap", "macvlan")
_KERNEL_WORDS = {"passthru": PASSTHROUGH}
"""The kernel's word for a mode where libvirt has another."""


class MacvtapVif:
    """`ports.vif.Vif` for macvtap."""

    def __init__(self, netlink: Netlink) -> None:
        self._netlink = netlink

    async def describe(self, nic: Nic) -> Nic | None:
        """The guest's macvtap here, by its MAC; None where there is none."""
        return await self._netlink.run(lambda: _describe(nic))

    async def check(self, nic: Nic) -> list[Refusal]:
        """The parent must be there and able to carry it."""
        return await self._netlink.run(lambda: _check(nic))

    async def claim(self, nic: Nic, taken: Collection[str]) -> Nic:
        """P8: a parent that is one guest's alone must not be promised to another. Raises Conflict."""
        if claimed(nic) in taken:
            raise Conflict(f"{nic.parent} is reserved for another incoming guest")
        return nic

    async def plug(self, nic: Nic, *, vm_uuid: str, device: str) -> Nic:
        """P10: look once more. Raises NotFound without the parent, Conflict where it is not free."""
        for refusal in await self.check(nic):
            error = NotFound if refusal.code == "parent-missing" else Conflict
            raise error(refusal.message, fix=refusal.fix)
        return nic.model_copy(update={"device": None, "managed": True})

    async def make_way(self, nic: Nic) -> None:
        """Nothing: P10 made nothing."""

    async def wired(self, nic: Nic) -> bool:
        """F7: is the guest's device there and up?"""

        def look() -> bool:
            with links.iproute() as ipr:
                link = _find(ipr, nic)
                return link is not None and bool(link["flags"] & links.IFF_UP)

        return await self._netlink.run(look)

    async def announce(self, nic: Nic) -> None:
        """The guest's announcements out of its device. Raises NotFound where there is none, Permanent."""

        def tell() -> None:
            with links.iproute() as ipr:
                link = _find(ipr, nic)
            if link is None:
                raise NotFound(f"there is no macvtap with {nic.mac} here")
            send(links.name(link), announcements(nic))

        await self._netlink.run(tell)

    async def unplug(self, nic: Nic, *, for_good: bool = True) -> bool:
        """F4: what libvirt left of the guest's device, where its end was not clean. Mostly nothing: False.

        Only the very device `nic.device` with the guest's MAC.
        """

        def remove() -> bool:
            with links.iproute() as ipr:
                link = _find(ipr, nic)
                if link is None or links.name(link) != nic.device:
                    return False
                links.delete(ipr, link)
                return True

        return await self._netlink.run(remove)

    async def put_back(self, nic: Nic) -> bool:
        """R6: no agent takes such a device from its place."""
        return False

    async def made_ahead(self) -> list[Nic]:
        """None, ever."""
        return []


def _find(ipr: Any, nic: Nic) -> Any:
    mine = [
        link
        for link in ipr.get_links()
        if links.kind(link) == "macvtap" and str(link.get("address") or "").lower() == nic.mac.lower()
    ]
    mine.sort(key=lambda link: links.name(link) != nic.device)
    return mine[0] if mine else None


def _describe(nic: Nic) -> Nic | None:
    with links.iproute() as ipr:
        link = _find(ipr, nic)
        parent = links.link_at(ipr, link.get("link")) if link is not None else None
        if link is None or parent is None:
            return None
        mode = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "IFLA_MACVTAP_MODE")
        seen = {
            "parent": links.name(parent),
            "mode": _KERNEL_WORDS.get(mode, mode),
            "device": links.name(link),
            "mtu": link.get("mtu"),
        }
        return nic.model_copy(update=seen)


def against_vlan(nic: Nic, sysfs: Path = Path("/sys")) -> list[Refusal]:
    """libvirt sets the VLAN of a macvtap in passthrough mode on its parent, which must be a virtual function."""
    if nic.vlan is None or nic.mode != PASSTHROUGH or (sysfs / f"class/net/{nic.parent}/device/physfn").exists():
        return []
    message = f"{nic.parent} is not a virtual function, and NIC {nic.mac} has VLAN {nic.vlan}, which needs one"
    return [Refusal(code="vf-missing", message=message, fix=f"give a virtual function there the name {nic.parent}")]


def _check(nic: Nic) -> list[Refusal]:
    with links.iproute() as ipr:
        parent = links.link_of(ipr, nic.parent or "")
        if parent is None:
            message = f"there is no network device {nic.parent} (NIC {nic.mac})"
            return [
                Refusal(code="parent-missing", message=message, fix=f"give a device there the name {nic.parent}")
            ]
        if parent.get("master"):
            message = (
                f"{nic.parent} is a port of {links.master(ipr, parent)}: no macvtap can hang on it ({nic.mac})"
            )
            return [
                Refusal(code="parent-busy", message=message, fix=f"free {nic.parent}, or plug the NIC into that")
            ]
        above = [x for x in ipr.get_links() if links.kind(x) in _ON_PARENT and x.get("link") == parent["index"]]
    taken = [links.name(x) for x in above if nic.mode == PASSTHROUGH or _takes_all(x)]
    if not taken:
        return against_vlan(nic)
    message = f"{nic.parent} is not free for NIC {nic.mac} in mode {nic.mode}: {', '.join(taken)} is on it"
    return [Refusal(code="parent-busy", message=message, fix="move that guest away, or choose another host")]


def _takes_all(link: Any) -> bool:
    data = ("IFLA_MACVTAP_MODE", "IFLA_MACVLAN_MODE")
    return any(link.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", word) == "passthru" for word in data)
