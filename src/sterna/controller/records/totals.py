"""Counts migrations as they end, for metrics.

Each journal entry is stored once, by one of the controllers that share the records. That one counts what it says,
so the sum over all controllers is right. What needs entries of both hosts is counted with the last of them that was
stored. A host writes into its journal what it likes: what no controller has asked for is not counted, nor are
numbers that cannot be.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

import structlog

from sterna.domain.entries.base import StatusSet
from sterna.domain.errors import SternaError
from sterna.domain.journal import Entry, Kind, Role
from sterna.domain.metrics import catalogue
from sterna.domain.metrics.families import Family
from sterna.domain.metrics.tally import Count, Histogram
from sterna.domain.report import Report, build_report
from sterna.domain.status import FINAL, Status
from sterna.ports.clock import Clock
from sterna.ports.fleet import EntryRecord, Fleet, MigrationRecord

log = structlog.get_logger(__name__)

NEW_FOR = timedelta(days=1)
"""An end that is older is not counted: the journals are read again from their beginnings after the records were
lost."""
MOST_ENTRIES = 10_000
MOST_REMEMBERED = 10_000
"""Migrations that this process has counted: a journal that is read again does not count twice."""
PRECOPY, POSTCOPY = "pre-copy", "post-copy"
MOST_S = 30 * 86_400.0
MOST_BYTES = 2**60
"""Of one migration. More is the word of a host with a wrong clock, or of one that lies: no sum would be of use any
more."""
_OUTCOMES = sorted(status.value for status in FINAL)
_STATUSES = frozenset(status.value for status in Status)


class MigrationTotals:
    """Of one controller, since it started."""

    def __init__(self, fleet: Fleet, clock: Clock) -> None:
        self._fleet, self._clock = fleet, clock
        self._finished = Count(
            catalogue.FINISHED, *((one, mode) for one in _OUTCOMES for mode in (PRECOPY, POSTCOPY))
        )
        self._duration = Histogram(catalogue.DURATION, *((one,) for one in _OUTCOMES))
        self._phases = Histogram(catalogue.PHASE)
        self._downtime = Histogram(catalogue.DOWNTIME, (PRECOPY,), (POSTCOPY,))
        self._moved = Count(catalogue.MOVED_BYTES, ("memory",), ("disk",))
        self._counted: OrderedDict[tuple[str, str], None] = OrderedDict()

    def families(self) -> list[Family]:
        """As of now."""
        tallies = (self._finished, self._duration, self._phases, self._downtime, self._moved)
        return [tally.family() for tally in tallies]

    async def stored(self, entries: Sequence[EntryRecord]) -> None:
        """These are new in the records. Raises nothing: metrics do not keep a journal from being read."""
        new = {one.id for one in entries}
        for migration_id in dict.fromkeys(one.entry.migration_id for one in entries if _matters(one.entry)):
            try:
                await self._look(migration_id, new)
            except SternaError as error:
                log.info("a migration is missing in the metrics", migration=migration_id, why=error.message)
            except Exception:
                log.exception("a migration cannot be counted", migration=migration_id)

    async def _look(self, migration_id: str, new: set[int]) -> None:
        record = await self._fleet.migration(migration_id)
        if record.migration.options.rehearse or record.reported_by or not record.status.final:
            return
        known = await self._fleet.events(0, migration_id, limit=MOST_ENTRIES)
        ended, arrived = _last(known, is_end), _last(known, _is_arrival)
        if ended is None or not is_new(ended.entry, self._clock.now()):
            return
        report = build_report(record.migration, [one.entry for one in known])
        mode = _mode(one.entry for one in known)
        if ended.id in new and self._first("end", migration_id):
            self._count(record.status.value, mode, report)
        if arrived is not None and max(ended.id, arrived.id) in new and self._first("downtime", migration_id):
            self._count_downtime(record, mode, report)

    def _count(self, outcome: str, mode: str, report: Report) -> None:
        self._finished.add(outcome, mode)
        if (total_s := _seconds(report.total_ms)) is not None:
            self._duration.observe(total_s, outcome)
        for phase in report.phases:
            if phase.status in _STATUSES and (lasted_s := _seconds(phase.duration_ms)) is not None:
                self._phases.observe(lasted_s, phase.status)
        self._moved.add("memory", by=_bytes(report.bytes_memory))
        self._moved.add("disk", by=_bytes(report.bytes_disks))

    def _count_downtime(self, record: MigrationRecord, mode: str, report: Report) -> None:
        downtime_s = _seconds(report.downtime_ms)
        if record.status is Status.COMPLETED and downtime_s is not None:
            self._downtime.observe(downtime_s, mode)

    def _first(self, what: str, migration_id: str) -> bool:
        """Has this not been counted of it before?"""
        key = what, migration_id
        if key in self._counted:
            return False
        self._counted[key] = None
        while len(self._counted) > 2 * MOST_REMEMBERED:
            self._counted.popitem(last=False)
        return True


def _seconds(ms: float | None) -> float | None:
    """None where it is not known, or cannot be."""
    return ms / 1000 if ms is not None and 0 <= ms <= MOST_S * 1000 else None


def _bytes(number: int | None) -> int:
    return number if number is not None and 0 <= number <= MOST_BYTES else 0


def is_new(entry: Entry, now: datetime) -> bool:
    """By its host's clock, which need not be right to the minute."""
    try:
        return now - datetime.fromisoformat(entry.at) < NEW_FOR
    except (ValueError, TypeError):
        return False


def _matters(entry: Entry) -> bool:
    return is_end(entry) or _is_arrival(entry)


def is_end(entry: Entry) -> bool:
    """The end of a migration; its destination writes it where the source is gone."""
    return entry.kind is Kind.STATUS and StatusSet.read(entry).status in _OUTCOMES


def _is_arrival(entry: Entry) -> bool:
    """F8 has libvirt's downtime."""
    return entry.kind is Kind.DONE and entry.row == "F8" and entry.role is Role.DESTINATION


def _last(known: Sequence[EntryRecord], wanted: Callable[[Entry], bool]) -> EntryRecord | None:
    return next((one for one in reversed(known) if wanted(one.entry)), None)


def _mode(entries: Iterable[Entry]) -> str:
    statuses = {StatusSet.read(entry).status for entry in entries if entry.kind is Kind.STATUS}
    return POSTCOPY if Status.POST_COPY.value in statuses else PRECOPY
