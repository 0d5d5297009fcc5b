"""Has the guest left its source? What the source's own hypervisor says of it, whatever the destination claims.

A destination that lies, or is mistaken, must not make the source end a guest that only the source has. It can run
the guest only after the source's QEMU has sent the guest's state whole, or its vCPUs in post-copy.
Pure. Called by `migration/source/left.py`, before a verdict that the guest is the destination's is acted on.
"""

from __future__ import annotations

from enum import StrEnum

from sterna.domain.model import GuestState, Observation
from sterna.domain.whereabouts import GONE, MIGRATED, PASSED, POSTCOPY, Finding, Verdict

IN_POSTCOPY = "in-postcopy"
"""In place of the mark of a stream: the vCPUs were sent, and the memory follows."""


class Departure(StrEnum):
    """What the source itself knows."""

    LEFT = "left"
    """Its state was sent whole, or its vCPUs in post-copy: the destination may run it."""
    NEVER_LEFT = "never-left"
    """It was not: whatever the destination says, the guest is the source's."""
    UNPROVEN = "unproven"
    """Its QEMU is gone here, and nobody saw how it ended: the destination's word decides."""
    NOT_KNOWN = "not-known"
    """The source's hypervisor does not answer now: ask again."""


def departure(source: Observation, *, stayed: bool, handed_over: bool, sent_anew: bool | None) -> Departure:
    """`source`: observed after the destination's answer. `stayed`, `handed_over`: the source's journal knows it
    already. `sent_anew`: its QEMU says that it has sent a stream whole since the copy was begun; None: it did not
    answer.
    """
    if stayed:
        return Departure.NEVER_LEFT
    if handed_over:
        return Departure.LEFT
    if source.state is GuestState.UNKNOWN:
        return Departure.NOT_KNOWN
    if source.state in GONE:
        return Departure.LEFT if source.reason == MIGRATED else Departure.UNPROVEN
    if source.reason in POSTCOPY or sent_anew:
        return Departure.LEFT
    return Departure.NOT_KNOWN if sent_anew is None else Departure.NEVER_LEFT


def checked(finding: Finding, seen: Departure) -> Finding:
    """A finding as far as the source's own hypervisor bears it out."""
    if finding.verdict not in PASSED or seen in (Departure.LEFT, Departure.UNPROVEN):
        return finding
    if seen is Departure.NOT_KNOWN:
        return Finding(Verdict.WAIT, f"{finding.why}; the source's hypervisor does not say whether it has left")
    why = "the destination claims to have the guest, and the source's hypervisor says that it never left"
    return Finding(Verdict.DOUBT, f"{why}: look at the destination, and remove it if it is not to be trusted")
