"""Runs a flow from wherever its journal ends: the only place that writes intents and outcomes.

Called by `agent/source.py` and `agent/destination.py`. Knows no row of the protocol, no VM, no host: only steps, a
journal, a clock, and what the three kinds of error ask for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

import structlog

from sterna.domain.entries.base import DirectionChanged, Failed, Failure, Outcome, Plan
from sterna.domain.errors import Cancelled, Permanent, SternaError, Temporary
from sterna.domain.journal import Kind
from sterna.domain.model import Data
from sterna.domain.step import Flow, History, PivotPassed, Step
from sterna.kit.aborts import abortable_by
from sterna.kit.tasks import own_cancellation_only
from sterna.kit.waiting import Backoff, paused
from sterna.ports.clock import Clock

log = structlog.get_logger(__name__)

FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 10.0
LONGEST_ASKED_S = 60.0
"""The longest delay that is granted to an error where a step has no patience of its own to limit it."""
ONWARD_DELAY_S = 1.0
"""Before a compensation that goes forward again: whatever turned it back may do so again."""

FaultHook = Callable[[str, str, str], Awaitable[None]]
"""Test hook: called with a step's name, its row, and `before` or `after`; may raise, hang or kill."""


async def no_fault(name: str, row: str, moment: str) -> None:
    """The hook in production: nothing."""


class SagaContext(Protocol):
    """What the runner needs to know of a context; steps know more."""

    history: History
    abort: asyncio.Event

    def write(
        self, kind: Kind, *, row: str = "", name: str = "", data: Data | None = None, lazily: bool = False
    ) -> None:
        """Append to the journal and to `history`; durably before returning, or `lazily`, with the next write."""

    def flush(self) -> None:
        """What was written lazily is durable now. Raises Temporary."""


C = TypeVar("C", bound=SagaContext)
P = TypeVar("P", bound=Plan)
O = TypeVar("O", bound=Outcome)  # noqa: E741 - an outcome


class Runner:
    """Drives flows. One instance serves all migrations of an agent."""

    def __init__(self, clock: Clock, fault_hook: FaultHook = no_fault) -> None:
        self._clock = clock
        self._fault_hook = fault_hook

    async def drive(self, flow: Flow[C], ctx: C) -> None:
        """Take the flow to its end: all steps done, or all compensated. Returns only then.

        Before the pivot an error starts the compensation; after it, and in compensation, steps are retried for as
        long as it takes. A journal that cannot be written (a full disk) is waited for as well. Cancelling the task
        (an agent that stops) leaves the journal as it is.
        """
        while flow.remaining(ctx.history):
            if ctx.history.turned_back is None:
                try:
                    await self.run(flow.until_pivot, ctx)
                except SternaError as error:
                    await self._change_direction(ctx, DirectionChanged(error=Failure.of(error)))
            try:
                await self.run(flow.remaining(ctx.history), ctx, forever=True)
            except PivotPassed as found:
                await self._change_direction(ctx, DirectionChanged(forward=str(found)))
                await self._clock.sleep(ONWARD_DELAY_S)

    async def _change_direction(self, ctx: C, why: DirectionChanged) -> None:
        """Journal which way it goes from here on, however long that takes: nothing is done before."""
        backoff = Backoff(FIRST_DELAY_S, LONGEST_DELAY_S)
        while True:
            try:
                ctx.write(Kind.COMPENSATING, data=why.to_data())
                return
            except SternaError as error:
                retry_s = backoff.seconds
                log.warning("the journal cannot be written; tried again", error=error.message, retry_s=retry_s)
            await self._clock.sleep(backoff.seconds)
            backoff.grow()

    async def run(self, steps: Sequence[type[Step[C, Any, Any]]], ctx: C, *, forever: bool = False) -> None:
        """Do these steps in order, those already done left out. Raises the error that ends it, unless `forever`.

        The outcome of a step and the intent of the next are committed in one transaction before that one acts,
        because fsync dominates the cost of a step. A read-only step does not force a commit.
        """
        for step in steps:
            if step.name in ctx.history.results:
                continue
            begun = step.name in ctx.history.plans
            if ctx.abort.is_set() and not forever and not (begun and step.settles_abort):
                raise Cancelled("aborted on request")
            await self._take(step(), ctx, forever)
        with contextlib.suppress(SternaError):  # a full disk: it goes with the next write, or the step is repeated
            ctx.flush()

    async def _take(self, step: Step[C, Any, Any], ctx: C, forever: bool) -> None:
        failing_ms, backoff, last_error = None, Backoff(FIRST_DELAY_S, LONGEST_DELAY_S), ""
        while True:
            began_ms = self._clock.monotonic_ms()
            try:
                with own_cancellation_only(), abortable_by(None if forever or step.settles_abort else ctx.abort):
                    outcome = await self._attempt(step, ctx)
                ctx.write(Kind.DONE, row=step.row, name=step.name, data=outcome.to_data(), lazily=True)
                return
            except PivotPassed:
                raise
            except Exception as raised:
                error = _as_sterna(step, raised)
            now_ms = self._clock.monotonic_ms()
            if now_ms - began_ms > step.patience_s * 1000 and step.lasts(ctx):
                failing_ms, last_error = None, ""
                backoff.reset()
            failing_ms = now_ms if failing_ms is None else failing_ms  # what went well before took its time
            waited_s = (now_ms - failing_ms) / 1000
            final = not forever and (isinstance(error, Permanent) or waited_s >= step.patience_s)
            if final or error.message != last_error:  # logged once, not every ten seconds for a week
                fact = Failed(error=Failure.of(error), final=final).to_data()
                with contextlib.suppress(SternaError):  # a full disk: written the next time
                    ctx.write(Kind.FAILED, row=step.row, name=step.name, data=fact)
                    last_error = error.message
            if final:
                raise error
            left_s = LONGEST_ASKED_S if forever else step.patience_s - waited_s
            await self._pause(pause_after(error, backoff.seconds, left_s), ctx, forever or step.settles_abort)
            backoff.grow()

    async def _attempt(self, step: Step[C, P, O], ctx: C) -> O:
        plan = await self._plan(step, ctx)
        if not step.reads_only:
            ctx.flush()  # where the intent is an earlier life's: the outcome of the step before comes first, too
        await self._fault_hook(step.name, step.row, "before")
        outcome = await step.do(ctx, plan)
        await self._fault_hook(step.name, step.row, "after")
        return outcome

    async def _plan(self, step: Step[C, P, O], ctx: C) -> P:
        """The first intent: the journal's, or one that is written now."""
        written = ctx.history.plans.get(step.name)
        if written is not None:
            return step.read_intent(written)
        plan = await step.plan(ctx)
        ctx.write(Kind.INTENT, row=step.row, name=step.name, data=plan.to_data(), lazily=step.reads_only)
        return plan

    async def _pause(self, seconds: float, ctx: C, deaf: bool) -> None:
        """Wait before the next try; an abort ends the wait early where it still counts."""
        if deaf:
            await self._clock.sleep(seconds)
            return
        await paused(self._clock, seconds, ctx.abort)
        if ctx.abort.is_set():
            raise Cancelled("aborted on request")


def pause_after(error: SternaError, backoff_s: float, left_s: float) -> float:
    """Seconds until the next try: what the error asks for, but no longer than `left_s`; else the back-off."""
    if isinstance(error, Temporary) and error.delay_s is not None:
        return min(error.delay_s, max(left_s, FIRST_DELAY_S))
    return backoff_s


def _as_sterna(step: Step[C, Any, Any], raised: Exception) -> SternaError:
    """What the error asks for. A bug in a step is Permanent: it will not go away by itself."""
    if isinstance(raised, SternaError):
        return raised
    log.error("step failed unexpectedly", step=step.name, exc_info=raised)
    return Permanent(f"{step.name}: {type(raised).__name__}: {raised}", fix="this is a bug: please report it")
