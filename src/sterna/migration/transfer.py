"""Phase 2: memory and local disks are copied; at its end the guest runs on the destination: the pivot.

M4 is one libvirt call that goes on when this agent dies. So `Copy` never trusts what that call returns: it
asks both hypervisors, lets `domain/whereabouts.py` decide, and is the same code whether it starts a copy,
finds one that a former life of this agent started, or finds it finished.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

from sterna.domain import untrusted
from sterna.domain.addresses import in_uri
from sterna.domain.downtime import SWITCHED, TOLD_BY_QEMU, SourceTimes
from sterna.domain.errors import Cancelled, Permanent, Refused, SternaError
from sterna.domain.journal import Kind
from sterna.domain.model import (
    CopyPlan,
    Data,
    DestinationDisk,
    DestinationNic,
    GuestState,
    JobSample,
    Observation,
    Transport,
)
from sterna.domain.objective import CopyParameters
from sterna.domain.status import Status
from sterna.domain.step import Step
from sterna.domain.whereabouts import GONE, POSTCOPY, Finding, Verdict, locate
from sterna.migration import fenced, handover, postcopy, rollback, steering, stream
from sterna.migration.context import ABORT_ASKED, HELD, REHEARSED_COPY, RUNS_THERE, Context
from sterna.migration.persistent import Turns
from sterna.ports.hypervisor import GuestEvent

SAMPLE_EVERY_S = 0.5
ASK_AGAIN_S = 0.1
SLOWEST_ASK_S = 2.0
QUIET_SAMPLES = 4
"""A hand-over is over within two seconds, and its host has better to do in them. A longer one (a pause that was
ordered, a link that has become slow) is watched again: its objective has a deadline, and the guest stands still."""
SEE_LOGS = "libvirt's logs on both hosts say more: `journalctl -u libvirtd -u virtqemud`"
WAITING_COPY = "waiting-copy"
"""Note: why the copy is not watched now."""
WAITING_ABORT = "waiting-abort"
"""Note: why libvirt has not given the copy up yet."""
SLOWEST_MIB_S = 1
"""The least bandwidth libvirt can be told."""


class SetMigrating(Step[Context]):
    """M1: the status becomes `migrating`."""

    row, name = "M1", "set-migrating"
    reads_only = True

    async def do(self, ctx: Context, plan: Data) -> Data:
        """Journal the status."""
        ctx.set_status(Status.MIGRATING, f"copying to {ctx.migration.destination}")
        return {}


class FindLocalDisks(Step[Context]):
    """M2: the disks only the source can see are copied with the memory."""

    row, name = "M2", "find-local-disks"
    reads_only = True

    async def do(self, ctx: Context, plan: Data) -> Data:
        """Both sides must agree on which disks are copied, or nothing is."""
        ours = sorted(d.target for d in ctx.vm_before().disks if d.local and not d.carried)
        answer = ctx.history.results["pre-live-migration"]
        theirs = sorted(d["target"] for d in answer["disks"] if d["copied"])
        if ours != theirs:
            raise Permanent(f"the source would copy {ours}, the destination prepared {theirs}")
        return {"copied": ours}


class TakeOwnership(Step[Context]):
    """Before M4: this migration's epoch into the domain's metadata, and autostart off.

    The epoch is the proof of ownership both hosts check; a source that rebooted with autostart on would start
    a second copy. Metadata cannot be changed while libvirt migrates.
    """

    name = "take-ownership"
    undo = (rollback.RestoreAutostart,)

    async def plan(self, ctx: Context) -> Data:
        """What autostart is now: it may have been changed since P2, while the destination prepared."""
        return {"autostart": (await ctx.host.hypervisor.vm(ctx.vm_uuid)).autostart}

    async def do(self, ctx: Context, plan: Data) -> Data:
        """Write both; repeating is harmless. Raises Refused beside a job, for which libvirt would wait."""
        if keeps := await ctx.host.hypervisor.check_outgoing(ctx.vm_uuid):
            raise Refused(keeps)
        await ctx.host.hypervisor.mark(ctx.vm_uuid, ctx.migration.id, ctx.migration.epoch)
        if plan["autostart"]:
            await ctx.host.hypervisor.set_autostart(ctx.vm_uuid, False)
        return {"epoch": ctx.migration.epoch}


class Interlock(Step[Context]):
    """Before M4: once the guest's state has left, its QEMU here cannot let it run again, whoever asks.

    libvirt would, where the destination's answer is lost on the way. From here on only Sterna can, and does so when
    both hosts have shown that the guest never ran on the destination.
    """

    name = "interlock"
    undo = (rollback.ReleaseInterlock,)

    async def do(self, ctx: Context, plan: Data) -> Data:
        """Set it; repeating is harmless."""
        await ctx.host.hypervisor.interlock(ctx.vm_uuid, ctx.migration.epoch)
        return {}


async def find_guest(ctx: Context) -> Finding:
    """Ask both hypervisors where the guest is, source first."""
    here = await ctx.observe_here()
    there = await ctx.observe_there()
    started, epoch = "copy-started" in ctx.history.notes, ctx.migration.epoch
    finding = fenced.judge(ctx, here, there) or locate(
        here, there, epoch=epoch, started=started, handed_over=ctx.handed_over, switching=ctx.switching
    )
    if finding.verdict in (Verdict.IN_POSTCOPY, Verdict.BROKEN, Verdict.HALF_GONE, Verdict.LOST):
        ctx.note_once("M4", RUNS_THERE)
    sent_away = here.state is GuestState.PAUSED and here.reason in POSTCOPY
    arrived = finding.verdict in (Verdict.ARRIVED, Verdict.ENDED_AT_DESTINATION)
    if (arrived and here.state not in GONE) or (finding.verdict is Verdict.ENDED_AT_SOURCE and sent_away):
        # It is proven to have run on the destination, or to be gone from there after its CPUs were sent: what is
        # left here is a paused shell (SPEC invariant 1).
        await ctx.host.hypervisor.end_leftover(ctx.vm_uuid, epoch)
        return Finding(Verdict.WAIT, "ending the source's paused copy")
    if finding.verdict is Verdict.STALE:
        ctx.note_once("M4", HELD, {"why": finding.why})  # first: the next life must know whose pause it is
        await ctx.host.hypervisor.hold(ctx.vm_uuid, epoch)
        return Finding(Verdict.WAIT, finding.why)
    if finding.verdict is Verdict.LOST:
        await ctx.peer.call("end_lost", {"vm": ctx.vm_uuid})
        return Finding(Verdict.WAIT, finding.why)
    return finding


class Copy(Step[Context]):
    """M4, with M3 (watch), M5 (success) and M6 (failure): the step whose end is the pivot."""

    row, name = "M4", "copy"
    undo = (rollback.GiveBindingsBack, steering.RestoreDowntime)  # the guest itself: R0, before them
    settles_abort = True

    def lasts(self, ctx: Context) -> bool:
        """Once the copy has begun; what comes before may hang."""
        return "copy-started" in ctx.history.notes

    async def do(self, ctx: Context, plan: Data) -> Data:
        """Start or join the copy and see it to its end.

        Returns when the guest is the destination's. Raises Cancelled or Permanent when it stayed.
        """
        failure, delay = "", ASK_AGAIN_S
        find = partial(_look, ctx, Turns(ctx, "looking for the guest"))
        turns = Turns(ctx, "watching the copy", WAITING_COPY)
        while True:
            finding = await find()
            if finding.verdict is Verdict.START:
                if ctx.abort.is_set():
                    raise Cancelled("aborted before the copy began")
                failure, delay = await self._start(ctx, find), ASK_AGAIN_S
                continue
            if finding.verdict in (Verdict.ARRIVED, Verdict.ENDED_AT_DESTINATION):
                return await self._arrived(ctx, finding)
            if finding.verdict in (Verdict.STAYED, Verdict.ENDED_AT_SOURCE):
                raise self._stayed(ctx, finding, failure)
            if finding.verdict is Verdict.STRANDED:
                await ctx.host.hypervisor.resume(ctx.vm_uuid, ctx.migration.epoch)
                continue
            with turns.turn():  # libvirt copies, whatever goes wrong here
                if await self._wait(ctx, finding, find):
                    delay = ASK_AGAIN_S
                    continue
            await ctx.clock.sleep(delay)
            delay = min(delay * 1.5, SLOWEST_ASK_S)

    async def _start(self, ctx: Context, find: postcopy.Find) -> str:
        """Run the copy; what libvirt said if it did not like it ('' otherwise)."""
        if keeps := await ctx.host.hypervisor.check_outgoing(ctx.vm_uuid):  # begun while the other host prepared
            raise Refused(keeps)
        plan = copy_plan(ctx, await steering.prepare(ctx))
        ctx.note("M3", "copy-started")
        try:
            async with ctx.host.hypervisor.events(ctx.vm_uuid) as events:
                await watch(ctx, find, lambda: ctx.host.hypervisor.migrate(ctx.vm_uuid, plan), events)
        except SternaError as error:
            ctx.note("M4", "libvirt-said", {"error": error.to_wire()})
            return error.message
        return ""

    async def _wait(self, ctx: Context, finding: Finding, find: postcopy.Find) -> bool:
        """Whether a copy was under way, and was watched to its end; else it is to be asked again in a while."""
        ctx.note_change("M4", "waiting", finding.why)
        if finding.verdict is Verdict.HALF_GONE:
            with contextlib.suppress(SternaError):  # somebody is away: asked again
                await postcopy.give_up(ctx, finding.why)
        elif under_way(await ctx.observe_here()):  # a former life started it, or its stream broke in post-copy
            await watch(ctx, find, lambda: until_over(ctx))
            return True
        return False

    async def _arrived(self, ctx: Context, finding: Finding) -> Data:
        ended = finding.verdict is Verdict.ENDED_AT_DESTINATION
        job = None
        with contextlib.suppress(SternaError):  # the disks are counted on this side only; not worth a failure
            job = await ctx.host.hypervisor.completed_job(ctx.vm_uuid)
        data = {"why": finding.why, "guest_ended": ended, "job": job.model_dump(mode="json") if job else None}
        ctx.note("M5", "copy-succeeded", data)
        return {"guest_ended": ended}

    def _stayed(self, ctx: Context, finding: Finding, failure: str) -> SternaError:
        said = failure or ctx.history.notes.get("libvirt-said", {}).get("error", {}).get("message", "")
        ctx.note("M6", "copy-failed", {"why": finding.why, "libvirt": said})
        if finding.verdict is Verdict.ENDED_AT_SOURCE:
            begun = "copy-started" in ctx.history.notes  # else it may run on a third host by now
            fix = "start the VM again on the source" if begun else "see where the VM is now"
            return Permanent(finding.why, fix=fix)
        if REHEARSED_COPY in ctx.history.notes:
            return Cancelled("it was a rehearsal: the copy had begun, and everything is undone")
        if ctx.abort.is_set():
            return Cancelled("aborted while copying")
        if steering.GAVE_UP in ctx.history.notes:
            why = ctx.history.notes[steering.GAVE_UP]["why"]
            return Permanent(f"the copy was given up: {why}", fix=steering.MORE_LEEWAY)
        fix = ctx.history.notes.get("libvirt-said", {}).get("error", {}).get("fix", "")
        return Permanent(f"the copy failed: {said or finding.why}", fix=fix or SEE_LOGS)


async def _look(ctx: Context, turns: Turns) -> Finding:
    """Where the guest is; what an operator must know of it is in the status. A look that fails decides nothing."""
    with turns.turn():
        finding = await find_guest(ctx)
        in_doubt = ctx.history.status == Status.ERROR
        if finding.verdict is Verdict.DOUBT:
            ctx.set_status(Status.ERROR, finding.why)
        elif in_doubt and finding.verdict is not Verdict.WAIT:
            ctx.set_status(Status.MIGRATING, finding.why)
        return finding
    return Finding(Verdict.WAIT, turns.said)


def copy_plan(ctx: Context, made_of: CopyParameters) -> CopyPlan:
    """All that libvirt must be told, from the snapshot (P2), the destination's answer (P11) and the solver's."""
    answer = ctx.history.results["pre-live-migration"]
    transport = made_of.transport
    return CopyPlan(
        migration_id=ctx.migration.id,
        epoch=ctx.migration.epoch,
        destination_uri=stream.control_uri(ctx.host, answer["address"], transport),
        migrate_uri=None if transport is Transport.SSH else f"tcp://{in_uri(untrusted.address(answer['address']))}",
        disks=tuple(DestinationDisk.model_validate(d) for d in answer["disks"]),
        nics=tuple(DestinationNic.model_validate(n) for n in answer["nics"]),
        listens=answer.get("listens", {}),
        persistent=ctx.vm_before().persistent,
        flags=made_of.flags,
        parameters=_numbers(ctx, made_of),
    )


def _numbers(ctx: Context, made_of: CopyParameters) -> dict[str, int | str]:
    """libvirt's parameters: a rehearsed copy has the slowest bandwidth there is."""
    numbers = dict(made_of.parameters)
    if ctx.rehearses_copy:
        numbers["bandwidth"] = SLOWEST_MIB_S
        if made_of.postcopy:
            numbers["bandwidth.postcopy"] = SLOWEST_MIB_S
    return numbers


async def watch(
    ctx: Context,
    find: postcopy.Find,
    copying: Callable[[], Awaitable[None]],
    events: AsyncIterator[GuestEvent] | None = None,
) -> None:
    """M3: while `copying` lasts, journal its iterations, announce its samples and steer by them, obey an abort, and
    keep a guest in post-copy whole. Returns earlier where the guest has arrived, or ended, and libvirt does not
    notice. Raises what `copying` does. `events` are listened to first, where somebody has begun to."""
    deciding = [asyncio.ensure_future(w) for w in (copying(), postcopy.attend(ctx, find), handover.guard(ctx))]
    network = asyncio.ensure_future(handover.switch_network(ctx))
    watchers = [asyncio.ensure_future(w) for w in (_follow(ctx, events), _sample(ctx), _obey_abort(ctx))]
    try:
        done, _ = await asyncio.wait(deciding, return_when=asyncio.FIRST_COMPLETED)
        for ended in done:
            ended.result()
        await handover.let_end(ctx, network)  # the copy succeeded: nothing here is in a hurry any more
    finally:
        for task in (*deciding, *watchers, network):
            task.cancel()
        await asyncio.gather(*deciding, *watchers, network, return_exceptions=True)


def under_way(here: Observation) -> bool:
    """Is this host's libvirt, or QEMU by itself, still at it?"""
    return here.job_active or (here.state is GuestState.PAUSED and here.reason in POSTCOPY)


async def until_over(ctx: Context) -> None:
    """Return when nothing is under way here any more."""
    while under_way(await ctx.observe_here()):
        await ctx.clock.sleep(ASK_AGAIN_S)


async def _follow(ctx: Context, events: AsyncIterator[GuestEvent] | None) -> None:
    turns = Turns(ctx, "listening to libvirt's events")
    while True:
        with turns.turn():
            if events is not None:
                await _note_events(ctx, events)
            else:
                async with ctx.host.hypervisor.events(ctx.vm_uuid) as again:
                    await _note_events(ctx, again)
        events = None  # libvirtd was lost: listen again once it is back
        await ctx.clock.sleep(SAMPLE_EVERY_S)


async def _note_events(ctx: Context, events: AsyncIterator[GuestEvent]) -> None:
    times = SourceTimes()
    async for event in events:
        record = times.take(event.kind, event.at_ms)
        if record is not None:  # with what is written next: it proves nothing, and the guest needs the processors
            ctx.write(Kind.NOTE, row="M4", name=SWITCHED, data=record, lazily=True)
        if event.kind == "iteration":
            ctx.note("M3", "iteration", {"iteration": event.iteration})
        elif event.kind not in TOLD_BY_QEMU:
            if event.kind in handover.LEAVES:
                ctx.leaves.set()
                await handover.call_over(ctx)  # the network hears of it before the journal: an fsync is silence
                await asyncio.sleep(0)  # `switch_network` asks
            ctx.note("M3", f"saw-{event.kind}", {"detail": event.detail})


async def _sample(ctx: Context) -> None:
    steered, quiet = steering.Steering(ctx), QUIET_SAMPLES
    turns = Turns(ctx, "looking at the copy")
    while True:
        await ctx.clock.sleep(SAMPLE_EVERY_S)
        if ctx.leaves.is_set() and quiet and not postcopy.begun(ctx):
            quiet -= 1
            continue
        # no look this time, or no room for a word about it: the next one is half a second away
        with turns.turn():
            await _take_sample(ctx, steered)


async def _take_sample(ctx: Context, steered: steering.Steering) -> None:
    sample = await ctx.host.hypervisor.sample(ctx.vm_uuid)
    if sample is None:
        return
    data = {"sample": sample.model_dump(mode="json"), "at": ctx.clock.now().isoformat()}
    await ctx.hints.announce(f"progress.{ctx.migration.id}", data)
    if ctx.rehearses_copy:
        _end_rehearsal(ctx, sample)
    elif not postcopy.begun(ctx):
        await steered.take(sample)


def _end_rehearsal(ctx: Context, sample: JobSample) -> None:
    """Something has come over: that was all a rehearsal wanted to know."""
    if sample.memory_processed or sample.disk_processed:
        ctx.note_once("M3", REHEARSED_COPY, {"sample": sample.model_dump(mode="json")})
        ctx.note_once("", ABORT_ASKED)
        ctx.abort.set()


async def _obey_abort(ctx: Context) -> None:
    await ctx.abort.wait()
    turns = Turns(ctx, "the abort", WAITING_ABORT)
    with turns.turn():  # a full disk: that it was asked for is in the journal already
        ctx.note_once("M4", "abort-requested")
    while not postcopy.begun(ctx):  # libvirt may not have begun yet: ask until the copy is over
        with turns.turn():
            await ctx.host.hypervisor.abort(ctx.vm_uuid)
            ctx.note_once("M4", "abort-delivered")
        await ctx.clock.sleep(SAMPLE_EVERY_S)
