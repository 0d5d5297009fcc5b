"""What may be said about a server's volume. Cinder asks before it lets a user delete an attachment (bug 2004555).

To Cinder, 404 means that the attachment is not in use, and another ID that another one is: it deletes it then. So
neither is said unless it is proven; what is not proven is 503, which Cinder takes as a no.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from sterna.domain.model import Disk, DiskKind, Value, Vm
from sterna.domain.texts import is_uuid

_GONE = frozenset({"detached", "deleted"})
"""Not `error_detaching`: the connection may still be there."""


class Say(StrEnum):
    """The kind of answer."""

    ATTACHED = "attached"
    NOT_ATTACHED = "not-attached"
    UNKNOWN = "unknown"


class Answer(Value):
    """One, with its reason."""

    say: Say
    attachment_id: str | None = None
    why: str = ""


class Seen(Value):
    """What is known of one volume and one server at this moment."""

    used: bool | None
    """A definition of the VM has a disk of this serial, as its host says now; None: that host did not answer."""
    unnamed: bool = False
    """The VM has something that may be any volume (`may_be_any`), or a volume that Cinder does not confirm."""
    moving: bool
    """A migration holds the VM: two hosts are admitted to its volumes."""
    twice: bool = False
    """The VM runs on several hosts: one of them was asked."""
    attachments: tuple[str, ...] | None
    """IDs of the live attachments that Cinder has of this volume for this server; None: Cinder was not asked."""


def live(pairs: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Of (ID, status) of attachments: those that admit a host, or may."""
    return tuple(id for id, status in pairs if status not in _GONE)


def volumes_of(vm: Vm) -> list[Disk]:
    """Its disks that are volumes, by their serials, in small letters; those that only the next start would use
    included."""
    disks = [disk for disk in (*vm.disks, *vm.cold) if disk.volume_id and is_uuid(disk.volume_id)]
    return [disk.model_copy(update={"volume_id": (disk.volume_id or "").lower()}) for disk in disks]


def may_be_any(vm: Vm) -> bool:
    """Has it something that may be any volume? A device of the host may be a LUN that somebody has connected."""
    devices = any(device.startswith("hostdev") for device in vm.immovable)
    return devices or any(_may_be_any(disk) for disk in (*vm.disks, *vm.cold))


def _may_be_any(disk: Disk) -> bool:
    """A disk without a UUID as its serial, or one that uses a second place, which has no serial. Files of media
    drives are none."""
    below = (*disk.chain, disk.data_file or "")
    if disk.mirrored or any("://" in place or place.startswith("/dev/") for place in below):
        return True
    medium = disk.kind is DiskKind.EMPTY or (disk.kind is DiskKind.FILE and disk.device in ("cdrom", "floppy"))
    return not medium and not (disk.volume_id and is_uuid(disk.volume_id))


def judge(seen: Seen, *, with_id: bool) -> Answer:
    """`with_id`: the answer has to name the attachment (microversion 2.89)."""
    if seen.used is None:
        return Answer(say=Say.UNKNOWN, why="the host of the server does not answer")
    if seen.twice:
        return Answer(say=Say.UNKNOWN, why="the server runs on several hosts, each with volumes of its own")
    if seen.moving:
        if not with_id and seen.used:
            return Answer(say=Say.ATTACHED)
        return Answer(say=Say.UNKNOWN, why="the server is being migrated: two hosts are admitted to its volumes")
    if not seen.used:
        return _not_used(seen)
    if not with_id:
        return Answer(say=Say.ATTACHED)
    if seen.attachments is None:
        return Answer(say=Say.UNKNOWN, why="the volume is in use, and Cinder does not say by which attachment")
    if len(seen.attachments) != 1:
        why = f"the volume is in use, and Cinder has {len(seen.attachments)} attachments of it for this server"
        return Answer(say=Say.UNKNOWN, why=why)
    return Answer(say=Say.ATTACHED, attachment_id=seen.attachments[0])


def _not_used(seen: Seen) -> Answer:
    """No disk has the volume's ID as its serial."""
    if not seen.unnamed or seen.attachments == ():
        return Answer(say=Say.NOT_ATTACHED)
    what = "a disk or a device of the server has no serial, or one that Cinder does not confirm"
    if seen.attachments is None:
        return Answer(say=Say.UNKNOWN, why=f"{what}, and Cinder does not answer")
    return Answer(say=Say.UNKNOWN, why=f"{what}: it may be this volume")


def judge_unknown_server(attachments: Sequence[str] | None, *, complete: bool) -> Answer:
    """Of a server that no host which answers has. It may be on a host that is silent, or another Nova's."""
    if attachments is None:
        return Answer(say=Say.UNKNOWN, why="Sterna has no such server, and Cinder does not say whose it is")
    if attachments:
        return Answer(
            say=Say.UNKNOWN, why="Cinder has an attachment of the volume for this server: it is another's"
        )
    if not complete:
        return Answer(say=Say.UNKNOWN, why="not every host answers: the server may be on one of the others")
    return Answer(say=Say.NOT_ATTACHED)
