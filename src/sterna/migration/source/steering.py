"""Keeps a running copy within its objective: samples go to `domain/convergence.py`, its verdicts to the hypervisor.

Beside M3 in `watch.py`, which takes the samples. Nothing here decides: the rules come from the migration's
objective, the verdicts from a pure function. An agent that was restarted goes on with the next sample; what it has
given up stays given up, as the journal says.
"""

from __future__ import annotations

import contextlib
from datetime import datetime

from sterna.domain.convergence import Action, Rules, State, Verdict, judge
from sterna.domain.copying import GuestLoad, JobSample
from sterna.domain.entries.base import NoPlan
from sterna.domain.entries.notes import CopyExpected, GaveUp, PauseAsked, PostcopyAsked, Steered
from sterna.domain.entries.source import DowntimeRestored, Measuring
from sterna.domain.errors import NotFound, Permanent, SternaError
from sterna.domain.forecast import Expectations, Forecast, Link, Load, Mode, converges, forecast
from sterna.domain.jobs import VM_JOB
from sterna.domain.objective import LONGEST_DOWNTIME_MS, CopyParameters, Objective
from sterna.domain.policies import May
from sterna.domain.step import Step
from sterna.migration.context import Context
from sterna.migration.source import stream

MORE_LEEWAY = (
    "allow more: --max-downtime, --finish-within, --may throttle,postcopy,pause; or migrate when it is quieter"
)
NO_SWITCH_MS = 1
"""Too small to allow a switch-over: at the lowest bandwidth, only about 1 KiB may remain."""
USUAL_DOWNTIME_MS = 300
"""QEMU's own limit, until another is set."""
MEASURED_FOR_S = 1
"""libvirt's shortest. It is over long before the destination is prepared, and nothing waits for it."""


class MeasureLoad(Step[Context, NoPlan, Measuring]):
    """Before P2: have the guest's dirty rate measured while the destination is prepared. Never during the copy: it
    would disturb it (kubevirt#17504)."""

    name = "measure-load"
    reads_only = True

    async def do(self, ctx: Context, plan: NoPlan) -> Measuring:
        """Begin; a guest that cannot be measured is copied anyway."""
        wanted = ctx.wanted
        if wanted.finish_within_s is None and May.THROTTLE not in wanted.may:
            return Measuring(measured=False)  # nothing would be decided by it
        try:
            await ctx.host.hypervisor.measure_load(ctx.vm_uuid, MEASURED_FOR_S)
        except SternaError as error:
            return Measuring(measured=False, why=error.message)
        return Measuring(measured=True)


async def load_of(ctx: Context) -> GuestLoad | None:
    """What `MeasureLoad` has found; None where it has nothing, or not yet."""
    begun = ctx.history.find(Measuring)
    if begun is None or not begun.measured:
        return None
    with contextlib.suppress(SternaError):
        return await ctx.host.hypervisor.load(ctx.vm_uuid)
    return None


async def prepare(ctx: Context) -> CopyParameters:
    """Right before the copy: the downtime it may begin with, and what its stream is made of.

    No copy begins before QEMU has this limit: a small guest's is over before the first sample. Raises Refused,
    NotFound, Permanent, Unreachable.
    """
    wanted = ctx.wanted
    first_ms = NO_SWITCH_MS if ctx.rehearses_copy else wanted.first_downtime_ms
    await ctx.host.hypervisor.set_max_downtime(ctx.vm_uuid, first_ms)
    load = await load_of(ctx)
    # a plan's measurement took longer than this host's
    what = _expectations(ctx).load or (_measured(ctx, load) if load is not None else None)
    link = _link(ctx, wanted)
    seen = _forecast(wanted, what, link)
    ctx.note(CopyExpected(load=load, assumed=what, link=link, forecast=seen))
    return await stream.choose(ctx, converges(seen))


_AGAIN_S = (0.5, 1.0, 2.0)
"""Pauses before libvirt is asked again: a job that is about to end makes it refuse."""


class RestoreDowntime(Step[Context, NoPlan, DowntimeRestored]):
    """Undo of `prepare`: QEMU keeps the downtime limit for later copies, also those of others. A rehearsal's limit
    would keep the next one from switching over."""

    name = "restore-max-downtime"

    async def do(self, ctx: Context, plan: NoPlan) -> DowntimeRestored:
        """QEMU's own again. Raises Unreachable; a guest that has ended has none, and a refusal that stays holds
        nothing up: it is in the outcome."""
        for pause_s in (0.0, *_AGAIN_S):
            if pause_s:
                await ctx.clock.sleep(pause_s)
            try:
                if job := await _other_job(ctx):  # libvirt would let this wait for half a minute, and refuse
                    return DowntimeRestored(kept=job)
                await ctx.host.hypervisor.set_max_downtime(ctx.vm_uuid, USUAL_DOWNTIME_MS)
            except NotFound:
                return DowntimeRestored()
            except Permanent as error:
                refused = error.message
            else:
                return DowntimeRestored()
        return DowntimeRestored(kept=refused)


async def _other_job(ctx: Context) -> str:
    """The guest's job that is not this migration's, in words; '' for none."""
    against = await ctx.host.hypervisor.check_outgoing(ctx.vm_uuid)
    return next((r.message for r in against if r.code == VM_JOB), "")


def _expectations(ctx: Context) -> Expectations:
    """The controller's. Without any that can be read, only a forecast is lost."""
    return ctx.migration.options.expectations or Expectations()


def _link(ctx: Context, wanted: Objective) -> Link | None:
    """The controller's link model; without it, the bandwidth that was asked for."""
    learnt = _expectations(ctx).link
    if learnt is None and wanted.bandwidth_bytes_s is not None:
        return Link(bandwidth_bytes_s=wanted.bandwidth_bytes_s, limited=True)
    return learnt


def _forecast(wanted: Objective, what: Load | None, link: Link | None) -> Forecast | None:
    """Of pre-copy. None where the load or the link is not known."""
    if what is None or link is None:
        return None
    limits = {"max_downtime_ms": wanted.max_downtime_ms, "first_downtime_ms": wanted.first_downtime_ms}
    return forecast(what, link, Mode.PRECOPY, **limits)


def _measured(ctx: Context, load: GuestLoad) -> Load:
    return Load(
        memory_bytes=ctx.vm_before().memory_bytes,
        allocated_bytes=load.allocated_bytes,
        dirty_bytes=load.dirty_bytes,
        dirty_period_s=load.period_s,
        disk_bytes=sum(d.allocation_bytes or 0 for d in ctx.vm_before().disks if d.local),
    )


class Steering:
    """One copy, from its first sample in this life of the agent to its last."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._wanted = ctx.wanted
        self._rules: Rules | None = None
        self._state = State()
        self._pausing = False

    async def take(self, sample: JobSample) -> None:
        """Judge one sample and act. What libvirt refuses is tried again with the next one."""
        if sample.elapsed_ms is None:
            return
        if self._ctx.history.has(PauseAsked):
            await self._pause_guest()
            return
        if self._rules is None:
            self._rules = await self._begin(self._wanted, sample.elapsed_ms)
        state, verdict = judge(self._rules, self._state, sample)
        if verdict.action is not Action.CONTINUE:
            self._journal(verdict)
            try:
                await self._act(verdict)
            except SternaError:
                return  # the state stays: the verdict comes again
        self._state = state

    async def _pause_guest(self) -> None:
        """As somebody asked: nothing is judged any more. What libvirt refuses is tried again with the next one."""
        if self._pausing:
            return
        with contextlib.suppress(SternaError):
            await self._ctx.host.hypervisor.set_max_downtime(self._ctx.vm_uuid, LONGEST_DOWNTIME_MS)
            self._pausing = True

    async def _begin(self, wanted: Objective, elapsed_ms: int) -> Rules:
        before = self._ctx.history.find(Steered)
        limit = (before and before.downtime_ms) or wanted.first_downtime_ms
        with contextlib.suppress(SternaError):  # journaled before the copy began; the deadline counts anyway
            await self._ctx.host.hypervisor.set_max_downtime(self._ctx.vm_uuid, limit)
        gave_up = self._ctx.history.find(GaveUp)
        ended = Verdict(action=Action.GIVE_UP, why=gave_up.why) if gave_up else None
        self._state = State(downtime_ms=limit, ended=ended)
        return self._make_rules(wanted, elapsed_ms)

    def _make_rules(self, wanted: Objective, elapsed_ms: int) -> Rules:
        expected = self._ctx.history.find(CopyExpected)
        known = expected.load if expected else None
        return Rules(
            first_downtime_ms=wanted.first_downtime_ms,
            max_downtime_ms=wanted.max_downtime_ms,
            deadline_ms=self._deadline_ms(wanted, elapsed_ms),
            may=self._can(wanted),
            patience_ms=int(wanted.patience_s * 1000),
            dirty_rate=int(known.dirty_bytes / known.period_s) if known else None,
        )

    def _can(self, wanted: Objective) -> frozenset[May]:
        """What can be done while it runs. Throttling is QEMU's own affair, once the copy was begun for it."""
        allowed = wanted.may - {May.THROTTLE}
        return allowed if self._ctx.postcopy else allowed - {May.POSTCOPY}

    def _deadline_ms(self, wanted: Objective, elapsed_ms: int) -> int | None:
        """By the copy's own clock, which starts with the copy. The time before it counts as well."""
        if wanted.finish_within_s is None:
            return None
        return max(1, int(wanted.finish_within_s * 1000 - self._so_far_ms(elapsed_ms) + elapsed_ms))

    def _so_far_ms(self, elapsed_ms: int) -> float:
        """Since it was accepted. By the wall clock, which may have been changed, only where it was accepted before
        the agent's restart; the copy's own time has passed in any case."""
        clock, accepted_ms = self._ctx.clock, self._ctx.accepted_ms
        if accepted_ms is not None:
            return clock.monotonic_ms() - accepted_ms
        accepted = datetime.fromisoformat(self._ctx.migration.created_at)
        return max(float(elapsed_ms), (clock.now() - accepted).total_seconds() * 1000)

    def _journal(self, verdict: Verdict) -> None:
        """Journal a verdict before it is carried out, once."""
        if verdict.action is Action.GIVE_UP:
            self._ctx.note_once(GaveUp(why=verdict.why))
        else:
            self._ctx.note_change(Steered(**dict(verdict)))

    async def _act(self, verdict: Verdict) -> None:
        mover, vm = self._ctx.host.hypervisor, self._ctx.vm_uuid
        if verdict.action is Action.RAISE_DOWNTIME and verdict.downtime_ms is not None:
            await mover.set_max_downtime(vm, verdict.downtime_ms)
        elif verdict.action is Action.PAUSE:
            # QEMU itself stops the guest and sends the rest, in one piece: unlike a guest that we had paused, it is
            # set running again by whoever sees the copy fail.
            await mover.set_max_downtime(vm, LONGEST_DOWNTIME_MS)
        elif verdict.action is Action.POSTCOPY:
            self._ctx.note_once(PostcopyAsked())  # `postcopy.attend` does it, as if a user had asked
        elif verdict.action is Action.GIVE_UP:
            await mover.abort(vm)
