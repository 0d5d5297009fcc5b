"""What may be said about a server's volume. Cinder asks before it lets a user delete an attachment (bug 2004555).

To Cinder, 404 means that the attachment is not in use, and another ID that another one is: it deletes it then. So
neither is said unless it is proven; what is not proven is 503, which Cinder takes as a no.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from sterna.domain.model import Value

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
    """The VM has a disk without a serial: it may be any volume."""
    moving: bool
    """A migration holds the VM: two hosts are admitted to its volumes."""
    attachments: tuple[str, ...] | None
    """IDs of the live attachments that Cinder has of this volume for this server; None: Cinder was not asked."""


def live(pairs: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Of (ID, status) of attachments: those that admit a host, or may."""
    return tuple(id for id, status in pairs if status not in _GONE)


def judge(seen: Seen, *, with_id: bool) -> Answer:
    """`with_id`: the answer has to name the attachment (microversion 2.89)."""
    if seen.used is None:
        return Answer(say=Say.UNKNOWN, why="the host of the server does not answer")
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
    if seen.unnamed and seen.attachments is None:
        return Answer(say=Say.UNKNOWN, why="a disk of the server has no serial, and Cinder does not answer")
    if seen.unnamed and seen.attachments:
        return Answer(say=Say.UNKNOWN, why="a disk of the server has no serial: it may be this volume")
    return Answer(say=Say.NOT_ATTACHED)


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
