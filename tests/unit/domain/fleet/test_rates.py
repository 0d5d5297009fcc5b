"""The sharing of links: never more than there is, never less than could be sent, and the longest copy first."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sterna.domain.fleet.rates import FLOOR, copies_at_once, least_rate, share

GBIT_S = 125_000_000.0


@dataclass
class Copy:
    left: float
    cap: float
    budgets: tuple[int, ...]
    least: float = 0.0


copies = st.lists(
    st.builds(
        Copy,
        left=st.floats(1, 1e9),
        cap=st.floats(1e6, 1e9),
        budgets=st.lists(st.integers(0, 4), min_size=1, max_size=3, unique=True).map(tuple),
        least=st.floats(0, 1e6),
    ),
    max_size=6,
)
rooms = st.lists(st.floats(0, 2e9), min_size=5, max_size=5)


@given(copies, rooms)
def test_no_budget_is_exceeded_and_none_is_wasted(asked: list[Copy], room: list[float]) -> None:
    free = list(room)
    rates = share(asked, free)
    for budget, whole in enumerate(room):
        used = sum(rate for rate, copy in zip(rates, asked, strict=True) if budget in copy.budgets)
        assert used <= whole + 1
        assert free[budget] == pytest.approx(whole - used, abs=1)
    for rate, copy in zip(rates, asked, strict=True):
        assert 0 <= rate <= copy.cap + 1
        assert rate >= copy.cap - 1 or any(free[budget] < 1 for budget in copy.budgets)


def test_the_longest_copy_gets_its_stream_and_the_next_what_is_left() -> None:
    asked = [Copy(left, 10 * GBIT_S, (0,)) for left in (8e9, 64e9, 32e9)]
    assert share(asked, [15 * GBIT_S]) == [0, 10 * GBIT_S, 5 * GBIT_S]


def test_copies_of_about_the_same_length_share_alike() -> None:
    asked = [Copy(left, 10 * GBIT_S, (0,)) for left in (61e9, 64e9)]
    assert share(asked, [12 * GBIT_S]) == [6 * GBIT_S, 6 * GBIT_S]


def test_every_copy_keeps_what_it_needs() -> None:
    asked = [Copy(64e9, 10 * GBIT_S, (0,), FLOOR), Copy(1e9, 10 * GBIT_S, (0,), FLOOR)]
    assert share(asked, [10 * GBIT_S]) == [10 * GBIT_S - FLOOR, FLOOR]


def test_a_copy_needs_more_than_its_guest_dirties() -> None:
    assert least_rate(10 * GBIT_S, 0) == FLOOR
    assert least_rate(10 * GBIT_S, 4 * GBIT_S) == 5 * GBIT_S
    assert least_rate(10 * GBIT_S, 9 * GBIT_S) == 10 * GBIT_S


@pytest.mark.parametrize("link, stream, copies", [(25, 10, 4), (10, 10, 2), (1, 10, 2), (20, 10, 3)])
def test_a_link_carries_what_fills_it_and_one_more(link: float, stream: float, copies: int) -> None:
    assert copies_at_once(link, stream) == copies
