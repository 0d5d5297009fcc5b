"""Whether the guest has left, as this host's own hypervisor says: asked before what cannot be undone.

The decision is in `domain/departure.py`. Called wherever the destination's word would make this host stop, end or
forget the guest: `find_guest.py`, `rollback.py` and `handover.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from sterna.domain.departure import Departure, checked, departure
from sterna.domain.entries.notes import CopyStarted, StayedHere
from sterna.domain.errors import SternaError
from sterna.domain.model import GuestState
from sterna.domain.whereabouts import GONE, MIGRATED, PASSED, Finding, Verdict
from sterna.migration.context import Context

LAST_EVENTS_S = 1.0
"""libvirt's events may come a little later than the answer to the call."""
_OF_A_SWITCH_OVER = ("suspended", "resumed", "postcopy", "migration-", "stopped-migrated")
_OF_AN_END = ("stopped", "crashed", "shutdown")


async def borne_out(ctx: Context, finding: Finding) -> Finding:
    """The finding; another one where it says that the guest is the destination's, and this host knows better.

    A doubt is looked into as well: what this host finds, it journals, and the next look knows it.
    """
    if finding.verdict not in PASSED and finding.verdict is not Verdict.DOUBT:
        return finding
    return checked(finding, await has_left(ctx))


async def has_left(ctx: Context) -> Departure:
    """Ask this host's hypervisor, after the destination has answered: what it sent by then counts."""
    here = await ctx.observe_here()
    alive = here.state is not GuestState.UNKNOWN and here.state not in GONE
    anew = await _sent_anew(ctx) if alive else None
    seen = departure(here, stayed=ctx.stayed, handed_over=ctx.handed_over, sent_anew=anew)
    if seen is Departure.NEVER_LEFT and alive and not here.job_active:
        note_stayed(ctx)
    return seen


def note_stayed(ctx: Context) -> None:
    """The copy is over, and the guest is this host's: no copy is begun twice, so it stays so."""
    if ctx.history.has(CopyStarted):
        ctx.note_once(StayedHere())


@dataclass
class Heard:
    """What this host's hypervisor has told of one copy by its events."""

    whole: bool
    """Without a gap, since before the copy was begun."""
    may_have_left: bool = False
    """Something of a switch-over was among it, or was seen otherwise."""
    ended: bool = False
    """The end of the guest's QEMU was among it."""

    def take(self, kind: str) -> None:
        """One event."""
        if kind.startswith(_OF_A_SWITCH_OVER):
            self.may_have_left = True
        elif kind in _OF_AN_END:
            self.ended = True

    @property
    def ended_here(self) -> bool:
        """Did its QEMU end before any switch-over? The end itself must have been heard: events that did not come
        prove nothing."""
        return self.whole and self.ended and not self.may_have_left


async def hear_out(ctx: Context, heard: Heard) -> None:
    """A copy has failed. If the guest's QEMU is gone, nobody can ask it later: whether it ended before any
    switch-over is known now or never."""
    if ctx.handed_over or heard.may_have_left or not heard.whole:
        return  # nothing can be learnt; and a libvirtd that hangs would hold up what comes now
    here = await ctx.observe_here()
    if here.state not in GONE or here.reason == MIGRATED:
        return
    await ctx.clock.sleep(LAST_EVENTS_S)
    was_running = ctx.vm_before().state is GuestState.RUNNING  # one that is paused is not paused again
    if heard.ended_here and was_running:
        note_stayed(ctx)


async def _sent_anew(ctx: Context) -> bool | None:
    """Has its QEMU sent a stream whole since the copy was begun? None: it does not answer, or has ended."""
    begun = ctx.history.find(CopyStarted)
    if begun is None:
        return False
    try:
        sent = await ctx.host.hypervisor.sent(ctx.vm_uuid)
    except SternaError:
        return None
    return sent not in ("", begun.sent_before)
