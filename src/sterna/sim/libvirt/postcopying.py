"""The post-copy part of `copying.SimCopy`: the switch, a stream that breaks and is joined again, a lost half."""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod

from sterna.domain.copying import CompletedJob, CopyPlan
from sterna.sim.libvirt import qemu
from sterna.sim.world.host import SimHost
from sterna.sim.world.things import Job, Phase, SimDomain
from sterna.sim.world.world import World

LOST = "operation failed: Lost connection to destination host"


class Ended(Exception):
    """Somebody ended the copy while its own task was waiting."""


class Postcopying(ABC):
    """What a copy does once it is switched. The rest of it, and these names, are `SimCopy`'s."""

    world: World
    source: SimHost
    destination: SimHost
    uuid: str
    plan: CopyPlan
    phase: Phase
    error: str | None
    iteration: int
    _sending: int
    _stage_ms: float
    _over: asyncio.Event
    _counts_again: asyncio.Event

    def __init__(self) -> None:
        self._switch = asyncio.Event()
        self._broke = asyncio.Event()
        self._joined = asyncio.Event()
        self._listening = False
        self._orphaned = False
        self.given_up = self.waits_for_nobody = False

    @abstractmethod
    def _whole(self) -> Job:
        """This copy, as what it is."""

    @abstractmethod
    async def _pause(self) -> SimDomain:
        """The source's vCPUs stop."""

    @abstractmethod
    def _define(self, source: SimDomain) -> SimDomain:
        """libvirt's Finish, before the vCPUs run."""

    @abstractmethod
    async def _send_until(self, amount: int, stop: asyncio.Event) -> tuple[float, int]:
        """ms it took, bytes that are left."""

    @abstractmethod
    async def _wait(self, ms: float) -> None:
        """Raises Ended where the copy was ended meanwhile."""

    @abstractmethod
    def _live(self) -> None:
        """Raises Ended where it is over."""

    @abstractmethod
    def _tell(self, detail: str) -> None:
        """Tell whoever watches the world."""

    @abstractmethod
    def _finish(self, error: str | None) -> None:
        """The job is over for both libvirts."""

    @abstractmethod
    def _statistics(self) -> CompletedJob:
        """Of the copy so far."""

    def switch(self) -> None:
        """`virsh migrate-postcopy`. Raises LibvirtSays while the memory is not being copied."""
        if not self.plan.postcopy or self.phase is not Phase.COPYING or self.iteration == 0:
            raise qemu.LibvirtSays("operation failed: Post-copy can only be started while memory is being copied")
        self._switch.set()
        self._counts_again.set()

    def listen(self) -> None:
        """The destination's QEMU waits for the stream to be joined; a whole one is given up. Raises LibvirtSays."""
        if self.phase is not Phase.POSTCOPY:
            raise qemu.LibvirtSays("QEMU refused: not in post-copy")
        if self._orphaned:
            self.waits_for_nobody = True
            if self.destination.hears_of_lost_halves:
                self._orphan_noticed()
            return
        self._break()
        self._listening = True

    def give_up(self) -> None:
        """The stream breaks once all is sent, and not yet acknowledged: for the source's QEMU its migration has
        failed, and it lets its guest run again, whatever holds it. Seen with QEMU 10.0."""
        if self.phase is not Phase.POSTCOPY or self.given_up:
            return
        self.given_up = True
        self._break()
        source = self.source.domains[self.uuid]
        qemu.run(self.world, self.source, source, reason="postcopy", event="resumed", detail="unpaused")

    def join(self) -> None:
        """The source's QEMU connects again; where it cannot, nothing changes. Raises LibvirtSays."""
        if self.phase is not Phase.POSTCOPY or self.given_up:
            raise qemu.LibvirtSays("QEMU refused: not in post-copy")
        self._break()
        if not self._listening or not self.world.joined(self.source.name, self.destination.name, "stream"):
            return
        self._listening = False
        self._broke.clear()
        self._say("postcopy", source_event="suspended-postcopy", destination_event="resumed-postcopy")
        self._joined.set()

    # -- post-copy -----------------------------------------------------------------------------------------

    async def _post_copy(self) -> None:
        source = await self._pause()
        qemu.pause(self.world, self.source, source, reason="postcopy", event="suspended-postcopy")
        self._live()
        await self._wait(self.world.pace.switch_ms)
        domain = self._define(source)
        self.phase = Phase.POSTCOPY
        qemu.run(self.world, self.destination, domain, reason="postcopy", event="resumed-postcopy")
        self._live()
        self._tell("in post-copy")
        self._live()
        remaining = self._sending
        while remaining:
            if self._broke.is_set():
                self._sending = remaining
                self._stage_ms = math.inf
                self._joined.clear()
                await self._joined.wait()
                self._live()
            _, remaining = await self._send_until(remaining, self._broke)
        await self._until_up(self.destination)
        domain.job = None
        domain.completed = self._statistics().model_copy(update={"disk_processed": None, "disk_total": None})
        self.phase = Phase.FINISHED  # all of it is over there: no stream can break any more
        qemu.run(self.world, self.destination, domain, reason="migrated", event="resumed-migrated")
        self._live()
        await self._until_up(self.source)
        await self._wait(self.world.pace.finish_ms)
        source.completed = self._statistics()
        source.job = None
        qemu.end(self.world, self.source, source, reason="migrated", event="stopped-migrated")
        self._finish(None)

    async def _until_up(self, host: SimHost) -> None:
        """A QEMU waits for its libvirtd to take the end of the migration in."""
        while not host.libvirtd_up:
            await self._wait(100)

    def _break(self) -> None:
        """The stream is lost: both QEMUs wait, and the caller of the migration gets an error."""
        if not self._broke.is_set():
            self._broke.set()
            self._say("postcopy-failed", source_event="postcopy-failed", destination_event="postcopy-failed")
            self._lose_call("operation failed: job 'migration in' failed in post-copy phase")

    def _say(self, reason: str, *, source_event: str, destination_event: str) -> None:
        """What both libvirts say of the guest from now on: nothing where it was transient and its QEMU is gone."""
        here, there = self.source.domains.get(self.uuid), self.destination.domains.get(self.uuid)
        if here is not None and here.active:
            qemu.pause(self.world, self.source, here, reason=reason, event=source_event)
        if (
            there is not None and there.active and self.phase is Phase.POSTCOPY
        ):  # a watcher may have ended a half at that very change
            qemu.run(self.world, self.destination, there, reason=reason, event=destination_event)

    def _lose_call(self, error: str) -> None:
        """The answer to the caller; the QEMUs go on."""
        if not self._over.is_set():
            self.error = error
            self._over.set()

    def _half_gone(self, host: str) -> None:
        """One of the two QEMUs is gone: the other one waits for ever."""
        if (
            host == self.source.name
        ):  # the destination's libvirt does not always notice: the worst case is simulated
            self._orphaned = True
            self._broke.set()
            return
        left = self.source.domains.get(self.uuid)
        self._finish("operation failed: domain is no longer running")
        if left is not None and left.active:
            left.job = self._whole()  # libvirt's job stays, as the guest may not be used
            qemu.pause(self.world, self.source, left, reason="postcopy-failed", event="postcopy-failed")

    def _orphan_noticed(self) -> None:
        """The destination's QEMU gives the stream up on request: its libvirt notices, and the call ends."""
        left = self.destination.domains[self.uuid]
        self._finish("operation failed: domain is no longer running")
        if left.active:
            qemu.run(self.world, self.destination, left, reason="postcopy-failed", event="postcopy-failed")
