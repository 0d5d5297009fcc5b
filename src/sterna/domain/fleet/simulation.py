"""Moves played through in virtual time: prepared, copied at rates that are cut again at each event, finished.

The same rules that the controller admits by: a host prepares some in each direction, each budget carries its number
of copies, a move waits for those it depends on. Only copies that share a budget with one that begins or ends are
looked at.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field

from sterna.domain.fleet.budgets import Budgets
from sterna.domain.fleet.pace import Paces
from sterna.domain.fleet.rates import RECUT_S, share

PREPARED, SENDING, SENT, ENDED, CUT = range(5)
STILL = 1e-3
"""Bytes: less is nothing."""


@dataclass(slots=True)
class Job:
    """A move in the simulation."""

    v: int
    source: int
    target: int
    after: tuple[int, ...] = ()
    """Indices of jobs that must have ended."""
    begun: bool = False
    left: float = 0.0
    """Bytes to send. Of a begun one: what is left."""
    to_send: float = 0.0
    """What was left before the run."""
    blocked: int = 0
    """Of `after`, those that have not ended."""
    size: float = 0.0
    rate: float = 0.0
    advance: float = 0.0
    """By how much `left` shrinks in a second at this rate."""
    since_s: float = 0.0
    """When `left` was true."""
    version: int = 0
    cap: float = 0.0
    least: float = 0.0
    budgets: tuple[int, ...] = ()
    start_s: float = -1.0
    """Reserved and being prepared. Negative: not yet."""
    copy_s: float = -1.0
    sent_s: float = -1.0
    end_s: float = -1.0


@dataclass
class Lane:
    """The moves away from one host."""

    queue: list[int] = field(default_factory=list)
    """Not begun, in order."""
    ready: list[int] = field(default_factory=list)
    """Prepared, waiting for a copying slot."""
    sending: list[int] = field(default_factory=list)
    preparing: int = 0
    to_cut: bool = False
    """Its links are to be divided again in a while."""


class Simulation:
    """One run. `run` gives the second at which the last move ended."""

    def __init__(self, jobs: Sequence[Job], budgets: Budgets, paces: Paces) -> None:
        self.jobs = jobs
        self.paces = paces
        self.budgets = budgets
        self.limits = paces.tables.snapshot.limits
        self.room = list(budgets.room)
        self.copying = [0] * len(budgets.room)
        self.needed = [0.0] * len(budgets.room)
        """What the copies of each budget need at least."""
        self.hungry: dict[int, set[int]] = {}
        """Budget -> hosts with a copy that it keeps below its stream's rate."""
        self.full: dict[int, set[int]] = {}
        """Budget -> hosts with a prepared move that waits for a slot of it."""
        self.coming: dict[int, int] = {}
        """Target -> moves to it that have begun and do not copy yet."""
        self.kept: dict[int, set[int]] = {}
        """Target that prepares as many as it may -> hosts with a move that waits for that."""
        self.now = 0.0
        self.count = 0
        self.events: list[tuple[float, int, int, int, int]] = []
        """(second, order, kind, job, version)."""
        self.dependants: dict[int, list[int]] = {}
        self.lanes: dict[int, Lane] = {}
        for number, job in enumerate(jobs):
            self._enter(number, job)

    def _enter(self, number: int, job: Job) -> None:
        job.budgets = self.budgets.of(job.source, job.target)
        job.cap = self.paces.cap(job.source, job.target)
        job.least = self.paces.least(job.v, job.cap)
        job.size = self.paces.size[job.v]
        if not job.begun:
            job.left = job.size
        job.to_send = job.left
        job.blocked = len(job.after)
        for before in job.after:
            self.dependants.setdefault(before, []).append(number)
        lane = self.lanes.setdefault(job.source, Lane())
        (lane.ready if job.begun else lane.queue).append(number)
        if job.begun:
            job.start_s = 0.0
            self.coming[job.target] = self.coming.get(job.target, 0) + 1

    def run(self) -> float:
        """The last move's end. Moves whose copy never ends keep an `end_s` below 0."""
        for source in self._busiest_first():
            self._copy(source)
            self._prepare(source)
        handlers = {
            PREPARED: self._prepared,
            SENDING: self._sending,
            SENT: self._sent,
            ENDED: self._ended,
            CUT: self._cut_again,
        }
        last = 0.0
        while self.events:
            second, _, kind, number, version = heapq.heappop(self.events)
            if kind == SENT and version != self.jobs[number].version:
                continue
            self.now = second
            handlers[kind](number)
            if kind == ENDED:
                last = second
        return last

    def _busiest_first(self) -> list[int]:
        work = {
            source: -sum(self.jobs[n].left for n in (*lane.queue, *lane.ready)) / self.paces.out[source]
            for source, lane in self.lanes.items()
        }
        return sorted(self.lanes, key=lambda source: (work[source], source))

    def _at(self, after_s: float, kind: int, number: int, version: int = 0) -> None:
        self.count += 1
        heapq.heappush(self.events, (self.now + after_s, self.count, kind, number, version))

    # -- what happens -----------------------------------------------------------------------------------------

    def _prepare(self, source: int) -> None:
        """Reserve for the next moves that nothing keeps, as many as may be prepared."""
        lane = self.lanes[source]
        if not lane.queue:
            return
        free = self.limits.preparing - lane.preparing - len(lane.ready) - self._awaited(lane, len(self.jobs))
        if free <= 0:
            return
        chosen = []
        for number in lane.queue:
            job = self.jobs[number]
            if job.blocked:
                continue
            if self.coming.get(job.target, 0) >= self.limits.preparing:
                self.kept.setdefault(job.target, set()).add(source)
                continue
            self.coming[job.target] = self.coming.get(job.target, 0) + 1
            chosen.append(number)
            if len(chosen) == free:
                break
        for number in chosen:
            lane.queue.remove(number)
            self.jobs[number].start_s = self.now
            lane.preparing += 1
            self._at(self.limits.prepare_s, PREPARED, number)

    def _prepared(self, number: int) -> None:
        source = self.jobs[number].source
        self.lanes[source].preparing -= 1
        insort(self.lanes[source].ready, number)
        self._copy(source)

    def _copy(self, source: int) -> None:
        """Begin the copies that have a slot of each of their budgets."""
        lane, link = self.lanes[source], 2 * source
        if not lane.ready or self.copying[link] >= self.budgets.slots[link]:
            return
        begun = []
        for number in lane.ready:
            job = self.jobs[number]
            lacking = [b for b in job.budgets if not self._carries(b, job)]
            if not lacking and self.copying[link] == self.budgets.slots[link] - 1 and self._awaited(lane, number):
                continue
            if lacking:
                for budget in lacking:
                    self.full.setdefault(budget, set()).add(source)
                continue
            for budget in job.budgets:
                self.copying[budget] += 1
                self.needed[budget] += job.least
            begun.append(number)
            job.copy_s = self.now
            self._at(self.limits.job_s, SENDING, number)
        waiting = {source} if begun else set[int]()
        for number in begun:
            lane.ready.remove(number)
            target = self.jobs[number].target
            self.coming[target] -= 1
            waiting |= self.kept.pop(target, set())
        for one in sorted(waiting):
            self._prepare(one)

    def _carries(self, budget: int, job: Job) -> bool:
        """Has it a slot, and enough for what all its copies need? One copy runs anywhere."""
        if not self.copying[budget]:
            return True
        enough = self.needed[budget] + job.least <= self.budgets.room[budget]
        return enough and self.copying[budget] < self.budgets.slots[budget]

    def _awaited(self, lane: Lane, number: int) -> bool:
        """Does a longer copy of the lane wait for another move's end? The last slot is kept for it: the link is
        full without."""
        return bool(self.dependants) and any(n < number and self.jobs[n].blocked for n in lane.queue)

    def _sending(self, number: int) -> None:
        job = self.jobs[number]
        job.since_s = self.now
        self.lanes[job.source].sending.append(number)
        self._cut({job.source})

    def _sent(self, number: int) -> None:
        job = self.jobs[number]
        job.sent_s, job.left, job.version = self.now, 0.0, job.version + 1
        lane = self.lanes[job.source]
        lane.sending.remove(number)
        affected = {job.source}
        for budget in job.budgets:
            self.room[budget] += job.rate
            self.copying[budget] -= 1
            self.needed[budget] -= job.least
            affected |= self.hungry.pop(budget, set())
        job.rate = 0.0
        self._at(self.limits.finish_s, ENDED, number)
        self._cut(affected)
        waiting = set[int]().union(*(self.full.pop(budget, set()) for budget in job.budgets))
        for source in sorted(waiting | {job.source}):
            self._copy(source)

    def _ended(self, number: int) -> None:
        job = self.jobs[number]
        job.end_s = self.now
        sources = set()
        for waiting in self.dependants.get(number, ()):
            self.jobs[waiting].blocked -= 1
            if not self.jobs[waiting].blocked:
                sources.add(self.jobs[waiting].source)
        for source in sorted(sources | {job.source}):
            self._prepare(source)

    # -- rates ------------------------------------------------------------------------------------------------

    def _cut(self, sources: set[int]) -> None:
        """Divide the links of these hosts again."""
        for source in sorted(sources):
            self._cut_one(source)

    def _cut_again(self, source: int) -> None:
        self.lanes[source].to_cut = False
        self._cut({source})

    def _cut_one(self, source: int) -> None:
        """New rates for one host's copies. Others that this makes room for are looked at when one of theirs ends,
        or a while later."""
        lane, room = self.lanes[source], self.room
        copies = [self.jobs[number] for number in lane.sending]
        for job in copies:
            self._advance(job)
            for budget in job.budgets:
                room[budget] += job.rate
        limited = False
        for number, job, rate in zip(lane.sending, copies, share(copies, room), strict=True):
            if rate < job.cap - 1:
                limited = True
                self._note_hunger(source, job)
            if rate != job.rate or job.version == 0:
                self._set_rate(number, job, rate)
        if limited and not lane.to_cut:
            lane.to_cut = True
            self._at(RECUT_S, CUT, source)

    def _note_hunger(self, source: int, job: Job) -> None:
        """It would send faster if one of these had room."""
        for budget in job.budgets[1:]:
            if self.room[budget] < 1:
                self.hungry.setdefault(budget, set()).add(source)

    def _set_rate(self, number: int, job: Job, rate: float) -> None:
        job.rate = rate
        job.version += 1
        job.advance = self.paces.advance(job.v, rate)
        if job.advance > 0:
            self._at(job.left / job.advance, SENT, number, job.version)

    def _advance(self, job: Job) -> None:
        """What is left by now."""
        passed_s = self.now - job.since_s
        if passed_s:
            left = job.left - job.advance * passed_s
            job.left = min(job.size, left) if left > STILL else STILL
            job.since_s = self.now
