"""The end of a plan with dirty rates that are not known: by when it is over, with a given probability.

Two things make it late. A busy link: the rates of all VMs of a host add up, so a few sets of drawn rates say
enough. One long copy: among five hundred VMs there is one whose guest has a rate that one in a hundred exceeds. No
small number of draws has that, so it is calculated for each VM. A copy that begins late ends late: when it begins
is taken from the moves played through.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from operator import add
from statistics import NormalDist

from sterna.domain.fleet.pace import Paces
from sterna.domain.fleet.simulation import Job

DRAWS = 31
"""Sets of dirty rates. Each VM's distribution is cut into as many parts, and each set has another one. A prime."""
SHUFFLES = 29
"""Orders of these parts, made of powers modulo the prime. Further VMs have one of them, begun somewhere else."""
CLOSE = 1e-3
"""Of the expected end: how well the quantile is found."""
_NORMAL = NormalDist()


def end_with(probability: float, jobs: Sequence[Job], expected_s: float, paces: Paces) -> float:
    """Seconds by which all moves are over with this probability; at least `expected_s`, when the last of `jobs`, as
    they were played through, has ended."""
    links = _link_ends(jobs, expected_s, paces)
    copies = [copy for job in jobs if (copy := _copy(job, paces)).worst_s > expected_s]
    early, late = expected_s, max([expected_s, links[-1], *(copy.worst_s for copy in copies)])
    while late - early > CLOSE * expected_s:
        middle = (early + late) / 2
        in_time = sum(end <= middle for end in links) / len(links)
        if in_time * math.prod(copy.ended_by(middle) for copy in copies) >= probability:
            late = middle
        else:
            early = middle
    return late


@dataclass(frozen=True, slots=True)
class _Copy:
    """One copy, by the rate at which its guest dirties memory."""

    size: float
    """Bytes to send."""
    cap: float
    """Bytes/s that its stream reaches."""
    dirty: float
    """Bytes/s, the median."""
    spread: float
    """Of the logarithm of the rate: standard deviation."""
    rest_s: float
    """Its end, without the copy alone: when it begins, what is fixed, and what it waits for on shared links."""
    worst_s: float
    """Its end where it is helped to converge."""

    def ended_by(self, at_s: float) -> float:
        """The probability that it has."""
        if at_s >= self.worst_s:
            return 1.0
        if at_s <= self.rest_s:
            return 0.0
        bearable = self.cap - self.size / (at_s - self.rest_s)
        if bearable <= 0:
            return 0.0
        if not self.spread or not self.dirty:
            return float(self.dirty <= bearable)
        return _NORMAL.cdf(math.log(bearable / self.dirty) / self.spread)


def _copy(job: Job, paces: Paces) -> _Copy:
    size, dirty, least = job.to_send, paces.dirty[job.v], job.cap * paces.floor
    rest_s = job.end_s - size / max(job.cap - dirty, least)
    return _Copy(size, job.cap, dirty, _spread(job, paces), rest_s, rest_s + size / least)


def _link_ends(jobs: Sequence[Job], expected_s: float, paces: Paces) -> list[float]:
    """Seconds after which the busiest link is free, for each set of drawn rates, sorted.

    How far a plan is above its lower bound depends little on the rates: the expected end grows as the bound does.
    """
    drawn: dict[int, list[float]] = {}
    usual: dict[int, float] = {}
    longest = 0.0
    for number, job in enumerate(jobs):
        shuffled = _factors(_spread(job, paces))[number % SHUFFLES]
        first = number // SHUFFLES % DRAWS
        dirty, least, part = (
            paces.dirty[job.v],
            job.cap * paces.floor,
            job.to_send * job.cap / paces.out[job.source],
        )
        busy = [part / max(job.cap - dirty * factor, least) for factor in (*shuffled[first:], *shuffled[:first])]
        before = drawn.get(job.source)
        drawn[job.source] = busy if before is None else list(map(add, before, busy))
        alone = 1 / max(job.cap - dirty, least)
        usual[job.source] = usual.get(job.source, 0.0) + part * alone
        longest = max(longest, job.to_send * alone)
    bound = paces.fixed_s + max([longest, *usual.values()])
    ends = (paces.fixed_s + max(busy) for busy in zip(*drawn.values(), strict=True))
    return sorted(expected_s * max(1.0, end / bound) for end in ends) or [expected_s]


def _spread(job: Job, paces: Paces) -> float:
    vm = paces.tables.vms[job.v]
    return paces.tables.snapshot.limits.usual_spread if vm.dirty_bytes_s is None else vm.spread


@cache
def _factors(spread: float) -> tuple[tuple[float, ...], ...]:
    """The parts of the distribution, in several orders that have little to do with each other."""
    parts = [math.exp(spread * _NORMAL.inv_cdf((part + 0.5) / DRAWS)) for part in range(DRAWS)]
    return tuple(
        tuple(parts[step * pow(draw + step, 7, DRAWS) % DRAWS] for draw in range(DRAWS))
        for step in range(1, SHUFFLES + 1)
    )
