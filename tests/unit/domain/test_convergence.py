"""Verdicts on simulated and recorded copies: a converging guest is left alone, a hopeless one never outlives its
deadline, the link's dips decide nothing."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from sterna.domain.convergence import ENDINGS, SETTLE_MS, Action, Rules, State, judge
from sterna.domain.copying import JobSample
from sterna.domain.policies import May
from tests.narrowing import not_none
from tests.unit.domain.copy_simulator import MIB, Copy, run, steady

SAMPLE_MS = 500
LINK = 100 * MIB
PUNISHMENTS = {Action.THROTTLE, Action.POSTCOPY, Action.PAUSE, Action.GIVE_UP}
EVERYTHING = frozenset(May)
mays = st.frozensets(st.sampled_from(May))
memories = st.integers(64, 8192).map(lambda m: m * MIB)


def guest(ratio: float, memory: int, share: float = 1.0, link: int = LINK) -> Copy:
    """A guest that dirties `ratio` of the link, within `share` of its memory."""
    return Copy(memory, max(MIB, int(memory * share)), steady(ratio * link), steady(link))


def rules(**more: Any) -> Rules:
    return Rules(**{"first_downtime_ms": 100, "max_downtime_ms": 500} | more)


# ------------------------------------------------------------ a converging guest


@given(st.floats(0, 0.85), memories, st.floats(0.01, 1), mays)
@settings(max_examples=150, deadline=None)
def test_a_converging_guest_is_never_touched(ratio: float, memory: int, share: float, may: frozenset[May]) -> None:
    ended = run(guest(ratio, memory, share), rules(may=may))
    assert ended.copy.ended == "switched"
    assert ended.orders == []
    assert ended.copy.downtime_ms <= 100


@given(st.floats(0.1, 0.7), memories, st.integers(5, 60), st.floats(1, 6), mays)
@settings(max_examples=100, deadline=None)
def test_a_burst_shorter_than_the_patience_is_not_punished(
    ratio: float, memory: int, at_s: int, long_s: float, may: frozenset[May]
) -> None:
    def dirty(ms: float) -> float:
        return LINK * (1.5 if at_s * 1000 <= ms < (at_s + long_s) * 1000 else ratio)

    ended = run(Copy(memory, memory, dirty, steady(LINK)), rules(may=may))
    assert ended.copy.ended == "switched"
    assert not ended.actions() & PUNISHMENTS


@given(st.floats(0.1, 0.5), memories, st.integers(1, 60), st.integers(5, 60), mays)
@settings(max_examples=100, deadline=None)
def test_a_dip_of_the_link_is_not_punished(
    ratio: float, memory: int, at_s: int, long_s: float, may: frozenset[May]
) -> None:
    def link(ms: float) -> float:
        return LINK * (0.3 if at_s * 1000 <= ms < (at_s + long_s) * 1000 else 1)

    ended = run(Copy(memory, memory, steady(ratio * LINK), link), rules(may=may))
    assert ended.copy.ended == "switched"
    assert not ended.actions() & PUNISHMENTS


def test_a_small_rest_that_stays_is_met_with_more_downtime_and_no_more_than_it_needs() -> None:
    copy = guest(3, 1024 * MIB, share=0.02)  # 20 MiB written over and over: 205 ms on this link
    ended = run(copy, rules(may=EVERYTHING))
    assert ended.copy.ended == "switched"
    assert ended.actions() == {Action.RAISE_DOWNTIME}
    assert 205 <= ended.copy.limit_ms <= 300


# ------------------------------------------------------------ a hopeless one


@given(
    st.floats(1.05, 1.5),
    memories,
    st.integers(2, 600),
    mays,
    st.floats(0.2, 1),
    st.sampled_from([100, 250, 500, 1000]),
)
@example(ratio=1.5, memory=1093 * MIB, within_s=11, may=frozenset({May.POSTCOPY}), share=1.0, sample_ms=100)
@settings(max_examples=200, deadline=None)
def test_no_copy_outlives_its_deadline_by_more_than_a_sample(
    ratio: float, memory: int, within_s: float, may: frozenset[May], share: float, sample_ms: int
) -> None:
    deadline = within_s * 1000
    ended = run(guest(ratio, memory, share), rules(may=may, deadline_ms=deadline), sample_ms=sample_ms)
    assert ended.copy.ended
    assert ended.copy.now_ms <= deadline + sample_ms + 20


@given(st.floats(0.2, 1.5), memories, st.integers(2, 600), mays, st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_nor_on_a_link_and_under_a_load_that_jump_about(
    ratio: float, memory: int, within_s: float, may: frozenset[May], seed: int
) -> None:
    noise = [0.4 + (hash((seed, n)) % 1000) / 833 for n in range(97)]

    def link(ms: float) -> float:
        return LINK * noise[int(ms / 3000) % 97]

    def dirty(ms: float) -> float:
        return ratio * LINK * noise[int(ms / 5000 + 31) % 97]

    deadline = within_s * 1000
    ended = run(Copy(memory, memory, dirty, link), rules(may=may, deadline_ms=deadline))
    assert ended.copy.ended
    ordered = [at for at, v in ended.orders if v.action in ENDINGS] or [ended.copy.now_ms]
    assert ordered[0] <= deadline + SAMPLE_MS


@given(st.floats(1.1, 1.5), st.integers(64, 4096), st.floats(0.2, 1), st.sampled_from([May.POSTCOPY, May.PAUSE]))
@settings(max_examples=100, deadline=None)
def test_what_may_be_done_is_done_in_time(ratio: float, memory_mib: int, share: float, may: May) -> None:
    memory = memory_mib * MIB
    needed_ms = memory / LINK * 1000
    deadline = int(needed_ms * 1.5 + 4000)
    ended = run(guest(ratio, memory, share), rules(may=frozenset({may}), deadline_ms=deadline))
    assert ended.copy.ended in ("postcopy", "paused", "switched")
    assert ended.copy.now_ms <= deadline + 20


def test_dirtying_at_1_2_of_the_link_with_60_s_and_postcopy_allowed() -> None:
    ended = run(guest(1.2, 2048 * MIB), rules(may=frozenset({May.POSTCOPY}), deadline_ms=60_000))
    assert (ended.copy.ended, ended.actions()) == ("postcopy", {Action.POSTCOPY})
    assert ended.copy.now_ms <= 60_000


@given(st.floats(1.3, 1.5), st.integers(256, 2048))  # below, its passes end within the allowed downtime
@settings(max_examples=50, deadline=None)
def test_without_a_deadline_and_with_nothing_allowed_it_is_given_up_soon(ratio: float, memory_mib: int) -> None:
    memory = memory_mib * MIB
    ended = run(guest(ratio, memory), rules())
    assert ended.copy.ended == "given-up"
    one_pass_ms = memory / LINK * 1000
    patience_ms = 40_000  # one until all downtime is allowed, whose effect is waited for, two until it is hopeless
    assert ended.copy.now_ms <= 3 * patience_ms + 30 * one_pass_ms
    assert "no other means is permitted" in ended.orders[-1][1].why


def test_throttling_comes_before_postcopy_and_suffices_where_it_can() -> None:
    ended = run(guest(1.4, 512 * MIB), rules(may=EVERYTHING))
    assert ended.copy.ended == "switched"
    assert ended.actions() <= {Action.THROTTLE, Action.RAISE_DOWNTIME}
    steps = [v.throttle_percent for _, v in ended.orders if v.action is Action.THROTTLE]
    assert steps == list(range(20, 20 + 10 * len(steps), 10))


def test_what_cannot_be_in_time_even_with_postcopy_is_given_up_at_the_deadline() -> None:
    ended = run(guest(1.2, 4096 * MIB), rules(may=frozenset({May.POSTCOPY}), deadline_ms=20_000))
    assert (ended.copy.ended, ended.actions()) == ("given-up", {Action.GIVE_UP})


def test_a_switch_that_does_not_happen_is_given_up_at_the_deadline() -> None:
    """The hypervisor does not obey: disks that are still being copied keep libvirt from switching."""
    limits, state, seen = rules(may=frozenset({May.POSTCOPY}), deadline_ms=60_000), State(), []
    copy = guest(1.2, 2048 * MIB)
    while copy.now_ms < 65_000:
        copy.advance(SAMPLE_MS)
        state, verdict = judge(limits, state, copy.sample())
        seen.append((copy.now_ms, verdict.action))
    assert next(a for _, a in seen if a in ENDINGS) is Action.POSTCOPY
    assert next(at for at, a in seen if a is Action.GIVE_UP) <= 60_000 + SAMPLE_MS


def test_the_switch_waits_for_a_moment_when_little_is_left() -> None:
    """A guest that alternates between much and more: post-copy comes in a lull."""

    def dirty(ms: float) -> float:
        return LINK * (3.0 if ms // 15_000 % 2 else 1.05)

    ended = run(Copy(1024 * MIB, 700 * MIB, dirty, steady(LINK)), rules(may=frozenset({May.POSTCOPY})))
    assert ended.copy.ended == "postcopy"
    assert ended.state.best is not None
    left = next(v for _, v in ended.orders if v.action is Action.POSTCOPY)
    assert "has not decreased" in left.why


def test_a_stalls_clock_stops_in_a_dip() -> None:
    """Two passes after the link has come back, the guest has had none of its patience yet."""

    def link(ms: float) -> float:
        return LINK * (0.3 if 2000 <= ms < 60_000 else 1)

    copy, state = Copy(512 * MIB, 512 * MIB, steady(0.5 * LINK), link), State()
    limits = rules(may=EVERYTHING)
    while copy.now_ms < 60_000:
        copy.advance(SAMPLE_MS)
        state, verdict = judge(limits, state, copy.sample())
        assert verdict.action not in PUNISHMENTS, (copy.now_ms, verdict)
    assert state.elapsed_ms - state.best_at_ms < limits.patience / 2


def test_a_link_that_stays_slow_is_a_slow_link() -> None:
    def link(ms: float) -> float:
        return LINK * (0.3 if ms >= 4_000 else 1)

    ended = run(Copy(512 * MIB, 512 * MIB, steady(0.5 * LINK), link), rules(may=frozenset({May.POSTCOPY})))
    assert ended.copy.ended == "postcopy"


# ------------------------------------------------------------ laws over anything

sizes = st.none() | st.integers(0, 2**40)
anything = st.lists(
    st.builds(
        JobSample,
        elapsed_ms=st.none() | st.integers(0, 100_000),
        memory_processed=sizes,
        memory_remaining=sizes,
        iteration=st.none() | st.integers(0, 50),
        throttle_percent=st.none() | st.integers(0, 99),
    ),
    max_size=40,
)


@given(anything, mays, st.none() | st.integers(1, 100_000))
def test_nothing_that_is_not_allowed_is_ever_ordered(
    samples: list[JobSample], may: frozenset[May], deadline: int | None
) -> None:
    limits, state, ended = rules(may=may, deadline_ms=deadline), State(), None
    for sample in samples:
        state, verdict = judge(limits, state, sample)
        assert verdict.why
        assert verdict.action is not Action.POSTCOPY or May.POSTCOPY in may
        assert verdict.action is not Action.PAUSE or May.PAUSE in may
        assert verdict.action is not Action.THROTTLE or May.THROTTLE in may
        assert (verdict.downtime_ms is not None) == (verdict.action is Action.RAISE_DOWNTIME)
        assert verdict.downtime_ms is None or 100 < verdict.downtime_ms <= 500
        if deadline is not None and sample.elapsed_ms is not None and state.elapsed_ms >= deadline:
            assert verdict.action in ENDINGS or sample.elapsed_ms < state.elapsed_ms
        if ended is not None and verdict.action is not Action.CONTINUE:
            late = deadline is not None and state.elapsed_ms >= deadline
            assert verdict == ended or (late and verdict.action is Action.GIVE_UP)  # said once, it stays
        ended = state.ended
        assert State.model_validate_json(state.model_dump_json()) == state


@given(st.floats(0.9, 1.5), st.integers(256, 2048), st.integers(1, 100))
@settings(max_examples=50, deadline=None)
def test_an_agent_that_forgot_everything_still_keeps_the_deadline(
    ratio: float, memory_mib: int, lost_at_s: int
) -> None:
    deadline = 120_000
    copy, state = guest(ratio, memory_mib * MIB), State()
    copy.limit_ms, lost = 100, False
    limits = rules(may=frozenset({May.POSTCOPY}), deadline_ms=deadline)
    while not copy.ended:
        copy.advance(SAMPLE_MS)
        if not lost and copy.now_ms >= lost_at_s * 1000:
            state, lost = State(), True
        if not copy.finishing and not copy.ended:
            state, verdict = judge(limits, state, copy.sample())
            copy.obey(verdict)
    assert copy.now_ms <= deadline + SAMPLE_MS + 20


@given(st.floats(0.8, 1.5), st.integers(64, 1024), st.floats(0.02, 1))
@settings(max_examples=60, deadline=None)
def test_orders_that_can_be_taken_back_have_time_to_show(ratio: float, memory_mib: int, share: float) -> None:
    ended = run(guest(ratio, memory_mib * MIB, share), rules(may=EVERYTHING))
    mild = [at for at, v in ended.orders if v.action not in ENDINGS]
    assert all(b - a >= SETTLE_MS for a, b in itertools.pairwise(mild))


@given(st.floats(0.8, 1.5), st.integers(64, 1024), st.floats(0.02, 1), st.integers(20, 3000))
@settings(max_examples=60, deadline=None)
def test_the_guest_is_never_paused_longer_than_allowed(
    ratio: float, memory_mib: int, share: float, most: int
) -> None:
    limits = Rules(first_downtime_ms=min(100, most), max_downtime_ms=most, may=frozenset({May.THROTTLE}))
    ended = run(guest(ratio, memory_mib * MIB, share), limits)
    assume(ended.copy.ended == "switched")
    assert ended.copy.downtime_ms <= most


# ------------------------------------------------------------ recorded copies

TRACES = Path(__file__).with_name("traces")


def recorded(name: str) -> list[JobSample]:
    """Samples of a real copy, every half second as the agent takes them; README there says of what."""
    lines = json.loads((TRACES / f"{name}.json").read_text())
    return [JobSample.model_validate(line) for line in lines]


def judged(name: str, limits: Rules) -> list[tuple[int, Action]]:
    """(ms, order) of everything but CONTINUE."""
    state = State()
    orders: list[tuple[int, Action]] = []
    for sample in recorded(name):
        state, verdict = judge(limits, state, sample)
        if verdict.action is not Action.CONTINUE:
            orders.append((not_none(sample.elapsed_ms), verdict.action))
    return orders


def test_recorded_a_converging_guest_is_left_alone() -> None:
    measured = 14 * MIB  # libvirt's dirty rate calculation, before the copy
    assert (
        judged("converging", rules(may=EVERYTHING, patience_ms=1000, deadline_ms=15_000, dirty_rate=measured)) == []
    )


def test_recorded_a_hopeless_guest_is_switched_at_the_stall() -> None:
    orders = judged("hopeless", rules(may=frozenset({May.POSTCOPY}), patience_ms=5000))
    assert [action for _, action in orders][:2] == [Action.RAISE_DOWNTIME, Action.POSTCOPY]
    assert 9000 < orders[1][0] < 18_000  # its working set is left for the first time after 4.5 s


@pytest.mark.parametrize("within_s", [8, 12, 16, 20])
def test_recorded_a_hopeless_guest_is_switched_in_time(within_s: int) -> None:
    limits = rules(may=frozenset({May.POSTCOPY}), patience_ms=60_000, deadline_ms=within_s * 1000)
    at_ms, action = next(o for o in judged("hopeless", limits) if o[1] in ENDINGS)
    assert action is Action.POSTCOPY
    assert at_ms + 2400 <= within_s * 1000  # 96 MiB are left at 40 MiB/s


def test_recorded_a_hopeless_guest_without_permissions_is_given_up_at_the_deadline() -> None:
    orders = judged("hopeless", rules(deadline_ms=20_000, max_downtime_ms=300))
    ends = [(at, action) for at, action in orders if action in ENDINGS]
    assert ends[0][1] is Action.GIVE_UP
    assert 15_000 <= ends[0][0] <= 20_500


def test_recorded_qemu_that_slows_the_guest_by_itself_is_given_time() -> None:
    orders = judged("throttled", rules(may=frozenset({May.POSTCOPY}), patience_ms=6000))
    assert not {action for _, action in orders} & PUNISHMENTS
