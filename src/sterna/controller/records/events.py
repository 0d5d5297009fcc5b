"""What happens, as it happens: the stored journal entries in order, and progress between them.

An entry's id is the event's id, so a reader that was cut off goes on behind the last id it saw. Progress has no
id: it is the newest look at something that moves, and is sent again anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

from sterna.domain.errors import NotFound
from sterna.domain.journal import Kind
from sterna.domain.model import Data, Value
from sterna.ports.fleet import EntryRecord, Fleet, MigrationRecord

LOOK_EVERY_S = 1.0
"""Other controllers store entries, too, without waking this one."""


class Event(Value):
    """One event of a stream."""

    id: int | None = None
    """Resume behind it; None where the event is not stored."""
    kind: str
    """`status`, `step`, `note`, `progress`, or `end`: this migration has come to its end."""
    data: Data


@dataclass(eq=False)
class _Reader:
    migration_id: str | None
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    progress: dict[str, Data] = field(default_factory=dict)
    """The newest per migration not sent yet."""


def _event(stored: EntryRecord) -> Event:
    entry = stored.entry
    data: Data = {
        "migration_id": entry.migration_id,
        "host": stored.host,
        "role": entry.role.value,
        "kind": entry.kind.value,
        "row": entry.row,
        "name": entry.name,
        "at": entry.at,
    }
    if entry.kind is Kind.STATUS:
        data |= {"status": entry.data.get("status"), "reason": entry.data.get("reason", "")}
    if entry.data.get("error"):
        data["error"] = entry.data["error"]
    steps = (Kind.INTENT, Kind.DONE, Kind.FAILED)
    kind = "status" if entry.kind is Kind.STATUS else "step" if entry.kind in steps else "note"
    return Event(id=stored.id, kind=kind, data=data)


class Events:
    """Streams of events, for any number of readers."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._readers: set[_Reader] = set()
        self._closed = False

    def wake(self) -> None:
        """Entries have been stored."""
        for reader in self._readers:
            reader.woken.set()

    def progressed(self, record: MigrationRecord) -> None:
        """A migration was looked at."""
        data = {"migration_id": record.id, "progress": record.progress.model_dump(mode="json")}
        for reader in self._readers:
            if reader.migration_id in (None, record.id):
                reader.progress[record.id] = data
                reader.woken.set()

    def close(self) -> None:
        """End every stream: the controller stops."""
        self._closed = True
        self.wake()

    async def follow(self, migration_id: str | None, after: int | None) -> AsyncIterator[Event]:
        """Events behind id `after`; None: of one migration all, of the fleet those from now on. An id that was not
        issued yet is of an older database, whose events have other ids here: as None.

        The stream of one migration ends with `end`; the fleet's goes on until `close`.
        """
        last = await self._fleet.last_event()
        if after is None or after > last:
            after = 0 if migration_id else last
        with self._reading(migration_id) as reader:
            while not self._closed:
                reader.woken.clear()
                ended = migration_id is not None and await self._ended(migration_id)
                while stored := await self._fleet.events(after, migration_id):
                    for one in stored:
                        yield _event(one)
                    after = stored[-1].id
                while reader.progress:
                    yield Event(kind="progress", data=reader.progress.popitem()[1])
                if ended and migration_id is not None:
                    yield await self._end(migration_id)
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY_S):  # wait_for may swallow a cancellation (CPython 3.11)
                        await reader.woken.wait()

    @contextlib.contextmanager
    def _reading(self, migration_id: str | None) -> Iterator[_Reader]:
        reader = _Reader(migration_id)
        self._readers.add(reader)
        try:
            yield reader
        finally:
            self._readers.discard(reader)

    async def _ended(self, migration_id: str) -> bool:
        try:
            return (await self._fleet.migration(migration_id)).status.final
        except NotFound:  # a request that was refused after all
            return True

    async def _end(self, migration_id: str) -> Event:
        try:
            status = (await self._fleet.migration(migration_id)).status.value
        except NotFound:
            status = None
        return Event(kind="end", data={"migration_id": migration_id, "status": status})
