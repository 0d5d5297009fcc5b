"""Where the guest is: both hypervisors are asked, `domain/whereabouts.py` decides, what that demands is done."""

from __future__ import annotations

from sterna.domain.calls import EndLost
from sterna.domain.entries.notes import CopyStarted, HeldOldCopy, RunsThere
from sterna.domain.model import GuestState, Observation
from sterna.domain.status import Status
from sterna.domain.whereabouts import GONE, POSTCOPY, SPENT, Finding, Verdict, locate, spent
from sterna.migration.attempts import Attempts
from sterna.migration.context import Context
from sterna.migration.source import dead_peer, left


async def find_guest(ctx: Context) -> Finding:
    """Ask both hypervisors where the guest is, source first; that it has left, the source must bear out."""
    here = await ctx.observe_here()
    if spent(here, handed_over=ctx.handed_over):  # two copies run: nothing is waited for
        await ctx.host.hypervisor.end_spent(ctx.vm_uuid, ctx.migration.epoch)
        return Finding(Verdict.WAIT, SPENT)
    there = await ctx.observe_there()
    started, epoch = ctx.history.has(CopyStarted), ctx.migration.epoch
    finding = dead_peer.judge(ctx, here, there) or locate(
        here, there, epoch=epoch, started=started, handed_over=ctx.handed_over, switching=ctx.switching
    )
    finding = await left.borne_out(ctx, finding)
    if finding.verdict is Verdict.SPENT:
        await ctx.host.hypervisor.end_spent(ctx.vm_uuid, epoch)
        ctx.note_once(RunsThere())  # afterwards: a full disk must not keep it
        return Finding(Verdict.WAIT, finding.why)
    if finding.verdict in (Verdict.IN_POSTCOPY, Verdict.BROKEN, Verdict.HALF_GONE, Verdict.LOST):
        ctx.note_once(RunsThere())
    sent_away = here.state is GuestState.PAUSED and here.reason in POSTCOPY
    arrived = finding.verdict in (Verdict.ARRIVED, Verdict.ENDED_AT_DESTINATION)
    if (arrived and here.state not in GONE) or (finding.verdict is Verdict.ENDED_AT_SOURCE and sent_away):
        # It is proven to have run on the destination, or to be gone from there after its CPUs were sent: what is
        # left here is a paused shell (invariant 1 of the protocol).
        await ctx.host.hypervisor.end_leftover(ctx.vm_uuid, epoch)
        return Finding(Verdict.WAIT, "ending the source's paused copy")
    if finding.verdict is Verdict.STALE:
        ctx.note_once(HeldOldCopy(why=finding.why))  # first: a restarted agent must know whose pause it is
        await ctx.host.hypervisor.hold(ctx.vm_uuid, epoch)
        return Finding(Verdict.WAIT, finding.why)
    if finding.verdict is Verdict.LOST:
        await ctx.ask(EndLost(vm=ctx.vm_uuid))
        return Finding(Verdict.WAIT, finding.why)
    return with_reasons(finding, here, there)


def with_reasons(finding: Finding, here: Observation, there: Observation) -> Finding:
    """With what is said instead of an answer, where one is waited for. It may last until an operator acts."""
    missing = [o.reason for o in (here, there) if o.state is GuestState.UNKNOWN and o.reason]
    if finding.verdict is not Verdict.WAIT or not missing or here.job_active:
        return finding
    return Finding(Verdict.WAIT, f"{finding.why}: {'; '.join(missing)}")


async def look(ctx: Context, attempts: Attempts) -> Finding:
    """Where the guest is; what an operator must know of it is in the status. A look that fails decides nothing."""
    with attempts.attempt():
        finding = await find_guest(ctx)
        in_doubt = ctx.history.status == Status.ERROR
        if finding.verdict is Verdict.DOUBT:
            ctx.set_status(Status.ERROR, finding.why)
        elif in_doubt and finding.verdict is not Verdict.WAIT:
            ctx.set_status(Status.MIGRATING, finding.why)
        return finding
    return Finding(Verdict.WAIT, attempts.reason)
