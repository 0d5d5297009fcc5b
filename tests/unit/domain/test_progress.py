from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sterna.domain.model import JobSample
from sterna.domain.progress import Progress, with_sample, with_status
from sterna.domain.status import Status

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
