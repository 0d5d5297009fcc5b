"""The destination's report that its half is over, which the source waits for: F9 after a move, R7 after a rollback.

It comes as a cast. A destination that lost its `state_dir` has forgotten what it was to do, and will never send it:
so it is asked, too.
"""

from __future__ import annotations

from sterna.domain.errors import SternaError
from sterna.kit.waiting import paused
from sterna.migration.context import Context

ASK_EVERY_S = 60.0
FORGOTTEN = "forgotten"
"""In the note of a report: the destination does not know the migration any more."""
_UNKNOWN = "unknown"


async def wait_report(ctx: Context, row: str, outcome: str) -> bool:
    """Until the destination's report of `row` is in the journal; says what it waits for.

    False where none will come: the destination is fenced, or it settled the migration as something else than
    `outcome` while this host was thought dead.
    """
    while _name(row) not in ctx.history.notes:
        if ctx.peer_fenced:
            ctx.write_off(outcome, f"{ctx.migration.destination} was declared dead before it reported {row}")
            return False
        if ctx.written_off is not None and ctx.written_off.outcome != outcome:
            return False
        why = f"waiting for {ctx.migration.destination} to report {row}"
        ctx.note_once("", f"waiting-{_name(row)}", {"why": why})
        ctx.news.clear()
        if not await _news(ctx):
            await _ask(ctx, row)
    return True


def forgotten(ctx: Context, row: str) -> str:
    """What to say of a destination that does not know the migration any more; '' where it reported."""
    if FORGOTTEN not in ctx.history.notes.get(_name(row), {}):
        return ""
    there = ctx.migration.destination
    return f"{there} has no record of it any more (`sterna audit {there}` shows what is left there)"


def _name(row: str) -> str:
    return f"dhost-reports-{row}"


async def _ask(ctx: Context, row: str) -> None:
    try:
        ending = (await ctx.peer.call("migration_ending", {})).get("ending")
    except SternaError:
        return  # it is away: it reports when it is back, or is asked again
    if ending in (row, _UNKNOWN):
        ctx.note_once(row, _name(row), {"row": row} | ({FORGOTTEN: True} if ending == _UNKNOWN else {}))


async def _news(ctx: Context) -> bool:
    """Whether anything was written before it is time to ask."""
    await paused(ctx.clock, ASK_EVERY_S, ctx.news)
    return ctx.news.is_set()
