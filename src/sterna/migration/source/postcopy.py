"""Post-copy: the guest runs on the destination while the source still holds pages of it.

Used by `copy.py` while a copy lasts. The pivot lies behind, so there is no way back; phase 3 has not begun, so
nothing is removed on either side. A broken stream is `recovering`: both QEMUs wait, and are joined again over any
of the destination's addresses, for as long as it takes. Nothing here ever ends a guest.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

from sterna.domain import untrusted
from sterna.domain.calls import EndLost, ListenAgain, OpenRecovery
from sterna.domain.entries.base import Failure
from sterna.domain.entries.notes import JoiningAgain, NotJoined, PostcopyAsked, RunsThere, Saw
from sterna.domain.entries.source import DestinationAnswer
from sterna.domain.errors import SternaError
from sterna.domain.status import Status
from sterna.domain.whereabouts import POSTCOPY, Finding, Verdict, spent
from sterna.kit.waiting import Backoff, paused
from sterna.migration.attempts import Attempts
from sterna.migration.context import Context

Find = Callable[[], Awaitable[Finding]]

WAITING_POSTCOPY = "-postcopy"
"""Which note of the family `Waiting`: why a requested switch has not been done yet."""
WAITING_END = "-old-copy"
"""The same of an old copy that runs and could not be ended yet."""
LOOK_S = 0.5
STALLED_S = 5.0
"""A stream over which nothing has come for so long is taken for broken: on a link that drops packets, neither QEMU
notices before TCP gives up, after a quarter of an hour. If it was only slow, joining again costs a moment."""
FIRST_RETRY_S, LONGEST_RETRY_S = 0.5, 10.0


def begun(ctx: Context) -> bool:
    """Has the guest been seen to leave in post-copy?"""
    return ctx.history.has(Saw, "suspended-postcopy") or ctx.history.has(RunsThere)


async def attend(ctx: Context, find: Find) -> None:
    """Switch when asked to, then keep the two halves joined. Returns when post-copy is over or a half is gone."""
    await _until_begun(ctx)
    joining, attempts = _Joining(ctx), Attempts(ctx, "looking after post-copy")
    while True:
        with attempts.attempt():
            if not await _goes_on(ctx, find, joining):
                return
        await paused(ctx.clock, LOOK_S, ctx.runs_again)


async def end_old_copy(ctx: Context) -> None:
    """End the source's old copy where its QEMU lets it run: two copies run until then.

    The source alone is looked at, whatever else is under way: the destination may be silent for a minute.
    """
    attempts = Attempts(ctx, "looking for an old copy that runs", WAITING_END)
    while True:
        await paused(ctx.clock, LOOK_S, ctx.runs_again)
        ctx.runs_again.clear()
        if not ctx.handed_over:
            continue  # `attend` asks both hosts
        with attempts.attempt():
            if spent(await ctx.observe_here(), handed_over=True):
                await ctx.host.hypervisor.end_spent(ctx.vm_uuid, ctx.migration.epoch)


async def _goes_on(ctx: Context, find: Find, joining: _Joining) -> bool:
    """One look; two halves that have come apart are joined. Is post-copy not over yet?"""
    finding = await find()
    if finding.verdict is Verdict.IN_POSTCOPY:
        if await joining.stalled():
            finding = Finding(Verdict.BROKEN, f"no page of the guest has come for {STALLED_S:g} s")
        else:
            reason = f"the guest runs on {ctx.migration.destination}; {ctx.migration.source} still holds pages"
            ctx.set_status(Status.POST_COPY, reason)
    if finding.verdict is Verdict.BROKEN:
        ctx.set_status(Status.RECOVERING, finding.why)
        await joining.join()
    return finding.verdict in (Verdict.BROKEN, Verdict.IN_POSTCOPY, Verdict.WAIT, Verdict.DOUBT)


async def give_up(ctx: Context, why: str) -> None:
    """The source's QEMU is gone, and the destination's libvirt does not notice: its QEMU is made to say so.

    Taking up a stream that will not be joined again gives up the one it has. Where all of the memory has come, QEMU
    refuses, and nothing changes. Where it waits for more, what is left of the guest is ended, whether libvirt has
    noticed by now or not. Repeating is harmless. Raises SternaError where the destination could not do it.
    """
    ctx.set_status(Status.RECOVERING, why)
    address = ctx.history.get(DestinationAnswer).address
    await ctx.ask(ListenAgain(vm=ctx.vm_uuid, address=address))
    await ctx.ask(EndLost(vm=ctx.vm_uuid))


async def _until_begun(ctx: Context) -> None:
    """Switch to post-copy as requested, as soon as both sides can; return once the guest has left.

    The destination comes first: a stream that breaks before its guest can be reached there could never be joined.
    """
    attempts = Attempts(ctx, "the switch to post-copy", WAITING_POSTCOPY)
    while not begun(ctx):
        with attempts.attempt():  # the disks come first, or a host does not answer
            here = await ctx.observe_here() if ctx.postcopy else None
            if here is not None and here.reason in POSTCOPY:  # the event was missed
                return
            if ctx.history.has(PostcopyAsked):
                await ctx.ask(OpenRecovery(vm=ctx.vm_uuid))
                await ctx.host.hypervisor.switch_to_postcopy(ctx.vm_uuid)
        await ctx.clock.sleep(LOOK_S)


class _Joining:
    """The two halves of one guest: is anything coming, and joining them again."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._backoff = Backoff(FIRST_RETRY_S, LONGEST_RETRY_S)
        self._tries = 0
        self._seen: tuple[int | None, int | None] | None = None
        self._seen_ms = self._next_ms = 0.0
        self._reported: set[tuple[str, str]] = set()

    async def stalled(self) -> bool:
        """Has nothing come for STALLED_S? A look that fails proves nothing."""
        now = self._ctx.clock.monotonic_ms()
        try:
            sample = await self._ctx.host.hypervisor.sample(self._ctx.vm_uuid)
        except SternaError:
            return False
        seen = (sample.memory_processed, sample.memory_remaining) if sample is not None else None
        if seen is None or seen != self._seen:
            if self._seen is not None:  # pages come again
                self._backoff.reset()
                self._reported.clear()
            self._seen, self._seen_ms = seen, now
        return now - self._seen_ms >= STALLED_S * 1000

    async def join(self) -> None:
        """One try, over the next of the destination's addresses; none before it is time, so that a stream that
        works again is noticed soon."""
        ctx = self._ctx
        if ctx.clock.monotonic_ms() < self._next_ms:
            return
        answer = ctx.history.get(DestinationAnswer)
        addresses = answer.addresses or (answer.address,)
        address = addresses[self._tries % len(addresses)]
        self._tries += 1
        try:
            listening = await ctx.ask(ListenAgain(vm=ctx.vm_uuid, address=address))
            uri = untrusted.stream_uri(listening.uri, address)
            await ctx.host.hypervisor.send_again(ctx.vm_uuid, uri)
            self._note_try(JoiningAgain(address=address, tries=self._tries, uri=uri))
        except SternaError as error:
            self._note_try(NotJoined(address=address, tries=self._tries, error=Failure.of(error)))
            with contextlib.suppress(SternaError):  # its QEMU may still send
                await ctx.host.hypervisor.end_spent(ctx.vm_uuid, ctx.migration.epoch)
        self._seen_ms = ctx.clock.monotonic_ms()
        self._next_ms = self._seen_ms + self._backoff.seconds * 1000
        self._backoff.grow()

    def _note_try(self, tried: JoiningAgain | NotJoined) -> None:
        """Journal it once per address and outage: the link may be away for days."""
        key = tried.entry, tried.address
        if key not in self._reported:
            self._reported.add(key)
            self._ctx.note(tried)
