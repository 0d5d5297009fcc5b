"""Progress of one migration as a value: fed with statuses and samples, it only ever goes forward.

Work is estimated, not known: a guest that goes on writing makes more of it. The percentage is the share of the
estimated total work done (bytes sent, plus the bytes still to send, plus those the guest is expected to dirty until
then). Where the estimate grows, the percentage does not change. It is 100 only when the migration is completed. The
raw bytes are given as well.

The promised end is kept: the time left counts down to it, and shrinks when the copy is faster. It moves away only
when the estimate is clearly later; `eta_change` then says when and why.
"""

from __future__ import annotations

import math

from sterna.domain.copying import JobSample
from sterna.domain.model import Value
from sterna.domain.status import Status

_RATE_MEMORY_S = 3.0
"""Time constant of the smoothing: long enough to hide one odd sample, short enough to show a slow link."""
_WORST_DIRTY_SHARE = 0.95
"""Estimates treat a guest that dirties faster than this share of the rate as if it were this share."""

_LATER_SHARE, _LATER_S = 0.2, 2.0
"""An estimate later by less than this share of the time left, or by less than so many seconds, moves nothing: rates
swing by as much from sample to sample."""
_CLEARLY = 1.2
"""A rate that changed by this factor is a reason."""

_FLOOR: dict[Status, float] = {
    Status.QUEUED: 0.0,
    Status.PREPARING: 1.0,
    Status.MIGRATING: 5.0,
    Status.POST_COPY: 90.0,
    Status.RECOVERING: 90.0,
    Status.POST_MIGRATING: 95.0,
    Status.COMPLETED: 100.0,
}
"""What a status alone is worth, in percent: preparation 5, copy 90, finishing 5."""
_COPY_FROM, _COPY_TO = 5.0, 95.0
_CEILING = 99.0


class Progress(Value):
    """Progress of a migration. None: not observed."""

    status: Status = Status.QUEUED
    percent: float = 0.0
    """0..100, share of the estimated total work; never decreases."""
    bytes_processed: int | None = None
    """Bytes of memory and disks sent so far, as the hypervisor counts."""
    bytes_remaining: int | None = None
    bytes_total: int | None = None
    disk_bytes_processed: int | None = None
    """Of these, local disks; also the next two."""
    disk_bytes_remaining: int | None = None
    disk_bytes_total: int | None = None
    rate_bytes_s: float | None = None
    """Speed of the copy, smoothed."""
    dirty_rate_bytes_s: int | None = None
    """Memory that the guest writes."""
    iteration: int | None = None
    pass_began_ms: int | None = None
    """When this iteration was first seen, as `elapsed_ms`."""
    expected_downtime_ms: int | None = None
    elapsed_ms: int | None = None
    """Duration of the copy so far, as the hypervisor counts."""
    eta_s: float | None = None
    """Seconds until the guest is on the destination; None if unknown."""
    eta_reason: str = "the copy has not begun"
    """Why `eta_s` is None; empty if it is not."""
    eta_change: str = ""
    """When and why the promised end became later: `at 12.5 s: the guest writes 70 MiB/s instead of 10 MiB/s`."""


def _sum(*parts: int | None) -> int | None:
    seen = [p for p in parts if p is not None]
    return sum(seen) if seen else None


def _smooth(old: Progress, sample: JobSample, processed: int | None) -> float | None:
    """The rate in bytes/s after one more sample."""
    gap_ms = None
    if sample.elapsed_ms is not None and old.elapsed_ms is not None:
        gap_ms = sample.elapsed_ms - old.elapsed_ms
    rate: float | None = sample.memory_rate
    if not rate and gap_ms and gap_ms > 0 and processed is not None and old.bytes_processed is not None:
        rate = max(0.0, (processed - old.bytes_processed) * 1000 / gap_ms)
    if rate is None:
        return old.rate_bytes_s
    if old.rate_bytes_s is None:
        return float(rate)
    if gap_ms is not None and gap_ms <= 0:  # the same moment once more
        return old.rate_bytes_s
    weight = 1 - math.exp(-(gap_ms or 1000) / 1000 / _RATE_MEMORY_S)
    return old.rate_bytes_s + weight * (rate - old.rate_bytes_s)


def _future_bytes(sample: JobSample, rate: float | None, pass_ms: int) -> float:
    """Bytes still to be sent: disks once; memory left in this pass, what has been dirtied again since it began
    `pass_ms` ago, and what each later pass leaves, the same share of the one before (a geometric series)."""
    disks, memory = sample.disk_remaining or 0, sample.memory_remaining or 0
    if not rate or not sample.dirty_rate:
        return float(disks + memory)
    again = sample.dirty_rate * pass_ms / 1000
    if sample.memory_total is not None:
        again = min(again, max(0, sample.memory_total - memory))
    return disks + (memory + again) / (1 - min(sample.dirty_rate / rate, _WORST_DIRTY_SHARE))


def _pass_began_ms(old: Progress, sample: JobSample) -> int | None:
    if sample.iteration != old.iteration or old.pass_began_ms is None:
        return sample.elapsed_ms
    return old.pass_began_ms


def _estimate(sample: JobSample, rate: float | None, future: float) -> tuple[float | None, str]:
    """Seconds from now, or why that is not known."""
    remaining, dirty = _sum(sample.memory_remaining, sample.disk_remaining), sample.dirty_rate
    if remaining is None:
        return None, "the hypervisor has not reported the remaining data"
    if not rate:
        return None, "the transfer rate is not known yet"
    if dirty is not None and dirty >= rate and remaining > 0:
        return None, "the guest writes memory faster than it can be sent"
    return round(future / rate, 1), ""


def _promise(old: Progress, sample: JobSample, estimate: float, rate: float | None) -> tuple[float, str]:
    """Seconds left, counted down to the end promised before unless there is reason to move it; and that reason."""
    if old.eta_s is None:
        return estimate, old.eta_change
    gap_s = 0.0
    if sample.elapsed_ms is not None and old.elapsed_ms is not None:
        gap_s = max(0, sample.elapsed_ms - old.elapsed_ms) / 1000
    held = old.eta_s - gap_s
    if estimate <= held:
        return estimate, old.eta_change
    if estimate <= held + max(_LATER_S, _LATER_SHARE * held):
        return round(max(0.0, held), 1), old.eta_change
    return estimate, _reason(old, sample, rate)


def _reason(old: Progress, sample: JobSample, rate: float | None) -> str:
    when = f"at {(sample.elapsed_ms or 0) / 1000:.1f} s"
    if rate and old.rate_bytes_s and rate * _CLEARLY < old.rate_bytes_s:
        return f"{when}: the link carries {_mib(rate)} instead of {_mib(old.rate_bytes_s)}"
    before, now = old.dirty_rate_bytes_s, sample.dirty_rate
    if now and now > (before or 0) * _CLEARLY:
        known = f"instead of {_mib(before)}" if before else "(not measured before)"
        return f"{when}: the guest writes {_mib(now)} {known}"
    if sample.iteration != old.iteration:
        return f"{when}: pass {sample.iteration} has more to send than expected"
    return f"{when}: the transfer is slower than expected"


def _mib(rate: float) -> str:
    return f"{rate / 2**20:.0f} MiB/s"


def _copied(sample: JobSample, processed: int | None, remaining: int | None, future: float) -> float:
    """The share of the copy that is done, 0..1. Pages of zeros count as done though no bytes were sent."""
    total = _sum(sample.memory_total, sample.disk_total)
    if remaining is None or (processed is None and total is None):
        return 0.0
    done = max(processed or 0, (total or 0) - remaining, 0)
    if not total and not done:  # libvirt is still preparing the job
        return 0.0
    return done / (done + future) if done + future > 0 else 1.0


def with_sample(old: Progress, sample: JobSample) -> Progress:
    """Progress after one more look at the running copy. Looks after the copy's end change nothing."""
    if old.status not in (Status.QUEUED, Status.PREPARING, Status.MIGRATING, Status.POST_COPY, Status.RECOVERING):
        return old
    processed = _sum(sample.memory_processed, sample.disk_processed)
    remaining = _sum(sample.memory_remaining, sample.disk_remaining)
    rate = _smooth(old, sample, processed)
    began = _pass_began_ms(old, sample)
    pass_ms = max(0, sample.elapsed_ms - began) if sample.elapsed_ms is not None and began is not None else 0
    future = _future_bytes(sample, rate, pass_ms)
    share = min(1.0, _copied(sample, processed, remaining, future))
    percent = _COPY_FROM + (_COPY_TO - _COPY_FROM) * share
    eta_s, eta_reason = _estimate(sample, rate, future)
    eta_change = old.eta_change
    if eta_s is not None:
        eta_s, eta_change = _promise(old, sample, eta_s, rate)
    return old.model_copy(
        update={
            "percent": round(max(old.percent, min(percent, _CEILING)), 1),
            "bytes_processed": processed,
            "bytes_remaining": remaining,
            "bytes_total": _sum(sample.memory_total, sample.disk_total),
            "disk_bytes_processed": sample.disk_processed,
            "disk_bytes_remaining": sample.disk_remaining,
            "disk_bytes_total": sample.disk_total,
            "rate_bytes_s": rate,
            "dirty_rate_bytes_s": sample.dirty_rate,
            "iteration": sample.iteration,
            "pass_began_ms": began,
            "expected_downtime_ms": sample.downtime_ms,
            "elapsed_ms": sample.elapsed_ms,
            "eta_s": eta_s,
            "eta_reason": eta_reason,
            "eta_change": eta_change,
        }
    )


def with_status(old: Progress, status: Status) -> Progress:
    """Progress after a status change. A rollback leaves the percentage where it stood."""
    percent = max(old.percent, _FLOOR.get(status, 0.0))
    if status is not Status.COMPLETED:
        percent = max(old.percent, min(percent, _CEILING))
    eta_s, reason = old.eta_s, old.eta_reason
    if status is Status.COMPLETED:
        eta_s, reason = 0.0, ""
    elif status not in (Status.MIGRATING, Status.POST_COPY, Status.RECOVERING):
        eta_s, reason = None, f"the migration is {status.value}"
    elif old.bytes_processed is None:
        eta_s, reason = None, "nothing has been sent yet"
    return old.model_copy(update={"status": status, "percent": percent, "eta_s": eta_s, "eta_reason": reason})
