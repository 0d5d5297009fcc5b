from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sterna.domain.copying import JobSample
from sterna.domain.progress import Progress, with_sample, with_status
from sterna.domain.status import Status
from tests.narrowing import not_none
from tests.unit.domain.copy_simulator import Copy, steady

MIB = 2**20
sizes = st.none() | st.integers(0, 2**42)
samples = st.builds(
    JobSample,
    elapsed_ms=st.none() | st.integers(0, 10**7),
    memory_total=sizes,
    memory_processed=sizes,
    memory_remaining=sizes,
    memory_rate=sizes,
    dirty_rate=sizes,
    iteration=st.none() | st.integers(0, 100),
    disk_total=sizes,
    disk_processed=sizes,
    disk_remaining=sizes,
)
feeds = st.lists(samples | st.sampled_from(list(Status)), max_size=40)


def fed(*items: JobSample | Status) -> Progress:
    progress = Progress()
    for item in items:
        progress = with_status(progress, item) if isinstance(item, Status) else with_sample(progress, item)
    return progress


@given(feeds)
def test_percent_never_runs_backwards_and_is_100_only_when_completed(items: list[JobSample | Status]) -> None:
    progress = Progress()
    completed = False
    for item in items:
        before = progress.percent
        progress = with_status(progress, item) if isinstance(item, Status) else with_sample(progress, item)
        completed = completed or item is Status.COMPLETED
        assert before <= progress.percent <= 100
        assert (progress.percent == 100) <= completed
        assert (progress.eta_s is None) == bool(progress.eta_reason)
        assert progress.eta_s is None or progress.eta_s >= 0
        assert progress.rate_bytes_s is None or progress.rate_bytes_s >= 0


@given(samples)
def test_the_same_sample_twice_changes_nothing(sample: JobSample) -> None:
    once = fed(Status.PREPARING, Status.MIGRATING, sample)
    if sample.elapsed_ms is not None:
        assert with_sample(once, sample) == once


def test_a_quiet_guest_goes_straight_to_the_end() -> None:
    first = JobSample(
        elapsed_ms=1000,
        memory_total=1000 * MIB,
        memory_processed=500 * MIB,
        memory_remaining=500 * MIB,
        memory_rate=500 * MIB,
    )
    progress = fed(Status.PREPARING, Status.MIGRATING, first)
    assert progress.percent == 50.0
    assert (progress.eta_s, progress.eta_reason) == (1.0, "")
    assert progress.bytes_processed == 500 * MIB


def test_pages_of_zeros_count_as_done() -> None:
    sample = JobSample(elapsed_ms=1, memory_total=1000, memory_processed=10, memory_remaining=100)
    assert fed(Status.MIGRATING, sample).percent > 80


def test_a_guest_that_writes_faster_than_the_link_has_no_eta_and_says_why() -> None:
    sample = JobSample(
        elapsed_ms=1000, memory_total=100, memory_processed=50, memory_remaining=50, memory_rate=10, dirty_rate=20
    )
    progress = fed(Status.MIGRATING, sample)
    assert progress.eta_s is None and "faster" in progress.eta_reason


def test_dirtying_makes_the_estimate_longer() -> None:
    facts = {"elapsed_ms": 1000, "memory_processed": 50, "memory_remaining": 100, "memory_rate": 10}
    quiet, busy = fed(Status.MIGRATING, JobSample(**facts)), fed(Status.MIGRATING, JobSample(**facts, dirty_rate=5))
    assert quiet.eta_s is not None and busy.eta_s is not None and busy.eta_s == 2 * quiet.eta_s
    assert busy.percent < quiet.percent


def test_disks_are_sent_once_however_much_memory_is_dirtied() -> None:
    sample = JobSample(
        elapsed_ms=1000, memory_remaining=100, memory_rate=10, dirty_rate=5, disk_remaining=100, disk_total=200
    )
    assert fed(Status.MIGRATING, sample).eta_s == 30


def test_the_promised_end_is_counted_down_to() -> None:
    first = JobSample(elapsed_ms=1000, memory_remaining=1000, memory_rate=100)
    second = JobSample(
        elapsed_ms=2000, memory_remaining=1000, memory_rate=100
    )  # nothing sent, but only a second lost
    progress = fed(Status.MIGRATING, first, second)
    assert (progress.eta_s, progress.eta_change) == (9.0, "")


def test_an_end_that_comes_closer_needs_no_reason() -> None:
    first = JobSample(elapsed_ms=1000, memory_remaining=10_000, memory_rate=100)
    progress = fed(Status.MIGRATING, first, JobSample(elapsed_ms=2000, memory_remaining=1000, memory_rate=100))
    assert (progress.eta_s, progress.eta_change) == (10.0, "")


def test_a_link_that_slows_down_is_the_reason() -> None:
    first = JobSample(elapsed_ms=1000, memory_remaining=1000 * MIB, memory_rate=100 * MIB)
    slow = [JobSample(elapsed_ms=1000 * n, memory_remaining=900 * MIB, memory_rate=10 * MIB) for n in range(2, 6)]
    progress = fed(Status.MIGRATING, first, *slow)
    assert progress.eta_s is not None and progress.eta_s > 10
    assert "the link carries" in progress.eta_change


def test_a_guest_that_writes_more_is_the_reason() -> None:
    facts = {"memory_remaining": 1000 * MIB, "memory_rate": 100 * MIB}
    first = JobSample(elapsed_ms=1000, **facts, dirty_rate=10 * MIB)
    progress = fed(Status.MIGRATING, first, JobSample(elapsed_ms=1500, **facts, dirty_rate=70 * MIB))
    assert progress.eta_change == "at 1.5 s: the guest writes 70 MiB/s instead of 10 MiB/s"


def test_a_pass_with_more_to_send_is_the_reason() -> None:
    first = JobSample(elapsed_ms=1000, memory_remaining=10 * MIB, memory_rate=10 * MIB, iteration=1)
    progress = fed(Status.MIGRATING, first, first.model_copy(update={
        "elapsed_ms": 2000, "memory_remaining": 200 * MIB, "iteration": 2}))  # fmt: skip
    assert "pass 2 has more to send" in progress.eta_change


@given(feeds)
def test_the_end_moves_away_only_with_a_new_reason(items: list[JobSample | Status]) -> None:
    progress = Progress()
    for item in items:
        before = progress
        progress = with_status(progress, item) if isinstance(item, Status) else with_sample(progress, item)
        if isinstance(item, Status) or None in (before.eta_s, progress.eta_s, before.elapsed_ms, item.elapsed_ms):
            continue
        end = not_none(progress.elapsed_ms) / 1000 + not_none(progress.eta_s)
        promised = not_none(before.elapsed_ms) / 1000 + not_none(before.eta_s)
        later = end > max(promised, not_none(progress.elapsed_ms) / 1000) + 0.1  # rounding
        backwards = not_none(progress.elapsed_ms) < not_none(before.elapsed_ms)
        assert (
            not later or backwards or progress.eta_change.startswith(f"at {not_none(item.elapsed_ms) / 1000:.1f} s")
        )


@given(st.floats(0, 0.6), st.integers(64, 2048), st.floats(0.05, 1))
@settings(max_examples=60, deadline=None)
def test_on_a_steady_copy_progress_and_end_are_true(ratio: float, memory_mib: int, share: float) -> None:
    link, memory = 100 * MIB, memory_mib * MIB
    copy = Copy(memory, max(MIB, int(memory * share)), steady(ratio * link), steady(link), limit_ms=100)
    progress, seen = fed(Status.PREPARING, Status.MIGRATING), []
    while not copy.ended:
        copy.advance(500)
        if not copy.ended:
            progress = with_sample(progress, copy.sample())
            seen.append((copy.now_ms, progress))
    assert [p.percent for _, p in seen] == sorted(p.percent for _, p in seen)
    moved = [p.eta_change for _, p in seen if p.eta_change]
    assert len(set(moved)) <= 2  # the dirty rate is first known after the first pass
    known = [(ms, p) for ms, p in seen if p.dirty_rate_bytes_s is not None and p.eta_s is not None]
    for ms, p in known[:1]:
        left_s = (copy.now_ms - ms) / 1000
        assert not_none(p.eta_s) <= 2 * left_s + 2.5  # a geometric series has no end, a copy has


def test_one_odd_sample_is_smoothed() -> None:
    steady = [JobSample(elapsed_ms=1000 * n, memory_rate=100, memory_remaining=10) for n in range(1, 6)]
    progress = fed(Status.MIGRATING, *steady, JobSample(elapsed_ms=6000, memory_rate=1000, memory_remaining=10))
    assert progress.rate_bytes_s is not None and 100 < progress.rate_bytes_s < 500


def test_without_a_rate_it_is_computed_from_the_bytes() -> None:
    progress = fed(
        Status.MIGRATING,
        JobSample(elapsed_ms=1000, memory_processed=0),
        JobSample(elapsed_ms=2000, memory_processed=500),
    )
    assert progress.rate_bytes_s == 500


def test_a_rollback_keeps_the_percentage_and_says_what_it_is() -> None:
    sample = JobSample(elapsed_ms=1, memory_total=100, memory_processed=50, memory_remaining=50)
    progress = fed(Status.MIGRATING, sample, Status.ROLLING_BACK)
    assert progress.percent == 50 and progress.eta_s is None and "rolling-back" in progress.eta_reason


def test_samples_after_the_end_change_nothing() -> None:
    done = fed(Status.MIGRATING, Status.POST_MIGRATING, Status.COMPLETED)
    assert with_sample(done, JobSample(elapsed_ms=1, memory_total=10, memory_remaining=10)) == done
    assert (done.percent, done.eta_s) == (100, 0.0)
