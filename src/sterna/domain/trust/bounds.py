"""How much one sender may have under way, and how often it is listened to. Pure.

A bound is for one sender: one that uses it up waits, and does not delay the messages of others.
"""

from __future__ import annotations

from typing import NamedTuple

from sterna.domain.trust.identities import CONTROLLER_TOKEN

MOST_CALLS = 1_000
"""Requests of all senders together, but for the FEW of each. All controllers are one sender."""
MOST_OF_A_HOST = 300
"""Requests of one host. A host asks for each of its migrations one thing at a time."""
FEW = 10
"""So many has everybody a place for, whatever others do."""
MOST_BYTES = 32 * 2**20
"""Of one sender's requests that are worked on: 64 of the largest."""
MOST_WAITING = 1_000
"""Casts from one sender that are journaled and not handled, or for one receiver that are not delivered."""
MOST_WAITING_BYTES = 32 * 2**20

MOST_NEWS, MOST_NEWS_BYTES = 5_000, 128 * 2**20
"""Of their VMs, from all hosts, that wait for a controller's database."""
MOST_NEWS_BYTES_OF_A_HOST = 4 * 2**20
"""Two changes a second of thirty VMs, for the half minute that a database may hang."""

MOST_UNPROVEN = 64
"""Requests at a time whose senders have not proven yet who they are: each takes a thread, or a turn of the CA."""
SHARE_OF_AN_ORIGIN = 8
"""So many of them has each origin a place for while the others have not taken all."""
CHECKS_AT_ONCE = 16
"""Of one host's VMs, before a migration. Each looks for all that a VM's definition names, in several threads."""
CHECK_TURN_S = 30.0
"""Who waits longer for its turn is told so; a check waits for 60 s."""


class Pace(NamedTuple):
    """How many come through at once, and then in each second."""

    at_once: float
    per_s: float


CASTS = Pace(200, 20)
"""A migration has two. Each is written to the disk before it is acknowledged."""
PROBES = Pace(16, 1)
"""Of the memory stream's way, before a migration. Each takes one of libvirt's 64 ports for up to 10 s."""
HINTS = {
    "host": Pace(10, 3),  # a beacon comes each second
    "journal": Pace(100, 20),  # four a second, and one for each change of a status
    "progress": Pace(500, 200),
    "leaving": Pace(500, 100),
    "external": Pace(5_000, 1_000),  # all ports of a cloud
}
"""By the first word of the topic."""
OTHER_HINTS = Pace(100, 20)
LONGEST_STOP_S = 300.0
"""A process that was suspended for so long gets all at once what was sent to it, and reports no sender for it. By
default a bus closes a connection that has answered no ping for 4 to 6 minutes."""

REFUSALS = Pace(10, 1 / 600)
"""Lines of the audit log about requests that one user is not allowed. More of them say nothing new."""
REFUSALS_OF_ALL = Pace(100, 1 / 60)
"""The same of all users together: a cloud may have many."""


class Load(NamedTuple):
    """What is under way."""

    number: int = 0
    size: int = 0
    """In bytes."""

    def plus(self, size: int) -> Load:
        """With one more."""
        return Load(self.number + 1, self.size + size)

    def minus(self, size: int) -> Load:
        """With one less."""
        return Load(self.number - 1, self.size - size)


def no_place(sender: str, own: Load, everybody: Load) -> str:
    """Why one more request of this sender is not taken now; '' where it is."""
    most = MOST_CALLS if sender == CONTROLLER_TOKEN else MOST_OF_A_HOST
    if own.number >= most:
        return f"works on {own.number} requests of {sender} already"
    if own.number >= FEW and everybody.number >= MOST_CALLS:
        return f"works on {everybody.number} requests already"
    if own.size >= MOST_BYTES:
        return f"works on {own.size} bytes of {sender}'s requests already"
    return ""


def no_place_unproven(own: int, everybody: int) -> bool:
    """Is one more request refused, of an origin that has `own` under way? One origin alone gets half of the places:
    all users may come through one proxy."""
    return everybody >= MOST_UNPROVEN or (own >= SHARE_OF_AN_ORIGIN and everybody >= MOST_UNPROVEN // 2)


def no_more_waiting(who: str, own: Load) -> str:
    """Why one more cast from (or for) this host is not journaled now; '' where it is."""
    if own.number >= MOST_WAITING:
        return f"{own.number} messages of {who} wait already"
    if own.size >= MOST_WAITING_BYTES:
        return f"{own.size} bytes of {who}'s messages wait already"
    return ""


def no_place_for_news(own: Load, everybody: Load) -> bool:
    """Is what a host tells of its VMs dropped now, to be asked for later? One of which nothing waits may tell a
    whole list, of whatever size."""
    if everybody.number >= MOST_NEWS or everybody.size >= MOST_NEWS_BYTES:
        return True
    return own.size >= MOST_NEWS_BYTES_OF_A_HOST


def pace_of(topic: str) -> Pace:
    """How often one sender is listened to about this."""
    return HINTS.get(topic.partition(".")[0], OTHER_HINTS)


def flood_of(pace: Pace) -> Pace:
    """What only a sender exceeds that does not keep to this pace: never one whose receiver was suspended."""
    return Pace(pace.at_once + pace.per_s * LONGEST_STOP_S, pace.per_s)


class Budget(NamedTuple):
    """What one sender has left of a pace."""

    left: float
    at_ms: float

    @classmethod
    def full(cls, pace: Pace, now_ms: float) -> Budget:
        """Of who was not heard before."""
        return cls(pace.at_once, now_ms)

    def spent(self, pace: Pace, now_ms: float) -> Budget | None:
        """After one more; None where that is one too many."""
        left = min(pace.at_once, self.left + (now_ms - self.at_ms) / 1000 * pace.per_s)
        return Budget(left - 1, now_ms) if left >= 1 else None
