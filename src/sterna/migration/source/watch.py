"""M3: follows a copy while it lasts: its events and samples, an abort, post-copy, and a hand-over that is late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from sterna.domain.copying import JobSample
from sterna.domain.downtime import REPORTED_BY_QEMU, SourceTimes
from sterna.domain.entries.notes import (
    AbortAsked,
    AbortDelivered,
    AbortRequested,
    Iteration,
    RehearsedCopy,
    Saw,
)
from sterna.domain.model import GuestState, Observation
from sterna.domain.whereabouts import GONE, POSTCOPY
from sterna.migration.attempts import Attempts
from sterna.migration.context import Context
from sterna.migration.source import handover, left, postcopy, steering, unchanged
from sterna.ports.hypervisor import GuestEvent

SAMPLE_EVERY_S = 0.5
ASK_AGAIN_S = 0.1
LOOK_EVERY_S = 5.0
QUIET_SAMPLES = 4
"""A hand-over is over within two seconds, and its host has better to do in them. A longer one (a pause that was
ordered, a link that has become slow) is watched again: its objective has a deadline, and the guest is paused."""
WAITING_ABORT = "-abort"
"""Which note of the family `Waiting`: why libvirt has not given the copy up yet."""


async def watch(
    ctx: Context,
    find: postcopy.Find,
    copying: Callable[[], Awaitable[None]],
    events: AsyncIterator[GuestEvent] | None = None,
) -> None:
    """M3: while `copying` lasts, journal its iterations, announce its samples and steer by them, obey an abort, and
    keep a guest in post-copy whole. Returns earlier where the guest has arrived, or ended, and libvirt does not
    notice, or does not answer. Raises what `copying` does. `events` are taken first, where a subscription exists.
    """
    heard = left.Heard(whole=events is not None)
    ends = (copying(), postcopy.attend(ctx, find), handover.guard(ctx, heard), _until_given_up(ctx))
    deciding = [asyncio.ensure_future(end) for end in ends]
    network = asyncio.ensure_future(handover.switch_network(ctx))
    looks = (_follow(ctx, events, heard), _sample(ctx), unchanged.give_up_if_changed(ctx))
    beside = (*looks, _obey_abort(ctx), postcopy.end_old_copy(ctx))
    watchers = [asyncio.ensure_future(w) for w in beside]
    try:
        done, _ = await asyncio.wait(deciding, return_when=asyncio.FIRST_COMPLETED)
        if any(ended.exception() for ended in done):
            await left.hear_out(ctx, heard)
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


async def _until_given_up(ctx: Context) -> None:
    """Return when libvirt has done with the guest, and its call for the copy still does not return. Twice in a row
    the guest is seen without a job, after one was seen: while a healthy call lasts, its job does."""
    attempts, begun, over = Attempts(ctx, "looking for libvirt's job"), False, False
    while True:
        await ctx.clock.sleep(LOOK_EVERY_S)
        was_over, over = over, False  # a look that fails decides nothing
        with attempts.attempt():
            here = await ctx.observe_here()
            begun = begun or under_way(here) or ctx.history.has(Iteration)
            known = here.state is not GuestState.UNKNOWN
            over = known and not under_way(here) and (begun or here.state in GONE)
            if over and was_over:
                return


async def _follow(ctx: Context, events: AsyncIterator[GuestEvent] | None, heard: left.Heard) -> None:
    attempts = Attempts(ctx, "listening to libvirt's events")
    while True:
        with attempts.attempt():
            if events is not None:
                await _note_events(ctx, events, heard)
            else:
                async with ctx.host.hypervisor.events(ctx.vm_uuid) as again:
                    await _note_events(ctx, again, heard)
        events, heard.whole = None, False  # libvirtd was lost: listen again once it is back
        await ctx.clock.sleep(SAMPLE_EVERY_S)


async def _note_events(ctx: Context, events: AsyncIterator[GuestEvent], heard: left.Heard) -> None:
    times = SourceTimes()
    async for event in events:
        heard.take(event.kind)
        record = times.take(event.kind, event.at_ms)
        if record is not None:  # with what is written next: it proves nothing, and the guest needs the processors
            ctx.note(record, lazily=True)
        if event.kind == "iteration":
            ctx.note(Iteration(iteration=event.iteration))
        elif event.kind not in REPORTED_BY_QEMU:
            if event.kind in handover.LEAVES:
                ctx.leaves.set()
                # the network is notified before the journal is written: an fsync prolongs the blackout
                await handover.announce_early(ctx)
                await asyncio.sleep(0)  # `switch_network` asks
            if event.kind == "resumed" and postcopy.begun(ctx):
                ctx.runs_again.set()
                await asyncio.sleep(0)  # `postcopy.end_old_copy` looks
            ctx.note(Saw(detail=event.detail), event.kind)


async def _sample(ctx: Context) -> None:
    steered, quiet = steering.Steering(ctx), QUIET_SAMPLES
    attempts = Attempts(ctx, "looking at the copy")
    while True:
        await ctx.clock.sleep(SAMPLE_EVERY_S)
        if ctx.leaves.is_set() and quiet and not postcopy.begun(ctx):
            quiet -= 1
            continue
        # the look failed, or its note could not be written: the next one is half a second away
        with attempts.attempt():
            await _take_sample(ctx, steered)


async def _take_sample(ctx: Context, steered: steering.Steering) -> None:
    sample = await ctx.host.hypervisor.sample(ctx.vm_uuid)
    if sample is None:
        return
    data = {"sample": sample.model_dump(mode="json"), "at": ctx.clock.now().isoformat()}
    await ctx.hints.announce(f"progress.{ctx.host.name}.{ctx.migration.id}", data)
    if ctx.rehearses_copy:
        _end_rehearsal(ctx, sample)
    elif not postcopy.begun(ctx):
        await steered.take(sample)


def _end_rehearsal(ctx: Context, sample: JobSample) -> None:
    """Something has come over: that was all a rehearsal wanted to know."""
    if sample.memory_processed or sample.disk_processed:
        ctx.note_once(RehearsedCopy(sample=sample))
        ctx.note_once(AbortAsked())
        ctx.abort.set()


async def _obey_abort(ctx: Context) -> None:
    await ctx.abort.wait()
    attempts = Attempts(ctx, "the abort", WAITING_ABORT)
    with attempts.attempt():  # a full disk: that it was asked for is in the journal already
        ctx.note_once(AbortRequested())
    while not postcopy.begun(ctx):  # libvirt may not have begun yet: ask until the copy is over
        with attempts.attempt():
            await ctx.host.hypervisor.abort(ctx.vm_uuid)
            ctx.note_once(AbortDelivered())
        await ctx.clock.sleep(SAMPLE_EVERY_S)
