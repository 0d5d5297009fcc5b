"""Forecasts against simulated copies: within a quarter before the first migration."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sterna.domain.forecast import (
    JOB_MS,
    SWITCH_MS,
    Forecast,
    Link,
    Load,
    Mode,
    forecast,
    forecasts,
)
from sterna.domain.working_set import working_set, writes_in_turn
from tests.narrowing import not_none
from tests.unit.domain.copied import LIMIT_MS, copied, links, measured, memories, took
from tests.unit.domain.copy_simulator import MIB, Copy, steady


def forecast_over(load: Load, link: int, mode: Mode = Mode.PRECOPY, **more: Any) -> Forecast:
    return forecast(load, Link(bandwidth_bytes_s=link, **more), mode, max_downtime_ms=LIMIT_MS)


# ------------------------------------------------------------ against simulated copies


GRID = [
    (memory * MIB, link * MIB, ratio, share)
    for memory, link, ratio, share in itertools.product(
        (256, 1024, 4096, 16384),
        (40, 100, 1000),
        (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
        (0.02, 0.1, 0.25, 0.5, 1),
    )
    if memory / link > 1  # below a second the start counts for more than the copy
]


def test_nine_of_ten_within_a_quarter_before_the_first_migration() -> None:
    good = 0
    for memory, link, ratio, share in GRID:
        copy = copied(memory, int(memory * share), ratio * link, link)
        seen = forecast_over(measured(memory, int(memory * share), ratio * link), link)
        good += seen.ends and abs(not_none(seen.copy_ms) - took(copy)) <= 0.25 * took(copy)
    assert good >= 0.9 * len(GRID), f"{good} of {len(GRID)}"


@given(memories, links, st.floats(0, 0.8), st.floats(0.02, 1))
@settings(max_examples=50, deadline=None)
def test_all_within_a_tenth_where_the_working_set_is_known(
    memory: int, link: int, ratio: float, share: float
) -> None:
    size = max(MIB, int(memory * share))
    assume(memory / link > 1)
    copy = copied(memory, size, ratio * link, link)
    dirty = int(size * (1 - math.exp(-ratio * link / size)))
    seen = forecast_over(Load(memory_bytes=memory, dirty_bytes=dirty, working_set_bytes=size), link)
    assert copy.ended == "switched"
    assert seen.ends
    assert abs(not_none(seen.copy_ms) - took(copy)) <= 0.10 * took(copy) + LIMIT_MS
    assert abs(not_none(seen.bytes_sent) - copy.sent) <= 0.10 * copy.sent + link * LIMIT_MS / 1000
    assert not_none(seen.downtime_ms) <= LIMIT_MS + 60


@given(memories, links, st.floats(1.5, 3))
@settings(max_examples=60, deadline=None)
def test_what_does_not_converge_is_forecast_not_to(memory: int, link: int, ratio: float) -> None:
    assume(memory / link > 2)
    seen = forecast_over(measured(memory, memory, ratio * link), link)
    assert not seen.ends
    assert seen.odds < 0.5
    assert seen.total_ms is None
    assert "MiB" in seen.why


@given(memories, links, st.floats(1.2, 3))
@settings(max_examples=60, deadline=None)
def test_a_guest_that_is_stopped_or_fetched_after_always_ends(memory: int, link: int, ratio: float) -> None:
    assume(memory / link > 2)
    load = measured(memory, memory, ratio * link)
    for mode in (Mode.POSTCOPY, Mode.PAUSE):
        seen = forecast_over(load, link, mode)
        assert (seen.ends, seen.odds) == (True, 1.0)
    copy = Copy(memory, memory, steady(ratio * link), steady(link), limit_ms=LIMIT_MS)
    copy.step_ms = memory / link
    while copy.iteration == 1:
        copy.advance(copy.step_ms)
    copy.finishing = "postcopy"
    copy.advance(3_600_000)
    assert abs(not_none(forecast_over(load, link, Mode.POSTCOPY).copy_ms) - took(copy)) <= 0.25 * took(copy)


def test_the_recorded_copies_are_forecast() -> None:
    """Real ones, README in traces/: 164 MiB of 384 had been touched; measured just before, 14 and 84 MiB/s."""
    facts: dict[str, Any] = {"memory_bytes": 384 * MIB, "allocated_bytes": 164 * MIB}
    quiet = forecast_over(Load(**facts, dirty_bytes=14 * MIB), 40 * MIB)
    assert quiet.copy_ms == pytest.approx(5500, rel=0.25)  # 1.35 s to 6.72 s in converging.json
    assert quiet.bytes_sent == pytest.approx(222 * MIB, rel=0.25)
    assert not forecast_over(Load(**facts, dirty_bytes=84 * MIB), 40 * MIB).ends


# ------------------------------------------------------------ laws

loads = st.builds(
    Load,
    memory_bytes=memories,
    allocated_bytes=st.none() | memories,
    dirty_bytes=st.integers(0, 2**34),
    dirty_period_s=st.floats(0.1, 10),
    working_set_bytes=st.none() | memories,
    disk_bytes=st.integers(0, 2**36),
)


@given(loads, links, st.sampled_from(Mode), st.integers(1, 5000))
@settings(max_examples=100, deadline=None)
def test_every_number_makes_sense(load: Load, link: int, mode: Mode, most: int) -> None:
    seen = forecast(load, Link(bandwidth_bytes_s=link), mode, max_downtime_ms=most)
    assert 0 <= seen.odds <= 1
    assert seen.ends == (seen.total_ms is not None)
    assert seen.ends or seen.why
    if seen.ends:
        assert not_none(seen.total_ms) >= not_none(seen.copy_ms) >= 0
        assert not_none(seen.bytes_sent) >= load.touched + load.disk_bytes
        assert not_none(seen.copy_ms) >= (load.touched + load.disk_bytes) / link * 1000 * 0.999 - 1
    assert Forecast.model_validate_json(seen.model_dump_json()) == seen


@given(loads, links, st.integers(10, 3000))
@settings(max_examples=60, deadline=None)
def test_a_faster_link_is_never_slower_nor_less_likely(load: Load, link: int, most: int) -> None:
    slow = forecast(load, Link(bandwidth_bytes_s=link), Mode.PRECOPY, max_downtime_ms=most)
    fast = forecast(load, Link(bandwidth_bytes_s=2 * link), Mode.PRECOPY, max_downtime_ms=most)
    assert fast.odds >= slow.odds - 0.01
    if slow.ends:
        assert fast.ends
        assert not_none(fast.total_ms) <= not_none(slow.total_ms) + 1


@given(loads, links, st.floats(1, 100))
@settings(max_examples=60, deadline=None)
def test_a_deadline_makes_nothing_more_likely(load: Load, rate: int, within_s: float) -> None:
    link = Link(bandwidth_bytes_s=rate)
    for free, bound in zip(
        forecasts(load, link, max_downtime_ms=300),
        forecasts(load, link, max_downtime_ms=300, within_s=within_s),
        strict=True,
    ):
        assert bound.odds <= free.odds
        assert bound.total_ms == free.total_ms


def test_odds_are_even_where_it_is_on_the_edge_and_sure_far_from_it() -> None:
    def odds(ratio: float) -> float:
        return forecast_over(measured(4096 * MIB, 4096 * MIB, ratio * 100 * MIB), 100 * MIB).odds

    assert odds(0.2) > 0.99
    assert odds(5) < 0.01
    assert odds(0.5) > odds(0.9) > odds(1.1) > odds(2)
    assert 0.2 < odds(1.05) < 0.8


def test_throttling_helps_a_guest_that_writes_too_much_and_says_how_much_it_needs() -> None:
    load = measured(2048 * MIB, 2048 * MIB, 140 * MIB)
    assert not forecast_over(load, 100 * MIB).ends
    slowed = forecast_over(load, 100 * MIB, Mode.THROTTLE)
    assert slowed.ends
    assert "slowed down by" in slowed.why


def test_memory_never_touched_costs_nothing() -> None:
    whole, touched = Load(memory_bytes=2**34), Load(memory_bytes=2**34, allocated_bytes=2**30)
    assert (not_none(forecast_over(touched, 100 * MIB).copy_ms) - JOB_MS) * 15.9 < not_none(
        forecast_over(whole, 100 * MIB).copy_ms
    )


@given(st.integers(10, 4096), st.floats(5, 500))
def test_the_working_set_from_two_windows(size_mib: int, written_mib: float) -> None:
    size, written = size_mib * MIB, written_mib * MIB
    windows = [(t, int(size * (1 - math.exp(-written * t / size)))) for t in (1, 5)]
    found = working_set(*windows)
    if found is not None:
        assert found == pytest.approx(size, rel=0.02)
    else:
        assert written * 5 < size  # it had not come round once


def test_a_guest_that_writes_its_pages_in_turn_is_told_from_one_that_picks_them() -> None:
    touched, once = 364 * MIB, (1, 35 * MIB)
    at_random = int(touched * (1 - (1 - 35 / 364) ** 4))
    assert not writes_in_turn(once, (4, at_random), touched)
    assert writes_in_turn(once, (4, 139 * MIB), touched)
    assert not writes_in_turn((1, MIB), (4, 4 * MIB), 2**34)  # so little that both are the same
    load = Load(memory_bytes=touched, dirty_bytes=140 * MIB, dirty_period_s=4, in_turn=True)
    assert (load.dirtied(2), load.dirtied(60)) == (70 * MIB, touched)


def test_a_copy_begins_with_little_downtime_and_has_more_only_where_it_gets_nowhere() -> None:
    easy = Load(memory_bytes=1024 * MIB, dirty_bytes=40 * MIB)
    eager, patient = (prospects(easy, first) for first in (500, 100))
    assert not_none(patient.downtime_ms) <= 100 + SWITCH_MS < not_none(eager.downtime_ms)
    assert not_none(patient.passes) > not_none(eager.passes) and not_none(patient.bytes_sent) > not_none(
        eager.bytes_sent
    )
    stuck = Load(memory_bytes=1024 * MIB, dirty_bytes=19 * MIB, dirty_period_s=0.05, working_set_bytes=20 * MIB)
    seen = prospects(stuck, 100)
    assert seen.ends
    assert seen.downtime_ms == pytest.approx(200 + SWITCH_MS, rel=0.05)


def prospects(load: Load, first_ms: int) -> Forecast:
    """Over 100 MiB/s, with at most half a second of downtime."""
    link = Link(bandwidth_bytes_s=100 * MIB)
    return forecast(load, link, Mode.PRECOPY, max_downtime_ms=500, first_downtime_ms=first_ms)
