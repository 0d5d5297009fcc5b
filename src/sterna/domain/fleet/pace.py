"""How long a VM's copy takes: bytes to send at a rate, while the guest dirties others.

At a rate of b bytes/s, a guest that dirties d bytes/s has what is left shrink by b - d. A copy that does not
converge so is ended by what is permitted: in the worst case of post-copy or a pause, all memory is sent twice.
"""

from __future__ import annotations

import math
from statistics import NormalDist

from sterna.domain.convergence import CONVERGES_BELOW
from sterna.domain.fleet.operations import Mays
from sterna.domain.fleet.rates import least_rate
from sterna.domain.fleet.snapshot import SOME_LINK, Host
from sterna.domain.fleet.tables import Tables
from sterna.domain.policies import May

TWICE = 0.5
"""Of the rate: what a copy advances at least that may switch to post-copy or pause its guest."""
THROTTLED = 0.25
"""The same of one whose guest may be throttled only: QEMU slows it down step by step. One without permissions is
taken for a copy that just converges: the planner plans no other."""
GUESSED = 0.5
"""Of what its host sends: more is not assumed of a guest that was never measured."""
MEDIAN, PROMISED = 0.5, 0.8
"""Quantiles of the dirty rates: as likely more as less; and what a promise is made with."""


class Paces:
    """Links, streams, and each VM's dirty rate at a quantile."""

    def __init__(self, tables: Tables, may: Mays = frozenset(), quantile: float = MEDIAN) -> None:
        limits = tables.snapshot.limits
        sigmas = NormalDist().inv_cdf(quantile)
        self.tables = tables
        self.out = [_link(host, host.out_bytes_s) for host in tables.hosts]
        self.into = [_link(host, host.in_bytes_s) for host in tables.hosts]
        self.stream = [
            min(host.stream_bytes_s or max(self.out[h], self.into[h]), max(self.out[h], self.into[h]))
            for h, host in enumerate(tables.hosts)
        ]
        self.size = [float(vm.copied_bytes) for vm in tables.vms]
        self.dirty = [
            self._guess(v) * math.exp(sigmas * limits.usual_spread)
            if vm.dirty_bytes_s is None
            else vm.dirty_bytes_s * math.exp(sigmas * vm.spread)
            for v, vm in enumerate(tables.vms)
        ]
        self.helped = bool(may)
        """A copy that does not converge is ended some way."""
        self.floor = least_advance(may)
        self.fixed_s = limits.prepare_s + limits.job_s + limits.finish_s

    def _guess(self, v: int) -> float:
        """The dirty rate of a VM that was never measured. Nothing keeps it on its host that nobody has seen."""
        home = self.tables.home[v]
        best = min(self.stream[home], self.out[home])
        return min(self.tables.snapshot.limits.usual_dirty_bytes_s, GUESSED * best)

    def cap(self, source: int, target: int) -> float:
        """The most that one copy between the two reaches."""
        return min(self.stream[source], self.stream[target], self.out[source], self.into[target])

    def advance(self, v: int, rate: float) -> float:
        """By how much what is left shrinks in a second. Negative where nothing is sent."""
        net = rate - self.dirty[v]
        return max(net, rate * self.floor) if rate else net

    def least(self, v: int, cap: float) -> float:
        """The least rate at which its copy gets anywhere. One that may switch to post-copy does so at any."""
        return least_rate(cap, 0.0 if self.floor >= THROTTLED else self.dirty[v])

    def alone_s(self, v: int, rate: float) -> float:
        """Its copy at this rate, without what is fixed. Infinite where it does not converge."""
        if not self.converges(v, rate):
            return math.inf
        return self.size[v] / self.advance(v, rate)

    def sent(self, v: int, rate: float) -> float:
        """Bytes that its copy sends at this rate."""
        return self.alone_s(v, rate) * rate

    def converges(self, v: int, rate: float) -> bool:
        """Does the copy end at this rate, with what is permitted?"""
        return self.helped or self.dirty[v] < CONVERGES_BELOW * rate

    def in_s(self, v: int, h: int) -> float:
        """How long a host's link is busy with its arrival."""
        return self.size[v] / self.into[h]


def least_advance(may: Mays) -> float:
    """Of the rate: what a copy advances at least with these permissions."""
    if may & {May.POSTCOPY, May.PAUSE}:
        return TWICE
    return THROTTLED if May.THROTTLE in may else 1 - CONVERGES_BELOW


def _link(host: Host, known: int | None) -> float:
    """Bytes/s. Where it is not known: what one stream was seen to reach, else what any link has."""
    return float(known or host.stream_bytes_s or SOME_LINK)
