"""A pre-copy as QEMU does it, on paper: passes over a dirty bitmap, a switch-over when the rest fits the limit.

Deterministic; steps of 20 ms unless told otherwise. The guest writes at random into its working set, so a pass that
takes t leaves W * (1 - exp(-d*t/W)) dirty. Used by the tests of convergence, forecast and progress.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from sterna.domain.convergence import Action, Rules, State, Verdict, judge
from sterna.domain.copying import JobSample
from tests.narrowing import not_none

MIB = 2**20


def steady(value: float) -> Callable[[float], float]:
    return lambda ms: value


@dataclass
class Copy:
    """One copy; `ended` says how: `switched`, `postcopy`, `paused`, `given-up`."""

    memory: int
    working_set: int
    dirty: Callable[[float], float]
    bandwidth: Callable[[float], float]
    limit_ms: float = 300
    now_ms: float = 0
    iteration: int = 1
    sent: float = 0
    remaining: float = 0
    dirtied: float = 0
    dirty_rate: int | None = None
    throttle: int = 0
    ended: str = ""
    downtime_ms: float = 0
    finishing: str = ""
    expected_ms: int | None = None
    step_ms: float = 20
    _pass_ms: float = field(default=0)

    def __post_init__(self) -> None:
        self.remaining = self.memory

    def advance(self, ms: float) -> None:
        until = self.now_ms + ms
        while not self.ended and self.now_ms < until:
            self._step()

    def _step(self) -> None:
        capacity = self.bandwidth(self.now_ms) * self.step_ms / 1000
        self.now_ms += self.step_ms
        self._pass_ms += self.step_ms
        out = min(capacity, self.remaining)
        self.sent += out
        self.remaining -= out
        if self.finishing:
            if self.remaining <= 0:
                self.ended = self.finishing
            return
        speed = self.dirty(self.now_ms) * (1 - self.throttle / 100)
        w = self.working_set
        self.dirtied += (w - self.dirtied) * (1 - math.exp(-speed * self.step_ms / 1000 / w))
        rate = self.bandwidth(self.now_ms) / 1000
        if self.remaining <= rate * self.limit_ms:
            self._sync(rate)

    def _sync(self, rate: float) -> None:
        # What is left of a later pass lies in the working set: part of it has been dirtied again.
        fresh = 1 - self.remaining / self.working_set if self.iteration > 1 else 1
        self.remaining = min(self.memory, self.remaining + self.dirtied * max(0, fresh))
        self.dirty_rate = int(self.dirtied * 1000 / self._pass_ms)
        self.dirtied, self._pass_ms = 0, 0
        self.expected_ms = int(self.remaining / rate)
        if self.remaining <= rate * self.limit_ms:
            self.downtime_ms = self.remaining / rate
            self.sent += self.remaining
            self.now_ms += self.downtime_ms
            self.ended = "switched"
        else:
            self.iteration += 1

    def sample(self) -> JobSample:
        return JobSample(
            elapsed_ms=int(self.now_ms),
            memory_total=self.memory,
            memory_processed=int(self.sent),
            memory_remaining=int(self.remaining),
            memory_rate=int(self.bandwidth(self.now_ms)),
            dirty_rate=self.dirty_rate,
            iteration=self.iteration,
            downtime_ms=self.expected_ms,
        )

    def obey(self, verdict: Verdict) -> None:
        if verdict.action is Action.RAISE_DOWNTIME:
            self.limit_ms = not_none(verdict.downtime_ms)
        elif verdict.action is Action.THROTTLE:
            self.throttle = not_none(verdict.throttle_percent)
        elif verdict.action in (Action.POSTCOPY, Action.PAUSE) and not self.finishing:
            self.finishing = {Action.POSTCOPY: "postcopy", Action.PAUSE: "paused"}[verdict.action]
            self.remaining = min(self.memory, self.remaining + self.dirtied)
            self.downtime_ms = 0 if verdict.action is Action.POSTCOPY else math.inf
        elif verdict.action is Action.GIVE_UP:
            self.ended = "given-up"


@dataclass
class Run:
    """What came of a copy under `judge`."""

    copy: Copy
    state: State
    orders: list[tuple[float, Verdict]]
    """(ms, verdict) of everything but CONTINUE."""

    def actions(self) -> set[Action]:
        return {v.action for _, v in self.orders}


def run(copy: Copy, rules: Rules, *, sample_ms: int = 500, at_most_ms: float = 3_600_000) -> Run:
    copy.limit_ms = rules.first_downtime_ms
    state, orders = State(), []
    while not copy.ended and copy.now_ms < at_most_ms:
        copy.advance(sample_ms)
        if copy.ended or copy.finishing:
            continue
        state, verdict = judge(rules, state, copy.sample())
        if verdict.action is not Action.CONTINUE:
            orders.append((copy.now_ms, verdict))
            copy.obey(verdict)
    return Run(copy, state, orders)
