"""What is done to a simulated copy that gets nowhere: the rules of `sterna.domain.convergence`, in short. Pure."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum

from bench.fleetsim.links import Copy
from sterna.domain.policies import May

PROGRESS = 0.96
"""A new minimum of what is left is at most this share of the old one."""
FIRST, STEP, MOST = 0.2, 0.1, 0.99
"""Throttling."""
SETTLE_S = 3.0
"""Between two steps of it."""


class Act(StrEnum):
    """What is done."""

    NOTHING = ""
    THROTTLE = "throttle"
    POSTCOPY = "postcopy"
    PAUSE = "pause"
    GIVE_UP = "give-up"


class Steering:
    """Of one copy."""

    def __init__(self, may: Collection[May], patience_s: float, compress: float, *, stubborn: bool = False) -> None:
        self._may, self._patience_s = may, patience_s / compress
        self._settle_s, self._stubborn = SETTLE_S / compress, stubborn
        self._best, self._best_s = float("inf"), 0.0
        self.throttled = 0.0
        self._order_s = float("-inf")

    def judge(self, copy: Copy) -> Act:
        """What to do now; `copy` is throttled here where that is it."""
        if copy.left < PROGRESS * self._best:
            self._best, self._best_s = copy.left, copy.elapsed_s
            return Act.NOTHING
        stalled_s = copy.elapsed_s - self._best_s
        if stalled_s < self._patience_s or copy.elapsed_s - self._order_s < self._settle_s:
            return Act.NOTHING
        for may, act in ((May.POSTCOPY, Act.POSTCOPY), (May.PAUSE, Act.PAUSE)):
            if may in self._may and (May.THROTTLE not in self._may or self.throttled >= MOST):
                return act
        if May.THROTTLE in self._may and self.throttled < MOST:
            self.throttled = min(MOST, self.throttled + STEP) if self.throttled else FIRST
            self._order_s = copy.elapsed_s
            if not self._stubborn:
                copy.slowed = self.throttled
            return Act.THROTTLE
        return Act.GIVE_UP if stalled_s >= 2 * self._patience_s else Act.NOTHING
