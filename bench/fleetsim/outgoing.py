"""The source's half of a simulated migration: what a real agent journals and reports, at the times it takes.

The two halves are in one process. So what real agents call and cast is a function call here, as long as both hosts
have power; else the source waits, as a real one does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.fleetsim import incoming
from bench.fleetsim.host import SimHost
from bench.fleetsim.links import Copy
from bench.fleetsim.steering import Act, Steering
from sterna.domain.copying import CompletedJob, GuestLoad, JobSample
from sterna.domain.entries.base import DirectionChanged, Failure, StatusSet
from sterna.domain.entries.notes import CopyExpected, CopySucceeded, GaveUp, Steered, Waiting
from sterna.domain.errors import Cancelled, Permanent, SternaError, Temporary, Unreachable
from sterna.domain.forecast import Load
from sterna.domain.journal import Kind, Migration
from sterna.domain.model import Data
from sterna.domain.objective import Objective
from sterna.domain.status import Status

if TYPE_CHECKING:
    from bench.fleetsim.crowd import Crowd

TICK_S = 0.1
PREPARE_S, JOB_S, FINISH_S = 0.6, 0.3, 0.3
"""Before the copy, of it beside sending, and after it; each by a fifth more or less."""
SAMPLE_EVERY_S = 0.5


class Outgoing:
    """One migration that leaves a host."""

    def __init__(self, crowd: Crowd, host: SimHost, migration: Migration, *, resumed: bool = False) -> None:
        """`resumed`: its host was without power."""
        self._crowd, self._host, self.migration, self._resumed = crowd, host, migration, resumed
        self._journal, self._truth, self._clock = host.journal, crowd.truth, crowd.clock
        self._vm = crowd.truth.made.vms[migration.vm_uuid]
        self.target = crowd.hosts[migration.destination]
        self.copy: Copy | None = None
        self.abort_asked = self.turned_back = self.past_pivot = False
        self.fenced = False
        """Its destination was declared dead."""
        self.wanted: Act = Act.NOTHING
        """What a user has asked for: post-copy, or a pause."""
        self._job: CompletedJob | None = None

    @property
    def status(self) -> str:
        """As journaled."""
        return self._journal.halves[self.migration.id].status

    async def run(self) -> None:
        """To the end, from wherever the journal is."""
        try:
            if self._resumed:
                await self._take_up()
                return
            self._set(Status.QUEUED, "accepted")
            try:
                await self._prepare()
                await self._copied()
            except SternaError as error:
                await self._roll_back(error)
                return
            await self._finish()
        finally:
            self._host.outgoing.pop(self.migration.id, None)

    async def _take_up(self) -> None:
        """After this host was without power. The guest is not here any more, but perhaps over there."""
        half = self.target.journal.halves.get(self.migration.id)
        settled = half is not None and half.closed == "F9"
        if settled or (half is not None and incoming.has_arrived(self.target, self._truth, half)):
            await self._finish()
        else:
            await self._roll_back(Temporary(f"{self._host.name} lost power"))

    # ------------------------------------------------------------ before the pivot

    async def _prepare(self) -> None:
        self._set(Status.PREPARING)
        self._journal.steps(self.migration.id, "P1", "P2")
        self._write(Kind.INTENT, "P3")
        await self._pause(self._crowd.about(PREPARE_S))
        incoming.prepare(self.target, self._truth, self.migration)
        self._write(Kind.DONE, "P3")
        self._journal.steps(self.migration.id, "P12")

    async def _pause(self, seconds: float) -> None:
        """Raises Cancelled, Unreachable."""
        until_ms = self._clock.monotonic_ms() + seconds * 1000
        while True:
            self._check()
            left_s = (until_ms - self._clock.monotonic_ms()) / 1000
            if left_s <= 0:
                return
            await self._clock.sleep(min(TICK_S, left_s))

    def _check(self) -> None:
        if self.abort_asked:
            raise Cancelled("a user has aborted it")
        if not self.target.alive:
            raise Unreachable(f"{self.target.name} does not answer any more")

    async def _copied(self) -> None:
        wanted, vm = self.migration.options.wanted, self._vm
        self._set(Status.MIGRATING)
        self._journal.steps(self.migration.id, "M1", "M2")
        self._note(CopyExpected.under, CopyExpected.entry, self._expected().to_data())
        self._write(Kind.INTENT, "M4")
        copy = Copy(
            vm.uuid, self._host.name, self.target.name, float(vm.memory_bytes), vm.dirty_bytes_s, self._cap(wanted)
        )
        self.copy = copy
        self._crowd.links.begin(copy)
        try:
            await self._pause(self._crowd.about(JOB_S))
            await self._send(copy, wanted)
        finally:
            rate = copy.rate
            self._crowd.links.end(copy)
        self._pivot(copy, rate)

    def _cap(self, wanted: Objective) -> float:
        """Bytes/s that the copy may send."""
        room = self._crowd.links.room(self._host.name) * wanted.link_share
        return min(wanted.bandwidth_bytes_s or room, room, self._crowd.stream_bytes_s)

    def _expected(self) -> CopyExpected:
        period_s, memory = 1 / self._crowd.compress, self._vm.memory_bytes
        dirty = int(min(self._vm.dirty_bytes_s * period_s, memory))
        return CopyExpected(
            load=GuestLoad(dirty_bytes=dirty, period_s=period_s, allocated_bytes=memory),
            assumed=Load(memory_bytes=memory, allocated_bytes=memory, dirty_bytes=dirty, dirty_period_s=period_s),
        )

    async def _send(self, copy: Copy, wanted: Objective) -> None:
        """Until the rest fits into the downtime. Raises what `_pause` does, Permanent where it gets nowhere."""
        allowed_s = wanted.max_downtime_ms / 1000 / self._crowd.compress
        steering = Steering(wanted.may, wanted.patience_s, self._crowd.compress, stubborn=self._vm.stubborn)
        sampled_s = 0.0
        while copy.left > copy.rate * allowed_s:
            await self._clock.sleep(TICK_S)
            if not self.past_pivot:
                self._check()
            if copy.elapsed_s - sampled_s >= SAMPLE_EVERY_S:
                sampled_s = copy.elapsed_s
                await self._host.progress(self.migration.id, self._sample(copy, steering))
            if not self.past_pivot:
                self._steer(copy, self.wanted or steering.judge(copy), steering)

    def _steer(self, copy: Copy, act: Act, steering: Steering) -> None:
        if act is Act.NOTHING:
            return
        percent = int(steering.throttled * 100) or None
        steered = Steered(action=act, why="the copy does not converge", throttle_percent=percent)
        self._note(Steered.under, Steered.entry, steered.to_data())
        if act is Act.GIVE_UP:
            why = f"the copy of {self._vm.name} does not converge"
            self._note(GaveUp.under, GaveUp.entry, GaveUp(why=why).to_data())
            raise Permanent(why, fix="permit post-copy")
        if act is Act.PAUSE:
            copy.slowed = 1.0
        elif act is Act.POSTCOPY:
            copy.slowed, self.past_pivot = 1.0, True
            self._truth.hand_over(self._vm.uuid, self._host.name, self.target.name)
            self._set(Status.POST_COPY)
        self._host.to_list = self.target.to_list = True

    def _sample(self, copy: Copy, steering: Steering) -> Data:
        return JobSample(
            elapsed_ms=int(copy.elapsed_s * 1000),
            memory_total=self._vm.memory_bytes,
            memory_processed=int(copy.sent),
            memory_remaining=int(copy.left),
            memory_rate=int(copy.rate),
            dirty_rate=int(copy.writes),
            iteration=1 + int(copy.sent / copy.size),
            throttle_percent=int(steering.throttled * 100) or None,
        ).model_dump(mode="json")

    def _pivot(self, copy: Copy, rate: float) -> None:
        if not self.past_pivot:
            self._truth.hand_over(self._vm.uuid, self._host.name, self.target.name)
        self.past_pivot = True
        self._truth.release(self._host.name, self._vm.uuid, "handed over")
        rest, copy.left = copy.left, 0.0
        copy.sent += rest
        self._job = CompletedJob(
            total_ms=int(copy.elapsed_s * 1000),
            downtime_ms=int(rest / rate * 1000) if rate else None,
            memory_processed=int(copy.sent),
            memory_total=self._vm.memory_bytes,
            iterations=1 + int(copy.sent / copy.size),
        )
        self._write(Kind.DONE, "M4")
        self._note(CopySucceeded.under, CopySucceeded.entry, CopySucceeded(job=self._job).to_data())
        self._host.to_list = self.target.to_list = True

    # ------------------------------------------------------------ its end

    async def _finish(self) -> None:
        self.past_pivot = True
        if self.status != Status.POST_MIGRATING:
            self._set(Status.POST_MIGRATING)
            self._journal.steps(self.migration.id, "F1", "F2", "F3", "F4", "F5")
        await self._clock.sleep(self._crowd.about(FINISH_S))
        await self._until_reached("dhost-reports-F9")
        if self.target.alive:
            incoming.arrive(self.target, self._truth, self.migration.id, self._job)
        self._truth.forget(self._host.name, self._vm.uuid)
        self._journal.steps(self.migration.id, "F10", "F11")
        self._end(Status.COMPLETED, "F11", "")

    async def _roll_back(self, error: SternaError) -> None:
        self.turned_back = True
        if self.status != Status.ROLLING_BACK:
            turned = DirectionChanged(error=Failure.of(error))
            self._write(Kind.COMPENSATING, data=turned.to_data())
            self._set(Status.ROLLING_BACK, error.message)
            self._journal.steps(self.migration.id, "R1", "R2")
        if self.migration.id in self.target.journal.halves:
            await self._until_reached("dhost-reports-R7")
            if self.target.alive:
                incoming.roll_back(self.target, self._truth, self.migration.id)
        self._journal.steps(self.migration.id, "R8")
        status = Status.CANCELLED if isinstance(error, Cancelled) else Status.FAILED
        self._end(status, "R8", error.message)

    async def _until_reached(self, what: str) -> None:
        """The destination has power, or was declared dead."""
        said = False
        while not self.target.alive and not self.fenced:
            if not said:
                why = f"{self.target.name} does not answer"
                self._note("", f"{Waiting.entry}-{what}", Waiting(why=why).to_data())
                said = True
            await self._clock.sleep(TICK_S)

    def _end(self, status: Status, row: str, reason: str) -> None:
        self._set(status, reason)
        self._write(Kind.RELEASED)
        self._write(Kind.CLOSED, row)
        self._host.to_list = True

    # ------------------------------------------------------------ the journal

    def _set(self, status: Status, reason: str = "") -> None:
        self._write(Kind.STATUS, name=status, data=StatusSet(status=status, reason=reason).to_data())

    def _note(self, row: str, name: str, data: Data) -> None:
        self._write(Kind.NOTE, row, name, data)

    def _write(self, kind: Kind, row: str = "", name: str = "", data: Data | None = None) -> None:
        self._journal.write(self.migration.id, kind, row, name, data)
        self._host.to_hint = True
