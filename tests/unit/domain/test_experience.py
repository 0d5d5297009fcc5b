"""What finished migrations teach: forecasts within a tenth after three."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sterna.controller.intents.request import MigrateRequest
from sterna.domain.experience import (
    REMEMBERED,
    Accuracy,
    Actual,
    Experience,
    Outcome,
    Running,
    accuracy,
    outcome_of,
)
from sterna.domain.forecast import (
    JOB_MS,
    SURE,
    SWITCH_MS,
    Forecast,
    Link,
    Load,
    Mode,
    converges,
    forecast,
)
from sterna.domain.journal import Kind
from sterna.domain.objective import Asked
from tests.narrowing import not_none
from tests.unit.domain.copied import LIMIT_MS, copied, measured, memories, took
from tests.unit.domain.copy_simulator import MIB
from tests.unit.domain.journals import MIGRATION, good_destination, good_source


def outcome(vm: str, copy_ms: float, said: Forecast, sent: int, setup_ms: float = 900, **more: Any) -> Outcome:
    actual = Actual(total_ms=copy_ms + setup_ms, copy_ms=copy_ms, downtime_ms=80, bytes_sent=sent)
    return Outcome(vm=vm, source="a", destination="b", forecast=said, actual=actual, **more)


@given(memories, st.integers(20, 1000), st.floats(0, 0.7), st.floats(0.6, 1.5), st.floats(0.8, 1.25))
@settings(max_examples=60, deadline=None)
def test_within_a_tenth_after_three(
    memory: int, link_mib: int, ratio: float, link_error: float, dirty_error: float
) -> None:
    """The link is not what was believed, and the dirty rate is measured wrong: the same way each time."""
    rate = link_mib * MIB
    assume(memory / rate > 2)
    real = copied(memory, memory, ratio * rate, rate)
    load = measured(memory, memory, ratio * rate * dirty_error)
    known = Experience()
    for _ in range(3):
        link = known.link("vm", "a", "b") or Link(bandwidth_bytes_s=int(rate * link_error))
        said = forecast(load, link, Mode.PRECOPY, max_downtime_ms=LIMIT_MS)
        assume(said.ends)
        done = outcome("vm", took(real), said, int(real.sent))
        known = known.learn(done)
    link = not_none(known.link("vm", "a", "b"))
    last = forecast(load, link, Mode.PRECOPY, max_downtime_ms=LIMIT_MS)
    assert abs(not_none(last.total_ms) - (took(real) + 900)) <= 0.10 * (took(real) + 900)


def test_one_odd_migration_changes_little() -> None:
    said = Forecast(mode=Mode.PRECOPY, ends=True, odds=1, total_ms=10_900, copy_ms=10_000, bytes_sent=10**9)
    known = Experience()
    for copy_ms, sent in ((10_000, 1.0), (10_200, 1.02), (9_900, 1.0), (90_000, 9.0), (10_100, 1.01)):
        known = known.learn(outcome("vm", copy_ms, said, int(sent * 10**9)))
    link = not_none(known.link("vm", "a", "b"))
    assert link.correction == pytest.approx(1.0, rel=0.05)
    assert link.bandwidth_bytes_s == pytest.approx(10**8, rel=0.05)
    assert (link.setup_ms, link.switch_ms) == (900, SWITCH_MS)


PLAIN = Forecast(mode=Mode.PRECOPY, ends=True, odds=1)


@pytest.mark.parametrize(
    ("copy_ms", "sent_mib", "memory_mib"),
    [
        (310, 2, 64),  # its few pages were sent in no time
        (700, 3, 64),  # and this was on a host that was busy: 7.5 MiB/s
        (320, 40, 64),  # too short to tell
        (2_000, 60, 16_384),  # a large guest that is nearly all zeros: the time went into reading them
    ],
)
def test_a_copy_that_the_link_did_not_hold_up_says_nothing_of_it(
    copy_ms: int, sent_mib: int, memory_mib: int
) -> None:
    tiny = outcome("vm", copy_ms, PLAIN, sent_mib * MIB, memory_bytes=memory_mib * MIB)
    assert Experience().learn(tiny).link("vm", "a", "b") is None
    real = outcome("other", 300 + 2000, PLAIN, 2 * 540 * MIB, memory_bytes=4096 * MIB)
    known = Experience().learn(real)
    for _ in range(20):
        known = known.learn(tiny)
    assert not_none(known.link("vm", "a", "b")).bandwidth_bytes_s == pytest.approx(540 * MIB, rel=0.01)


@pytest.mark.parametrize(("copy_ms", "sent_mib"), [(300 + 150, 81), (300 + 4000, 20), (60_300, 60)])
def test_one_that_it_did_hold_up_says_how_fast_it_is(copy_ms: int, sent_mib: int) -> None:
    known = Experience().learn(outcome("vm", copy_ms, PLAIN, sent_mib * MIB, memory_bytes=64 * MIB))
    rate = sent_mib * MIB / (copy_ms - 300) * 1000
    assert not_none(known.link("vm", "a", "b")).bandwidth_bytes_s == pytest.approx(rate, rel=0.01)


def test_nor_does_a_short_copy_say_which_share_of_a_limit_is_sent() -> None:
    short = outcome("vm", 340, PLAIN, 4 * MIB, limit_bytes_s=100 * MIB)
    assert (
        not_none(Experience().learn(short).link("vm", "a", "b", bandwidth_bytes_s=10**8)).bandwidth_bytes_s == 10**8
    )


def test_nothing_is_known_of_hosts_that_never_met_but_a_limit_is_a_bandwidth() -> None:
    assert Experience().link("vm", "a", "b") is None
    assert not_none(Experience().link("vm", "a", "b", bandwidth_bytes_s=10**6)).bandwidth_bytes_s == 10**6


@given(st.lists(st.none() | st.floats(-1, 1e12) | st.just(math.inf), max_size=60))
def test_what_is_remembered_stays_small_and_positive(values: list[float | None]) -> None:
    known = Running()
    for value in values:
        known = known.plus(value)
    assert len(known.values) <= REMEMBERED
    assert all(0 < v < math.inf for v in known.values)
    assert known.typical(7) > 0
    assert (known.spread is None) == (len(known.values) < 3)


def test_a_finished_migration_teaches_what_its_journals_say() -> None:
    said = Forecast(mode=Mode.PRECOPY, ends=True, odds=0.9, total_ms=2000, copy_ms=1400, downtime_ms=50)
    entries = good_source().write(Kind.NOTE, "M3", "load", {"forecast": said.model_dump()}).entries
    seen = not_none(outcome_of(MIGRATION, [*entries, *good_destination().entries]))
    assert (seen.vm, seen.source, seen.destination, seen.limit_bytes_s) == (
        MIGRATION.vm_uuid,
        "a",
        "b",
        None,
    )
    assert seen.forecast == said
    assert (seen.actual.copy_ms, seen.actual.downtime_ms, seen.actual.bytes_sent) == (
        1500,
        48,
        300 * MIB,
    )
    assert accuracy([seen], "copy_ms").within_10_percent == 1
    link = not_none(Experience().learn(seen).link(MIGRATION.vm_uuid, "a", "b"))
    assert link.bandwidth_bytes_s == 300 * MIB / ((1500 - JOB_MS) / 1000)


def taught_by_one_limited_to(bytes_s: int, *notes: str) -> Experience:
    """By a copy of 300 MiB in 1.2 s of sending."""
    asked = MigrateRequest(vm="web1", asked=Asked(bandwidth_bytes_s=bytes_s))
    limited = MIGRATION.model_copy(update={"options": asked.options})
    source = good_source()
    for name in notes:
        source.write(Kind.NOTE, "M3", name, {"bandwidth_bytes_s": MIB})
    return Experience().learn(not_none(outcome_of(limited, [*source.entries, *good_destination().entries])))


def link_after(known: Experience, limit: int | None = None) -> int | None:
    link = known.link("another", "a", "b", bandwidth_bytes_s=limit)
    return None if link is None else round(link.bandwidth_bytes_s / MIB)


def test_one_that_its_limit_held_says_nothing_of_the_link_but_how_well_a_limit_is_used() -> None:
    known = taught_by_one_limited_to(260 * MIB)
    assert link_after(known) is None
    assert link_after(known, 130 * MIB) == 125
    assert not_none(known.link("another", "a", "b", bandwidth_bytes_s=MIB)).limited


def test_one_far_below_its_limit_was_held_by_the_link() -> None:
    known = taught_by_one_limited_to(1000 * MIB)
    assert (link_after(known), link_after(known, 1000 * MIB)) == (250, 250)
    assert not not_none(known.link("another", "a", "b", bandwidth_bytes_s=1000 * MIB)).limited


def test_one_that_may_have_been_held_by_either_or_whose_limit_was_changed_says_nothing() -> None:
    for known in (taught_by_one_limited_to(400 * MIB), taught_by_one_limited_to(260 * MIB, "tuned")):
        assert (link_after(known), link_after(known, 100 * MIB)) == (None, 100)


def test_a_vm_that_was_copied_three_times_alike_repeats_itself() -> None:
    """The dirty rate is measured too high by half, as it may be; what copies like it sent says better."""
    true, high = (Load(memory_bytes=1024 * MIB, dirty_bytes=mib * MIB) for mib in (20, 30))
    known, said = Experience(), forecast(true, Link(bandwidth_bytes_s=60 * MIB), Mode.PRECOPY, max_downtime_ms=100)
    for sent in (1500, 1510, 1490):
        link = known.link("vm", "a", "b", bandwidth_bytes_s=60 * MIB)
        assert not_none(forecast(high, not_none(link), Mode.PRECOPY, max_downtime_ms=100).bytes_sent) > 1600 * MIB
        more: dict[str, Any] = {"load": true, "bandwidth_bytes_s": 60 * MIB, "limit_bytes_s": 60 * MIB}
        known = known.learn(outcome("vm", JOB_MS + sent / 60 * 1000, said, sent * MIB, **more))
    link = known.link("vm", "a", "b", bandwidth_bytes_s=60 * MIB)
    seen = forecast(high, not_none(link), Mode.PRECOPY, max_downtime_ms=100)
    assert seen.bytes_sent == pytest.approx(1500 * MIB, rel=0.001)
    assert seen.copy_ms == pytest.approx(JOB_MS + 25_000, rel=0.01)
    busy = true.model_copy(update={"dirty_bytes": 45 * MIB})
    assert (
        not_none(forecast(busy, not_none(link), Mode.PRECOPY, max_downtime_ms=100).bytes_sent) > 2000 * MIB
    )  # not like them
    slow = not_none(known.link("vm", "a", "b", bandwidth_bytes_s=30 * MIB))
    assert not_none(forecast(true, slow, Mode.PRECOPY, max_downtime_ms=100).bytes_sent) > 1600 * MIB


def test_one_unfinished_says_nothing_at_all() -> None:
    assert outcome_of(MIGRATION, good_source().entries) is None


@pytest.mark.parametrize(("dirty_mib", "expected"), [(1, True), (24, None), (200, False)])
def test_a_copy_is_trusted_to_end_by_itself_only_where_that_is_sure(dirty_mib: int, expected: bool | None) -> None:
    load, link = Load(memory_bytes=1024 * MIB, dirty_bytes=dirty_mib * MIB), Link(bandwidth_bytes_s=30 * MIB)
    seen = forecast(load, link, Mode.PRECOPY, max_downtime_ms=LIMIT_MS)
    assert (converges(seen), converges(None)) == (expected, None)
    assert (seen.ends, seen.odds >= SURE) == (expected is not False, expected is True)


def test_accuracy_counts_what_can_be_compared() -> None:
    said = Forecast(mode=Mode.PRECOPY, ends=True, odds=1, total_ms=1000, copy_ms=900)
    never = Forecast(mode=Mode.PRECOPY, ends=False, odds=0)
    known = [outcome("v", c, said, 1, 0) for c in (1050, 1200, 1500)] + [outcome("v", 5, never, 1)]
    seen = accuracy(known)
    assert (seen.compared, seen.within_10_percent, seen.within_25_percent) == (3, 1 / 3, 2 / 3)
    assert seen.median_error == pytest.approx(0.2)
    assert accuracy([]) == Accuracy(compared=0)
