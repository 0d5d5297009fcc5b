"""The destination's memory of guests that ran here: a transient guest that ends leaves no other trace.

From P3 until its half is closed, the destination listens for the moment the guest's vCPUs run, and journals it.

It also journals that an incoming QEMU ended before that. QEMU sends its RESUME event before any vCPU runs, and
libvirt delivers events in order. So an agent that listened from QEMU's start to its end without a break knows that
the guest never ran here, although libvirt may have written its definition already. `observe_guest` answers with
what is seen now and what is remembered.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import structlog

from sterna.domain.downtime import DestinationTimes
from sterna.domain.entries.destination import NetworkInfo, VifsPlugged
from sterna.domain.entries.destination_notes import NeverRan, RanHere
from sterna.domain.entries.notes import PortsSwitched
from sterna.domain.errors import SternaError, Unreachable
from sterna.domain.model import GuestState, Observation
from sterna.domain.whereabouts import GONE
from sterna.migration.attempts import Attempts
from sterna.migration.context import Context
from sterna.ports.hypervisor import GuestEvent

_RUNS = ("resumed-migrated", "resumed-postcopy", "resumed")
_ENDS = ("stopped", "crashed", "shutdown", "stopped-migrated")
LOOK_AGAIN_S = 2.0
LOOK_ANYWAY_S = 10.0
"""The event that the guest runs may not come: it is looked for at this interval, too."""
FIRST_BREATH_S = 0.03
"""After a resume, nothing is done for this long: on a small host our work would delay the guest's first reply
(docs/lab-notebook/benchmarks.md). If its MACs were announced before, the journal entry waits as well, unless a
caller needs it. An agent that dies in this time looks for the guest when it is restarted."""
ANNOUNCE_AGAIN_S = (0.1, 0.4, 1.5)
"""A frame may be lost, or come before the fabric is ready: each wait is about four times the one before."""

log = structlog.get_logger(__name__)


class Arrivals:
    """One look-out per expected guest."""

    def __init__(self) -> None:
        self._lookouts: dict[str, asyncio.Task[None]] = {}
        self._repeats: set[asyncio.Task[None]] = set()
        self._called: dict[str, frozenset[str]] = {}
        """MACs that were announced to the network before their guest ran, by migration."""
        self._running: set[str] = set()
        """Migrations whose guest was seen to run here, which is not journaled yet."""

    def watch(self, ctx: Context) -> None:
        """Look out for this migration's guest from now on; idempotent."""
        if ctx.migration.id not in self._lookouts and not ctx.history.has(RanHere):
            name = f"watch for {ctx.migration.vm_name}"
            self._lookouts[ctx.migration.id] = asyncio.create_task(self._look_out(ctx), name=name)

    async def expect(self, ctx: Context) -> None:
        """Its guest is paused on the source: its MACs are announced here now, and its frames wait in its port until
        it runs. If it resumes on the source after all, the source announces them again (R6).
        """
        if not ctx.history.has(RanHere) and ctx.history.turned_back is None:
            called = await _send_announcements(ctx)
            if ctx.migration.id in self._lookouts:  # it may have been closed since
                self._called[ctx.migration.id] = called

    def forget(self, ctx: Context) -> None:
        """Its half is closed."""
        self._called.pop(ctx.migration.id, None)
        self._running.discard(ctx.migration.id)
        lookout = self._lookouts.pop(ctx.migration.id, None)
        if lookout is not None:
            lookout.cancel()

    async def stop(self) -> None:
        """The agent stops; the next life looks first, then listens."""
        tasks = [*self._lookouts.values(), *self._repeats]
        self._lookouts.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def ran(self, ctx: Context) -> bool:
        """Was the guest ever seen to run here for this migration? Journaled, if it was."""
        if ctx.migration.id in self._running:
            ctx.note_once(RanHere())
        return ctx.history.has(RanHere)

    def remember(self, ctx: Context, seen: Observation) -> Observation:
        """What is seen now, and whether the guest ever ran here for this migration."""
        mine = seen.epoch == ctx.migration.epoch
        if mine and seen.state is GuestState.RUNNING and not ctx.history.closed:
            ctx.note_once(RanHere())
        ran = self.ran(ctx)
        if ran and seen.state is GuestState.UNKNOWN:
            return seen.model_copy(update={"ran": True})
        if ran and seen.state in GONE:
            return seen.model_copy(update={"ran": True, "reason": "ran here"})
        if ctx.history.has(NeverRan) and not ran and seen.state in GONE:
            return seen.model_copy(update={"ran": False, "reason": "ended before it ran"})
        return seen

    async def _look_out(self, ctx: Context) -> None:
        hypervisor, attempts = ctx.host.hypervisor, Attempts(ctx, f"watching for {ctx.migration.vm_name}")
        while not ctx.history.has(RanHere):
            with attempts.attempt():
                try:
                    async with hypervisor.events(ctx.vm_uuid) as events:
                        seen = self.remember(ctx, await hypervisor.observe(ctx.vm_uuid))
                        came = _waits_for_memory(seen, ctx.migration.epoch)
                        await self._listen_and_look(ctx, events, came=came)
                except Unreachable:  # libvirt's calls may work all the same
                    self.remember(ctx, await hypervisor.observe(ctx.vm_uuid))
                    if not ctx.history.has(RanHere):
                        raise
                    if ctx.migration.id not in self._running:
                        await self._runs(ctx, DestinationTimes())
            if not ctx.history.has(RanHere):
                await ctx.clock.sleep(LOOK_AGAIN_S)

    async def _listen_and_look(self, ctx: Context, events: AsyncIterator[GuestEvent], *, came: bool) -> None:
        """Until it ran, or was seen to without an event. Raises Unreachable when events may be missing."""
        listening = asyncio.ensure_future(self._listen(ctx, events, came=came))
        looking = asyncio.ensure_future(self._look(ctx))
        try:
            await asyncio.wait((listening, looking), return_when=asyncio.FIRST_COMPLETED)
            if listening.done() or ctx.migration.id in self._running:
                await listening
                return
            looking.result()
            await self._runs(ctx, DestinationTimes())
        finally:
            for task in (listening, looking):
                task.cancel()
            await asyncio.gather(listening, looking, return_exceptions=True)

    async def _listen(self, ctx: Context, events: AsyncIterator[GuestEvent], *, came: bool) -> None:
        """Until it ran; `came`: its QEMU waits here already. Raises Unreachable when events may be missing."""
        times = DestinationTimes()
        async for event in events:
            times.take(event.kind, event.at_ms)
            if event.kind == "started-incoming":
                came = True
            if event.kind in _RUNS:
                await self._runs(ctx, times)
                return
            if came and event.kind in _ENDS:
                ctx.note_once(NeverRan())

    async def _look(self, ctx: Context) -> None:
        """Return when it is seen to run, or to have run. Raises SternaError where libvirt does not answer."""
        while True:
            await ctx.clock.sleep(LOOK_ANYWAY_S)
            self.remember(ctx, await ctx.host.hypervisor.observe(ctx.vm_uuid))
            if ctx.history.has(RanHere):
                return

    async def _runs(self, ctx: Context, times: DestinationTimes) -> None:
        self._announce_again(ctx)
        called = self._called.get(ctx.migration.id, frozenset())
        self._running.add(ctx.migration.id)
        await asyncio.gather(self._announce(ctx, times, called), self._confirm(ctx, at_once=not called))

    async def _announce(self, ctx: Context, times: DestinationTimes, called: frozenset[str]) -> None:
        """Announce the guest to the network (protocol F7), without the MACs `called` before. QEMU does so as well,
        usually a little earlier, but not for every kind of port. Nothing depends on it. How long it took is
        journaled.
        """
        now = await _send_announcements(ctx, but=called)
        record = times.record(ctx.clock.monotonic_ms() if now or not called else None)
        await ctx.clock.sleep(FIRST_BREATH_S)
        self.ran(ctx)
        if record is not None and not ctx.history.closed:
            ctx.note_once(record)

    async def _confirm(self, ctx: Context, *, at_once: bool) -> None:
        """It ran here: journaled while the frames of `_announce`, begun just before, are sent; the disk takes
        longer than they do. Then the ports are bound to this host, where the source has not done that already. F7
        does the rest. `at_once`: the source sent no hint when the guest was paused there."""
        if not at_once:
            await ctx.clock.sleep(FIRST_BREATH_S)
        self.ran(ctx)
        if not ctx.history.has(NetworkInfo):
            return  # its ports are the source's word so far
        try:
            await ctx.host.network.switch(ctx.incoming_vm(), *ctx.network_hosts)
            if ctx.asked_network:
                ctx.note_once(PortsSwitched(network=ctx.asked_network))
        except SternaError as error:
            log.info("the network service is not notified of a guest yet", vm=ctx.vm_uuid, error=error.message)

    def _announce_again(self, ctx: Context) -> None:
        """Beside all else: this half is closed, as a rule, before the last repeat."""
        repeats = asyncio.create_task(_repeat(ctx), name=f"announce {ctx.migration.vm_name} again")
        self._repeats.add(repeats)
        repeats.add_done_callback(self._repeats.discard)


def _waits_for_memory(seen: Observation, epoch: int) -> bool:
    return seen.state is GuestState.PAUSED and seen.epoch == epoch and not seen.ran


async def _repeat(ctx: Context) -> None:
    """Announce it again, as long as the guest runs here: one that has moved on must not be announced here."""
    attempts = Attempts(ctx, f"announcing {ctx.migration.vm_name}")
    for wait_s in ANNOUNCE_AGAIN_S:
        await ctx.clock.sleep(wait_s)
        with attempts.attempt():
            if (await ctx.host.hypervisor.observe(ctx.vm_uuid)).state is not GuestState.RUNNING:
                return
            await _send_announcements(ctx)


async def _send_announcements(ctx: Context, but: frozenset[str] = frozenset()) -> frozenset[str]:
    """The MACs that were announced: those of the guest with a port here by now, without `but`."""
    announced = set[str]()
    plugged = ctx.history.find(VifsPlugged)
    for nic in plugged.nics if plugged else ():
        if nic.mac in but:
            continue
        try:
            await ctx.host.vif.announce(nic)
            announced.add(nic.mac)
        except SternaError as error:
            log.info("a guest could not be announced to the network", mac=nic.mac, error=error.message)
    return frozenset(announced)
