"""The progress of running copies: kept in memory, and stored every ten seconds.

Each copy sends two samples a second. For 500 copies that would be 1,000 writes a second, of numbers that the next
sample replaces. So a copy is stored every ten seconds, with all others that are due, and at each change of status.
"""

from __future__ import annotations

from collections.abc import Collection

import structlog

from sterna.controller.records.events import Events
from sterna.domain.copying import JobSample
from sterna.domain.errors import NotFound
from sterna.domain.model import Data
from sterna.domain.progress import Progress, with_sample
from sterna.ports.clock import Clock
from sterna.ports.fleet import Fleet, MigrationRecord

log = structlog.get_logger(__name__)

STORE_EVERY_S = 10.0
"""What a controller that is killed forgets of a copy: the next sample brings it again."""
FORGET_AFTER_S = 60.0
"""Without samples for so long a copy has ended, or its source is silent. Then the stored progress is shown."""
MOST = 10_000
"""Copies whose progress is kept, at most."""
MOST_REPORTED = 1_000
"""Of these, copies of which only their hosts say that there are any. There are some after the records were lost."""


class _Copy:
    def __init__(self, record: MigrationRecord, now_ms: float) -> None:
        self.record, self.stored_ms, self.looked_ms, self.changed = record, now_ms, now_ms, False


class CopyProgress:
    """Of all copies, as one controller knows it."""

    def __init__(self, fleet: Fleet, events: Events, clock: Clock) -> None:
        self._fleet, self._events, self._clock = fleet, events, clock
        self._known: dict[str, _Copy] = {}
        self._reading: set[str] = set()

    async def sampled(self, host: str, migration_id: str, data: Data) -> None:
        """Take a progress hint of `host`: `{"sample": JobSample, "at": iso}`. Another host's word than the source's
        counts for nothing. Raises Unreachable, ValidationError."""
        sample = JobSample.model_validate(data.get("sample") or {})
        copy = self._known.get(migration_id) or await self._read(migration_id)
        if copy is None or copy.record.migration.source != host:
            return
        copy.looked_ms = self._clock.monotonic_ms()
        progress = with_sample(copy.record.progress, sample)
        if progress != copy.record.progress:
            copy.record, copy.changed = copy.record.model_copy(update={"progress": progress}), True
        self._events.progressed(copy.record)

    async def _read(self, migration_id: str) -> _Copy | None:
        """From the records; None where there is no such migration, or another look reads it already."""
        if migration_id in self._reading or len(self._known) >= MOST:
            return None
        self._reading.add(migration_id)
        try:
            record = await self._fleet.migration(migration_id)
        except NotFound:
            return None
        finally:
            self._reading.discard(migration_id)
        if record.status.final or (record.reported_by and self._reported() >= MOST_REPORTED):
            return None
        return self._known.setdefault(migration_id, _Copy(record, self._clock.monotonic_ms()))

    def _reported(self) -> int:
        return sum(copy.record.reported_by != "" for copy in self._known.values())

    def newest(self, record: MigrationRecord) -> MigrationRecord:
        """The record with what its copy said last."""
        copy = self._known.get(record.id)
        if copy is None or copy.record.progress.status is not record.progress.status:
            return record
        return record.model_copy(update={"progress": copy.record.progress})

    def running(self) -> list[MigrationRecord]:
        """Copies that have sent samples lately. First those that a controller has asked for."""
        since_ms = self._clock.monotonic_ms() - FORGET_AFTER_S * 1000
        found = [copy.record for copy in self._known.values() if copy.looked_ms >= since_ms]
        return sorted(found, key=lambda record: record.reported_by != "")

    async def store(self) -> None:
        """Store what is due. Raises Unreachable: then it is stored the next time."""
        now_ms = self._clock.monotonic_ms()
        for id, copy in list(self._known.items()):
            if now_ms - copy.looked_ms > FORGET_AFTER_S * 1000 and not copy.changed:
                del self._known[id]
        await self._store([i for i, c in self._known.items() if now_ms - c.stored_ms >= STORE_EVERY_S * 1000])

    async def save(self, migrations: Collection[str]) -> None:
        """Store what is known of these now: their status is about to change. Raises Unreachable."""
        await self._store([id for id in migrations if id in self._known])

    def forget(self, migrations: Collection[str]) -> None:
        """Their status has changed: the next look reads the record again."""
        for id in migrations:
            self._known.pop(id, None)

    async def _store(self, ids: Collection[str]) -> None:
        due = {id: self._known[id] for id in ids if self._known[id].changed}
        if not due:
            return
        progress: dict[str, Progress] = {id: copy.record.progress for id, copy in due.items()}
        await self._fleet.save_progress(progress)
        for id, copy in due.items():
            copy.stored_ms = self._clock.monotonic_ms()
            copy.changed = copy.record.progress != progress[id]
