"""The report of one migration: how long it took, how long the guest stood still, how much was moved.

Every number was observed, or is None with a reason. Durations come from one host's monotonic clock within one
life of its agent; downtime is libvirt's own, read on the destination.
"""

from __future__ import annotations

from collections.abc import Iterable

from sterna.domain.copying import CompletedJob, JobSample
from sterna.domain.downtime import Downtime, downtime
from sterna.domain.entries.base import StatusSet
from sterna.domain.entries.destination import VmUpdated
from sterna.domain.entries.destination_notes import Arrival
from sterna.domain.entries.notes import CopySucceeded, Iteration, RehearsedCopy, StreamChosen, SwitchOver
from sterna.domain.journal import Entry, Kind, Migration, Role
from sterna.domain.model import Value
from sterna.domain.objective import Solution
from sterna.domain.pauses import pause_of
from sterna.domain.status import Status
from sterna.domain.step import History


class Phase(Value):
    """How long a status lasted."""

    status: str
    duration_ms: float | None = None
    reason: str = ""
    """Why `duration_ms` is None."""


class Report(Value):
    """Measured results of a migration."""

    total_ms: float | None = None
    """From the moment the source accepted it to its end."""
    total_reason: str = ""
    """Why `total_ms` is None."""
    downtime_ms: int | None = None
    """How long the guest was paused, as the destination's libvirt reports it."""
    downtime_net_ms: int | None = None
    """The same, without the time for messages between the hosts."""
    downtime_reason: str = ""
    """Why `downtime_ms` is None."""
    guest: str = ""
    """State of the guest at the end of its migration, if it was not running: `paused by an I/O error of a disk`."""
    downtime: Downtime = Downtime()
    """Parts of the downtime, as measured by each host."""
    stream: Solution | None = None
    """Parameters of the copy, with reasons; None without an objective, or before the copy."""
    bytes_memory: int | None = None
    bytes_disks: int | None = None
    iterations: int | None = None
    phases: tuple[Phase, ...] = ()


_RESTARTED = "the source's agent was restarted in the meantime"
_UNFINISHED = "it has not ended"
_NOT_REPORTED = "the destination's libvirt has not reported it"
_ROLLED_BACK = "the migration was rolled back before the switch-over"


def _statuses(source: list[Entry]) -> list[Entry]:
    """The entries at which the status changed; the first is the acceptance, after which it is queued."""
    first = [e for e in source if e.kind is Kind.ACCEPTED][:1]
    queued = Status.QUEUED.value if first else None
    return first + [e for e in source if e.kind is Kind.STATUS and StatusSet.read(e).status != queued]


def _is_final(entry: Entry) -> bool:
    return entry.kind is Kind.STATUS and StatusSet.read(entry).status in {
        s.value for s in Status if s.final or s is Status.ERROR
    }


def _was_rolled_back(source: list[Entry]) -> bool:
    last = next((StatusSet.read(e).status for e in reversed(source) if e.kind is Kind.STATUS), None)
    return last in (Status.FAILED, Status.CANCELLED)


def _gap(first: Entry, last: Entry, lives: list[Entry]) -> tuple[float | None, str]:
    between = {e.boot for e in lives if first.seq <= e.seq <= last.seq}
    if len(between) > 1:
        return None, _RESTARTED
    return round(last.mono_ms - first.mono_ms, 3), ""


def _phases(source: list[Entry]) -> tuple[Phase, ...]:
    marks = _statuses(source)
    phases = []
    for index, entry in enumerate(marks):
        status = StatusSet.read(entry).status if entry.kind is Kind.STATUS else Status.QUEUED.value
        if _is_final(entry):
            continue
        if index + 1 == len(marks):
            phases.append(Phase(status=status, reason=_UNFINISHED))
            continue
        ms, reason = _gap(entry, marks[index + 1], source)
        phases.append(Phase(status=status, duration_ms=ms, reason=reason))
    return tuple(phases)


def _total(source: list[Entry]) -> tuple[float | None, str]:
    marks = _statuses(source)
    if not marks or marks[0].kind is not Kind.ACCEPTED:
        return None, "its start is not recorded"
    return _gap(marks[0], marks[-1], source) if _is_final(marks[-1]) else (None, _UNFINISHED)


def _job(destination: list[Entry]) -> CompletedJob | None:
    for entry in reversed(destination):
        if entry.row == "F8" and entry.kind is Kind.DONE and (job := VmUpdated.read(entry).job):
            return job
    return None


def _source_job(source: list[Entry]) -> CompletedJob | None:
    """The finished job as the source saw it: only there are the disks counted."""
    for entry in reversed(source):
        if entry.row == CopySucceeded.under and (job := CopySucceeded.read(entry).job):
            return job
    return None


def _last_sample(source: list[Entry]) -> JobSample | None:
    for entry in reversed(source):
        if entry.row == RehearsedCopy.under and (sample := RehearsedCopy.read(entry).sample):
            return sample
    return None


def _iterations(source: list[Entry]) -> int | None:
    looks = [e for e in source if e.row == "M3"]
    samples = filter(None, (RehearsedCopy.read(e).sample for e in looks))
    seen = [Iteration.read(e).iteration for e in looks] + [sample.iteration for sample in samples]
    return max((number for number in seen if number is not None), default=None)


def build_report(migration: Migration, entries: Iterable[Entry]) -> Report:
    """The report of one migration from both hosts' entries; also of one that has not ended yet."""
    own = sorted((e for e in entries if e.migration_id == migration.id), key=lambda e: e.seq)
    source = [e for e in own if e.role is Role.SOURCE]
    destination = [e for e in own if e.role is Role.DESTINATION]
    job, pause = _job(destination) or CompletedJob(), pause_of(source, destination)
    sent = _source_job(source) or CompletedJob()
    sample = _last_sample(source) or JobSample()
    total_ms, total_reason = _total(source)
    left, came = History.read(source), History.read(destination)
    made_of = left.find(StreamChosen)
    no_downtime = pause.no_downtime(migration.source, migration.destination)
    counted = job if not no_downtime else CompletedJob()
    if not no_downtime and job.downtime_ms is None:
        no_downtime = _ROLLED_BACK if _was_rolled_back(source) else _NOT_REPORTED
    return Report(
        total_ms=total_ms,
        total_reason=total_reason,
        downtime_ms=counted.downtime_ms,
        downtime_net_ms=counted.downtime_net_ms,
        downtime_reason=no_downtime,
        guest=f"{pause.now} on {migration.destination}" if pause.now else "",
        downtime=downtime(left.find(SwitchOver), came.find(Arrival)),
        stream=Solution(**dict(made_of)) if made_of else None,
        bytes_memory=_seen(_seen(job.memory_processed, sent.memory_processed), sample.memory_processed),
        bytes_disks=_seen(sent.disk_processed, sample.disk_processed),
        iterations=_seen(job.iterations, _iterations(source)),
        phases=_phases(source),
    )


def _seen(final: int | None, running: int | None) -> int | None:
    """The finished job's number, else the last one seen while it ran."""
    return final if final is not None else running
