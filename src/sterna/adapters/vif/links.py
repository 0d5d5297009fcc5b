"""The kernel's network devices, through netlink: taps made ahead of a guest, and Linux bridges.

Called by the plug types, each action with a socket of its own, in a worker's thread. What Sterna must remember of a
tap on a Linux bridge stands in its alias: `sterna vm-uuid=... attached-mac=...`.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from sterna.domain.errors import Conflict, Permanent, Unreachable
from sterna.domain.model import Nic, Refusal
from sterna.domain.plugs import device_name, is_own, name_taken
from sterna.kit.threads import Worker

IFF_UP = 0x1
IFF_LOWER_UP = 0x10000
_SIGN = "sterna "
CALL_LIMIT_S = 60.0
"""For one action, a few questions of some 0.1 ms each. A device the kernel cannot give up holds up all others."""

T = TypeVar("T")


class Netlink:
    """The thread in which actions on the kernel's devices run, one after another."""

    def __init__(self) -> None:
        self._worker = Worker("sterna-links", limit_s=CALL_LIMIT_S)

    async def run(self, act: Callable[[], T]) -> T:
        """`act`'s answer. Raises Unreachable where the kernel gives none, and what `act` raises."""
        try:
            return await self._worker.run(act)
        except TimeoutError as error:
            fix = "look into the kernel's log (dmesg), for a network device that it cannot remove"
            raise Unreachable(f"the kernel does not answer about network devices: {error}", fix=fix) from error

    def stop(self) -> None:
        """End the thread. Not waited for."""
        self._worker.stop()


@contextmanager
def iproute() -> Iterator[Any]:
    """A netlink socket for one action; what the kernel refuses becomes Permanent."""
    try:
        with IPRoute() as ipr:
            yield ipr
    except NetlinkError as error:
        raise Permanent(f"the kernel refused: {error}") from error
    except OSError as error:
        raise Permanent(f"the kernel refused: {error.strerror or error}") from error


@contextmanager
def gone_is_fine() -> Iterator[None]:
    """A device that has been removed since is not an error."""
    try:
        yield
    except NetlinkError as error:
        if error.code != errno.ENODEV:
            raise


def link_of(ipr: Any, device: str) -> Any:
    """The device's message; None where there is none."""
    found = ipr.link_lookup(ifname=device) if device else ()
    return link_at(ipr, found[0]) if found else None


def link_at(ipr: Any, index: int) -> Any:
    """The same by index."""
    try:
        return next(iter(ipr.get_links(index)), None)
    except NetlinkError as error:
        if error.code == errno.ENODEV:
            return None
        raise


def name(link: Any) -> str:
    """`tap0f2a...`."""
    return str(link.get("ifname"))


def kind(link: Any) -> str:
    """`tun`, `bridge`, `veth`, `macvtap`, '' for hardware."""
    return link.get(("linkinfo", "kind")) or ""


def master(ipr: Any, link: Any) -> str | None:
    """The name of the bridge the device is a port of."""
    index = link.get("master")
    above = link_at(ipr, index) if index else None
    return name(above) if above is not None else None


def is_bridge(ipr: Any, device: str) -> bool:
    """Is there a Linux bridge of that name?"""
    link = link_of(ipr, device)
    return link is not None and kind(link) == "bridge"


def is_open(link: Any) -> bool:
    """Does a process have this tap open?"""
    return bool(link["flags"] & IFF_LOWER_UP)


def make_tap(ipr: Any, device: str, nic: Nic, *, ours: bool) -> Any:
    """The tap, up, with its MTU. One of an interrupted attempt is taken over unless a process has it open.

    Raises Conflict where the name belongs to something else.
    """
    link = link_of(ipr, device)
    if link is None:
        # vnet_hdr: QEMU's virtio-net offloads need it, and it cannot be changed on a tap that exists.
        ipr.link("add", ifname=device, kind="tuntap", mode="tap", ifr={"vnet_hdr": 1, "no_pi": 1})
        link = link_of(ipr, device)
        if link is None:
            raise Permanent(f"{device} was created and has disappeared")
    elif not ours:
        if kind(link) != "tun":
            raise Conflict(f"{device} exists and is not a tap")
        if is_open(link):
            raise Conflict(f"{device} exists and a process has it open")
    quieten(device)
    settings: dict[str, Any] = {"address": tap_mac(nic.mac)} | ({"mtu": nic.mtu} if nic.mtu else {})
    ipr.link("set", index=link["index"], state="up", **settings)
    return link


def tap_mac(mac: str) -> str:
    """The MAC that libvirt gives the tap of a guest's NIC: the guest's with fe as its first byte.

    A bridge takes the lowest MAC of its ports for its own. The byte is fa where the guest's begins with fe, because
    the two must differ.
    """
    return f"{'fa' if mac[:2].lower() == 'fe' else 'fe'}{mac[2:]}".lower()


def against_tap(nic: Nic) -> list[Refusal]:
    """What speaks against `make_tap` of the name that the NIC's tap is to have, if it is not its own already."""
    with iproute() as ipr:
        link = link_of(ipr, device_name(nic))
        on = master(ipr, link) if link is not None else None
    if link is None or (read_marks(link).get("attached-mac") == nic.mac and on in (None, nic.bridge)):
        return []
    if kind(link) != "tun":
        return [name_taken(nic, f"a device ({kind(link) or 'hardware'})")]
    if on is not None:
        return [name_taken(nic, f"a port of {on}")]
    return [name_taken(nic, "a tap that a process has open")] if is_open(link) else []


def quieten(device: str) -> None:
    """The host itself must not take part in the guest's network: without this, the kernel gives the device an IPv6
    address as soon as the guest is there, and sends router solicitations into it."""
    with contextlib.suppress(OSError):
        Path(f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6").write_text("1")


def put_marks(ipr: Any, link: Any, marks: dict[str, str]) -> None:
    """Write what Sterna must remember of this device into its alias."""
    ipr.link("set", index=link["index"], ifalias=_SIGN + " ".join(f"{k}={v}" for k, v in marks.items()))


def read_marks(link: Any) -> dict[str, str]:
    """What `put_marks` wrote; {} where the alias is none of Sterna's."""
    alias = link.get("ifalias") or ""
    if not alias.startswith(_SIGN):
        return {}
    pairs = (word.partition("=") for word in alias.removeprefix(_SIGN).split())
    return {key: value for key, _, value in pairs}


def delete(ipr: Any, link: Any) -> None:
    """Delete the device; gone already is fine."""
    with gone_is_fine():
        ipr.link("del", index=link["index"])


def check_closed(ipr: Any, device: str) -> None:
    """Raises Conflict where the device is there and not a tap, or a process has it open."""
    link = link_of(ipr, device)
    if link is not None and kind(link) != "tun":
        raise Conflict(f"{device} exists and is not a tap")
    if link is not None and is_open(link):
        raise Conflict(f"a process has {device} open: left alone")


def remove_tap(ipr: Any, device: str) -> None:
    """Delete a tap that no process has open; gone already is not an error. Raises Conflict as `check_closed`."""
    check_closed(ipr, device)
    link = link_of(ipr, device)
    if link is not None:
        delete(ipr, link)


def delete_free_tap(ipr: Any, device: str, nic: Nic) -> bool:
    """Delete a tap that no bridge or switch has, left by a plug that was interrupted; False where there is none, or
    another NIC's device has that name by now.

    Raises Conflict if a process has it open.
    """
    link = link_of(ipr, device)
    if link is None or kind(link) != "tun":
        return False
    is_used = is_open(link) or bool(link.get("master")) or bool(read_marks(link))
    if is_used and is_anothers(link, nic):
        return False
    if is_open(link):
        raise Conflict(f"{device} is not a port of a switch and a process has it open: left alone")
    delete(ipr, link)
    return True


def is_anothers(link: Any, nic: Nic) -> bool:
    """Is this device another NIC's? A name alone proves nothing: another guest's may have it by now."""
    return not (belongs_to(link, nic.mac) and is_own(nic, nic.mac, read_marks(link)))


def belongs_to(link: Any, mac: str) -> bool:
    """Is this the tap of a guest's NIC with that MAC? By Sterna's marks, else by the MAC libvirt gives a tap."""
    marked = read_marks(link).get("attached-mac")
    return marked.lower() == mac.lower() if marked else str(link.get("address") or "").lower() == tap_mac(mac)
