"""How much of a guest's memory it writes to again and again, from two looks at its dirty pages. Pure."""

from __future__ import annotations

COMES_ROUND = 0.95
"""A longer window that dirtied less than this share of what the short one promised has met its own pages again."""


def working_set(first: tuple[float, int], second: tuple[float, int]) -> int | None:
    """The working set in bytes from what was dirtied in a short and a long window, each (seconds, different bytes).

    None where the longer one shows no sign of an end: it is at least that large, and may be all.
    """
    (t1, u1), (t2, u2) = sorted((first, second))
    if t1 <= 0 or u1 <= 0 or t2 <= t1 or u2 >= COMES_ROUND * u1 * t2 / t1:
        return None
    low, high = float(max(u1, u2)) * 1.001, float(max(u1, u2)) * 1000
    for _ in range(60):  # what it would dirty in t2 grows with its size
        size = (low + high) / 2
        expected = size * (1 - (1 - u1 / size) ** (t2 / t1))
        low, high = (size, high) if expected < u2 else (low, size)
    return int(high)


def writes_in_turn(first: tuple[float, int], second: tuple[float, int], touched: int) -> bool:
    """From the same two windows: did the longer one dirty more than a guest that picks any page of the `touched`
    bytes would have, nearer to what one that takes them in turn does? False where the two cannot be told apart."""
    (t1, u1), (t2, u2) = sorted((first, second))
    if t1 <= 0 or t2 <= t1 or not 0 < u1 < touched:
        return False
    evenly = u1 * t2 / t1
    at_random = float(touched * (1 - (1 - u1 / touched) ** (t2 / t1)))
    return at_random < COMES_ROUND * evenly and u2 > (at_random + evenly) / 2
