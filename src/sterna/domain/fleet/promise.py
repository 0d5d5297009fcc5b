"""The promised end: what is expected, made longer by how much worse the dirty rates may be.

The expected end comes from the moves played through. How far a plan is above its lower bound depends little on the
dirty rates, so only the bound is calculated for other rates, and the expected end grows as the bound does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from operator import add
from statistics import NormalDist

from sterna.domain.fleet.budgets import Budgets
from sterna.domain.fleet.pace import TWICE, Paces
from sterna.domain.fleet.plans import Help, Promise
from sterna.domain.fleet.schedule import Planned, play
from sterna.domain.fleet.simulation import Job

DRAWS = 31
"""Sets of dirty rates. Each VM's distribution is cut into as many parts, and each set has another one. A prime."""
SHUFFLES = 29
"""Orders of these parts, made of powers modulo the prime. Further VMs have one of them, begun somewhere else."""
QUANTILE = 0.9
"""Of the bounds. A promise made with the 80th percentile of the bounds was kept in 69 of 99 simulated drains: the
schedule adds to what the bound knows."""
HELPED_VMS = 3
"""VMs that end last, for which is asked what would help."""
ALONE = 0.9
"""Of the expected end: a copy that takes longer by itself decides it, not its host's link."""
GIB, MIB = 1 << 30, 1 << 20
WORTH = 0.02
"""Of the promise: less help is not mentioned."""


def promise(moves: Sequence[Planned], paces: Paces) -> tuple[Promise, list[Job]]:
    """The promise, and the moves as they are expected to run."""
    budgets = Budgets(paces)
    expected, played = play(moves, budgets, paces)
    longer = stretch(played, paces)
    made = Promise(
        expected_s=round(expected, 1),
        promised_s=round(expected * longer, 1),
        waits_for=_waits_for(played, expected, paces, budgets),
        helps=_helps(moves, played, expected, paces),
    )
    return made, played


def _waits_for(jobs: Sequence[Job], expected: float, paces: Paces, budgets: Budgets) -> str:
    """The move that ends last, or what it shares that is busiest until then."""
    last = max(jobs, key=lambda job: job.end_s, default=None)
    if last is None:
        return ""
    vm, host = paces.tables.vms[last.v], paces.tables.hosts[last.source]
    if paces.alone_s(last.v, last.cap) >= ALONE * expected:
        dirties = f", and it dirties {paces.dirty[last.v] / MIB:.0f} MiB/s"
        return f"{vm.name} ends last: {last.size / GIB:.1f} GiB are copied from {host.name}{dirties}"
    load = {budget: [job.size for job in jobs if budget in job.budgets] for budget in last.budgets}
    busiest = max(load, key=lambda budget: (sum(load[budget]) / budgets.room[budget], -budget))
    size, rate = sum(load[busiest]) / GIB, budgets.room[busiest] / MIB
    return f"{budgets.names[busiest]} is busy longest: {size:.1f} GiB at {rate:.0f} MiB/s; {vm.name} ends last"


def _helps(moves: Sequence[Planned], jobs: Sequence[Job], expected: float, paces: Paces) -> tuple[Help, ...]:
    """Whether permission for post-copy for one of the last VMs would end all sooner, and by how much."""
    if paces.floor >= TWICE:
        return ()
    last = sorted(jobs, key=lambda job: -job.end_s)[:HELPED_VMS]
    found = []
    for job in last:
        if paces.dirty[job.v] <= TWICE * job.cap:
            continue
        before, paces.dirty[job.v] = paces.dirty[job.v], TWICE * job.cap
        sooner, _ = play(moves, Budgets(paces), paces)
        paces.dirty[job.v] = before
        gain = expected - sooner
        if gain > WORTH * expected:
            sentence = f"post-copy for {paces.tables.vms[job.v].name}: {gain:.0f} s sooner"
            found.append(Help(sentence=sentence, gain_s=round(gain, 1)))
    return tuple(sorted(found, key=lambda one: -one.gain_s))


def stretch(jobs: Sequence[Job], paces: Paces) -> float:
    """How much longer it takes with dirty rates that are exceeded seldom. At least 1."""
    if not jobs:
        return 1.0
    usual_spread, vms = paces.tables.snapshot.limits.usual_spread, paces.tables.vms
    drawn, usual = _Bound(DRAWS, paces.fixed_s), _Bound(1, paces.fixed_s)
    for number, job in enumerate(jobs):
        vm = vms[job.v]
        factors = _factors(usual_spread if vm.dirty_bytes_s is None else vm.spread)
        cap, dirty, least = job.cap, paces.dirty[job.v], job.cap * paces.floor
        size = job.left if job.begun else job.size
        shuffled = factors[number % SHUFFLES]
        first = number // SHUFFLES % DRAWS
        alone = [size / max(cap - dirty * factor, least) for factor in (*shuffled[first:], *shuffled[:first])]
        link = cap / paces.out[job.source]
        drawn.add(job.source, alone, link)
        usual.add(job.source, [size / max(cap - dirty, least)], link)
    bounds = sorted(drawn.seconds())
    return max(1.0, bounds[math.ceil(QUANTILE * DRAWS) - 1] / usual.seconds()[0])


class _Bound:
    """Egress and the largest copy, for each draw."""

    def __init__(self, draws: int, fixed_s: float) -> None:
        self.fixed_s = fixed_s
        self.largest = [0.0] * draws
        self.egress: dict[int, list[float]] = {}

    def add(self, source: int, alone: Sequence[float], link: float) -> None:
        """A copy that takes so long alone, and that much of its source's link."""
        self.largest = list(map(max, self.largest, alone))
        before = self.egress.get(source)
        more = [seconds * link for seconds in alone]
        self.egress[source] = more if before is None else list(map(add, before, more))

    def seconds(self) -> list[float]:
        """The bound of each draw."""
        return [self.fixed_s + most for most in map(max, self.largest, *self.egress.values())]


@cache
def _factors(spread: float) -> tuple[tuple[float, ...], ...]:
    """The parts of the distribution, in several orders that have little to do with each other."""
    parts = [math.exp(spread * NormalDist().inv_cdf((part + 0.5) / DRAWS)) for part in range(DRAWS)]
    return tuple(
        tuple(parts[step * pow(draw + step, 7, DRAWS) % DRAWS] for draw in range(DRAWS))
        for step in range(1, SHUFFLES + 1)
    )
