"""The destination's memory of guests that ran here: a transient guest that ends leaves no other trace.

From P3 until its half is closed, the destination listens for the moment the guest's vCPUs run and journals it.
`observe_guest` answers with what is seen now and what is remembered.
"""

from __future__ import annotations

import asyncio

import structlog

from sterna.domain.errors import SternaError
from sterna.domain.model import GuestState, Observation
from sterna.domain.whereabouts import GONE
from sterna.migration.context import Context

RAN = "guest-ran-here"
LOOK_AGAIN_S = 2.0

log = structlog.get_logger(__name__)


class Arrivals:
    """One look-out per expected guest."""

    def __init__(self) -> None:
        self._lookouts: dict[str, asyncio.Task[None]] = {}

    def watch(self, ctx: Context) -> None:
        """Look out for this migration's guest from now on; again is nothing."""
        if ctx.migration.id not in self._lookouts and RAN not in ctx.history.notes:
            name = f"look out for {ctx.migration.vm_name}"
            self._lookouts[ctx.migration.id] = asyncio.create_task(self._look_out(ctx), name=name)

    def forget(self, ctx: Context) -> None:
        """Its half is closed."""
        lookout = self._lookouts.pop(ctx.migration.id, None)
        if lookout is not None:
            lookout.cancel()

    async def stop(self) -> None:
        """The agent stops; the next life looks first, then listens."""
        lookouts = list(self._lookouts.values())
        self._lookouts.clear()
        for lookout in lookouts:
            lookout.cancel()
        await asyncio.gather(*lookouts, return_exceptions=True)

    def remember(self, ctx: Context, seen: Observation) -> Observation:
        """What is seen now, and whether the guest ever ran here for this migration."""
        mine = seen.epoch == ctx.migration.epoch
        if mine and seen.state is GuestState.RUNNING and not ctx.history.closed:
            ctx.note_once("M4", RAN)
        if RAN in ctx.history.notes and seen.state in GONE:
            return seen.model_copy(update={"ran": True, "reason": "ran here"})
        return seen

    async def _look_out(self, ctx: Context) -> None:
        hypervisor = ctx.host.hypervisor
        while RAN not in ctx.history.notes:
            try:
                async with hypervisor.events(ctx.vm_uuid) as events:
                    self.remember(ctx, await hypervisor.observe(ctx.vm_uuid))
                    async for event in events:
                        if event.kind == "resumed-migrated":
                            ctx.note_once("M4", RAN)
                            return
            except SternaError as error:
                log.info("cannot look out for a guest now", vm=ctx.migration.vm_name, error=error.message)
                await ctx.clock.sleep(LOOK_AGAIN_S)
