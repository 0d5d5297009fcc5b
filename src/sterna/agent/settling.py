"""A half that ends alone: one of the two hosts was declared dead and fenced (ADR 7).

Called by `fencing.py` and, where this host is the one that was declared dead, by `destination.py`.
"""

from __future__ import annotations

from sterna.agent.incoming_halves import IncomingHalves, backwards
from sterna.domain.entries.base import StatusSet
from sterna.domain.entries.destination import VifsPlugged
from sterna.domain.entries.destination_notes import Abandoned
from sterna.domain.entries.notes import WroteOffPeer
from sterna.domain.errors import Conflict
from sterna.domain.fencing import Decision, Survivor, without_source
from sterna.domain.journal import Kind
from sterna.domain.model import Data, GuestState
from sterna.domain.status import Status
from sterna.domain.whereabouts import GONE
from sterna.migration.context import Context
from sterna.migration.destination.taps import unplug_taps
from sterna.migration.flow import DESTINATION_POST, REMOVE_VOLUME_CONNECTION
from sterna.rpc.envelope import Request


class Settling:
    """Ends the destination's halves of migrations that have lost the other one."""

    def __init__(self, halves: IncomingHalves) -> None:
        self._halves = halves

    async def settle_alone(self, ctx: Context) -> Decision:
        """The source is dead and fenced: end this half by what is true here (ADR 7), if that can be decided.

        The decision is journaled before it is acted on; a restart goes on with it.
        """
        if not ctx.history.has(VifsPlugged):
            ctx.abort.set()  # a preparation that is still under way stops at its next step
        async with self._halves.lock(ctx.migration.id):
            decision = await self.decide_alone(ctx)
            if ctx.history.closed or decision.act in (Survivor.HOLD, Survivor.WAIT):
                return decision
            taken = decision.act is Survivor.TAKE_OVER
            ctx.write_off("completed" if taken else "failed", decision.why)
            if taken:
                await self._halves.runner.run(DESTINATION_POST.after_pivot, backwards(ctx), forever=True)
            else:
                await self._halves.undo(self._halves.turn_back(ctx))
            self._report_end(ctx, Status.COMPLETED if taken else Status.FAILED, decision.why)
            self._halves.finish(ctx, "F9" if taken else "R7")
            return decision

    async def refuse_migration(self, request: Request) -> Data:
        """`refuse_migration {migration}`: its source was declared dead before P3 came here. Closed unopened: a late
        P3 is refused, and the source learns why."""
        migration = self._halves.migration(request)
        try:
            ctx = self._halves.context(migration)
        except Conflict:
            return {"refused": True}  # its epoch is stale: P3 would be refused as well
        async with self._halves.lock(migration.id):
            if ctx.history.plans or ctx.history.closed:
                return {"refused": ctx.history.closed}  # P3 has come after all
            ctx.write_off("failed", "nothing had been prepared")
            self._report_end(self._halves.turn_back(ctx), Status.FAILED, "nothing had been prepared")
            self._halves.finish(ctx, "R7")
        return {"refused": True}

    async def decide_alone(self, ctx: Context) -> Decision:
        """What `settle_alone` would do now."""
        settled = ctx.history.find(WroteOffPeer)
        if settled is not None:
            taken = settled.outcome == "completed"
            return Decision(Survivor.TAKE_OVER if taken else Survivor.CLEAN_UP, settled.why)
        here = await ctx.observe_here()
        return without_source(here, epoch=ctx.migration.epoch, ran=self._halves.arrivals.ran(ctx))

    async def abandoned(self, ctx: Context) -> bool:
        """Was this host declared dead with the guest on it? Then its half ends without being carried out.

        Asked only where the guest left a trace here and no longer runs here: what is left may be the last copy.
        Nothing is started, and its definition and disks are kept.
        """
        here = await ctx.host.hypervisor.observe(ctx.vm_uuid)
        ours = here.state is GuestState.SHUTOFF and here.epoch == ctx.migration.epoch
        if here.state not in GONE or not (ours or self._halves.arrivals.ran(ctx)):
            return False
        fate = await ctx.ask_fate()
        if fate is None:
            return False
        if here.state is GuestState.SHUTOFF:
            await ctx.host.hypervisor.set_autostart(ctx.vm_uuid, False)
        await unplug_taps(ctx)
        if fate.outcome == "failed":
            await self._halves.runner.run(REMOVE_VOLUME_CONNECTION, backwards(ctx), forever=True)
        ctx.note(Abandoned(outcome=fate.outcome, why=fate.why))
        self._halves.close(ctx, "")
        return True

    def _report_end(self, ctx: Context, status: Status, why: str) -> None:
        """The source's journal cannot say how it ended: this one does."""
        host = ctx.migration.source
        lost = "its own half is written off" if status is Status.COMPLETED else f"the guest was on {host} then"
        reason = f"{host} was declared dead; {why}; {lost}"
        ctx.write(Kind.STATUS, name=status, data=StatusSet(status=status, reason=reason).to_data())
