"""The destination's report that its half is over, which the source waits for: F9 after a move, R7 after a rollback.

It comes as a cast. A destination that lost its `state_dir` has forgotten what it was to do, and will never send it:
so it is asked, too.
"""

from __future__ import annotations

from sterna.domain.calls import MigrationEnding
from sterna.domain.entries.notes import DestinationReport, Waiting
from sterna.domain.errors import SternaError
from sterna.kit.waiting import paused
from sterna.migration.context import Context

ASK_EVERY_S = 60.0
_UNKNOWN = "unknown"


async def wait_report(ctx: Context, row: str, outcome: str) -> bool:
    """Wait until the destination's report of `row` is in the journal; the status shows that.

    False where none will come: the destination is fenced, or it settled the migration as something else than
    `outcome` while this host was declared dead.
    """
    while not ctx.history.has(DestinationReport, row):
        if ctx.peer_fenced:
            ctx.write_off(outcome, f"{ctx.migration.destination} was declared dead before it reported {row}")
            return False
        if ctx.written_off is not None and ctx.written_off.outcome != outcome:
            return False
        why = f"waiting for {ctx.migration.destination} to report {row}"
        ctx.note_once(Waiting(why=why), f"-{DestinationReport.entry}{row}")
        ctx.news.clear()
        if not await _news(ctx):
            await _ask(ctx, row)
    return True


def forgotten(ctx: Context, row: str) -> str:
    """What to say of a destination that does not know the migration any more; '' where it reported."""
    report = ctx.history.find(DestinationReport, row)
    if report is None or not report.forgotten:
        return ""
    there = ctx.migration.destination
    return f"{there} has no record of it any more (`sterna audit {there}` shows what is left there)"


async def _ask(ctx: Context, row: str) -> None:
    try:
        ending = (await ctx.ask(MigrationEnding())).ending
    except SternaError:
        return  # it is away: it reports when it is back, or is asked again
    if ending == row:
        ctx.note_once(DestinationReport(row=row), row, row=row)
    elif ending == _UNKNOWN:
        ctx.note_once(DestinationReport(row=row, forgotten=True), row, row=row)


async def _news(ctx: Context) -> bool:
    """Whether anything was written before it is time to ask."""
    await paused(ctx.clock, ASK_EVERY_S, ctx.news)
    return ctx.news.is_set()
