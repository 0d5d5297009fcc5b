"""Where two definitions of one VM differ: the one that its source has, and the one that the destination is given.

Each place has a path as in libvirt's XML: `devices/interface[52:54:00:00:00:01]/source/@bridge`. What is in
brackets says which of several elements it is. The source records places with both values (`CopyStarted`). The
reason is found by the path when somebody asks, so that a later version may say it better.
"""

from __future__ import annotations

import re

from sterna.domain.model import Value, omitted

MOST = 200
"""Places that are kept of one definition."""
LONGEST = 300
"""Characters of a path or a value."""
_CUT = "..."
_WHICH = re.compile(r"\[[^\]]*\]")


class DefinitionChange(Value):
    """One place. A value is '' where that definition does not have it."""

    where: str
    before: str = ""
    after: str = ""


class DefinitionChanges(Value):
    """All places in which the two definitions differ, without secrets."""

    live: tuple[DefinitionChange, ...] = ()
    """Of the running guest."""
    persistent: tuple[DefinitionChange, ...] | None = None
    """Of its next start; None for a transient VM."""
    left_out: int = omitted(0)
    """Places beyond `MOST`."""


def bounded(live: list[DefinitionChange], persistent: list[DefinitionChange] | None) -> DefinitionChanges:
    """The same within what a journal keeps."""
    kept = None if persistent is None else tuple(map(_shortened, persistent[:MOST]))
    left_out = max(0, len(live) - MOST) + max(0, len(persistent or ()) - MOST)
    return DefinitionChanges(live=tuple(map(_shortened, live[:MOST])), persistent=kept, left_out=left_out)


def _shortened(change: DefinitionChange) -> DefinitionChange:
    return DefinitionChange(where=_cut(change.where), before=_cut(change.before), after=_cut(change.after))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - len(_CUT)] + _CUT


def element(name: str, which: str) -> str:
    """A part of a path. `which`: what tells it from others of its name; '' where there is one only."""
    plain = re.sub(r"[\[\]/]", "_", which)
    return f"{name}[{plain}]" if plain else name


def place_of(where: str) -> str:
    """The path without what tells elements of one name apart."""
    return _WHICH.sub("", where)


_LISTENS = "the destination's address instead of the source's"
_REASONS = {
    "metadata": "what holds the epoch, where the definition had no metadata",
    "metadata/sterna": "the epoch, which tells the newest copy of a guest from older ones",
    "metadata/sterna/nic": "what the next migration must know of the NIC",
    "devices/interface": "the form in which the destination plugs the NIC",
    "devices/interface/source": "where the destination plugs the NIC",
    "devices/interface/source/@bridge": "the destination's bridge",
    "devices/interface/source/@dev": "the destination's device, on which the NIC's macvtap is",
    "devices/interface/source/address": "a virtual function of the destination",
    "devices/interface/target": "the tap's name: Sterna makes it ahead of the guest, so that it is wired in time",
    "devices/interface/virtualport": "the NIC's port at the network service",
    "devices/interface/vlan": "the VLAN of the NIC's port on the destination",
    "devices/disk": "how the destination reaches the disk",
    "devices/disk/driver/@discard": "a copied raw image keeps its holes, until the next start",
    "devices/disk/source/@file": "the disk's path on the destination",
    "devices/disk/backingStore": "the chain of the old path: libvirt reads it again from the image",
    "devices/disk/source/host": "the portal or the monitors by which the destination reaches the volume",
    "devices/disk/source/initiator": "the host's name at its iSCSI target, where the definition named none",
    "devices/disk/source/initiator/iqn/@name": "the host's name at its iSCSI target",
    "devices/disk/auth": "the destination's own login at the iSCSI target",
    "devices/disk/source/auth": "the destination's own login at the iSCSI target",
    "devices/graphics/@listen": _LISTENS,
    "devices/graphics/listen": _LISTENS,
    "commandline": "a second monitor of QEMU, by which a broken post-copy is recovered, until the next start",
}
"""By place, or by the nearest place that it is in."""
_LEFT_OUT = {
    "devices/disk/source": "a medium that is optional, and that the destination does not have: its drive is empty",
}
"""Of a place that one of the two does not have at all."""
UNKNOWN = "the reason is not known to this version"


def reason_of(where: str) -> str:
    """Why a place may differ; `UNKNOWN` for one in which Sterna changes nothing."""
    place = place_of(where)
    if place in _LEFT_OUT:
        return _LEFT_OUT[place]
    if place.startswith("devices/") and place.endswith("source/@host"):
        return _LISTENS
    while place:
        if place in _REASONS:
            return _REASONS[place]
        place = place.rpartition("/")[0]
    return UNKNOWN
