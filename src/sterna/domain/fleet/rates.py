"""How many copies run at once, and how the links are divided among them.

A link carries as many copies as fill it, and one more, which is ready when one ends. Each copy gets what it needs
to get anywhere. The one with the longest time left gets all that its stream reaches, the next what is left. So the
last ones end together, and fewer bytes are sent twice than with equal shares. The links are divided again whenever
a copy begins or ends, and every few seconds between.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

FLOOR = 62_500_000.0
"""Bytes/s, half a gigabit: for every copy that runs, so that its last passes get somewhere."""
HEADROOM = 1.25
"""Of what its guest dirties: a copy that has less gets nowhere, and what it has sent is dirtied again."""

ALIKE = 0.9
"""Copies with at least this share of the longest one's time left share alike, or they would take turns."""
RECUT_S = 10.0
"""How often the links are divided again while a copy has less than its stream reaches: who has the longest time
left changes."""


class Running(Protocol):
    """A copy as the sharing looks at it."""

    left: float
    """Bytes still to send."""
    cap: float
    """Bytes/s that its stream reaches."""
    least: float
    """What it needs to get anywhere. No copy begins where there is not as much for all."""
    budgets: tuple[int, ...]
    """What it takes of: links, uplinks, the fleet."""


def copies_at_once(budget: float, stream: float) -> int:
    """k: as many as fill the budget, and one more."""
    return max(1, math.ceil(budget / stream - 1e-9)) + 1


def least_rate(cap: float, dirty: float) -> float:
    """Bytes/s that a copy needs whose guest dirties so much."""
    return min(cap, max(FLOOR, HEADROOM * dirty))


def share(copies: Sequence[Running], room: list[float]) -> list[float]:
    """Bytes/s for each copy; what they take is taken off `room`, the budgets' free parts."""
    rates: list[float] = []
    for copy in copies:
        rates.append(_take(copy.cap, copy.budgets, room))
        if rates[-1] < copy.cap and len(copies) > 1:
            break
    else:
        return rates
    for rate, copy in zip(rates, copies, strict=False):
        for budget in copy.budgets:
            room[budget] += rate
    rates = [_take(copy.least, copy.budgets, room) for copy in copies]
    times = [copy.left / copy.cap for copy in copies]
    waiting = sorted(range(len(copies)), key=times.__getitem__, reverse=True)
    while waiting:
        alike = [index for index in waiting if times[index] >= ALIKE * times[waiting[0]]]
        _share_alike(alike, copies, rates, room)
        waiting = waiting[len(alike) :]
    return rates


def _share_alike(alike: Sequence[int], copies: Sequence[Running], rates: list[float], room: list[float]) -> None:
    """Equal parts for copies that would end together, and then what some of them could not use."""
    for place, index in enumerate(alike):
        copy = copies[index]
        part = min(room[budget] for budget in copy.budgets) / (len(alike) - place)
        rates[index] += _take(min(part, copy.cap - rates[index]), copy.budgets, room)
    for index in alike:
        copy = copies[index]
        rates[index] += _take(copy.cap - rates[index], copy.budgets, room)


def _take(rate: float, budgets: Sequence[int], room: list[float]) -> float:
    for budget in budgets:
        rate = min(rate, room[budget])
    if rate <= 0:
        return 0.0
    for budget in budgets:
        room[budget] -= rate
    return rate
