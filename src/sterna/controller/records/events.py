"""What happens, as it happens: the stored journal entries in order, and progress between them.

An entry's id is the event's id, so a reader that was cut off goes on behind the last id it saw. Progress has no
id: it is the newest look at something that moves, and is sent again anyway.

New entries are read from the records once for all watchers. What a watcher has not taken yet is bounded: one that
is too slow is notified, and gets the stored events from the records, at its own pace.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import structlog
from pydantic_core import to_json

from sterna.domain.errors import NotFound, SternaError, Unreachable
from sterna.domain.journal import Kind
from sterna.domain.model import Data, Value
from sterna.domain.status import Status
from sterna.kit.errors import copy_of
from sterna.kit.tasks import own_cancellation_only
from sterna.ports.fleet import EntryRecord, Fleet, MigrationRecord

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 1.0
"""Other controllers store entries, too, without waking this one."""
LOOK_FOR_END_S = 3.0
"""A migration may end without an entry: a request that no source accepted, one whose source is dead."""
PROGRESS_EVERY_S = 1.0
"""Who watches the whole fleet is told this often how its copies are; who watches one, at each look."""
LOOK_AGAIN_S = 30.0
"""Is somebody still reading? Nothing is known that ends a reading without a word."""
MOST_WAITING = 1_000
"""Events that wait for one watcher."""
_FINAL = {status.value for status in Status if status.final}


class Event(Value):
    """One event of a stream."""

    id: int | None = None
    """Resume behind it; None where the event is not stored."""
    kind: str
    """`status`, `step`, `note`, `progress`, `missed` (this watcher was too slow for some progress), or `end`: this
    migration has come to its end."""
    data: Data

    @cached_property
    def text(self) -> str:
        """`data` as JSON, made once for all watchers."""
        try:
            return json.dumps(self.data, allow_nan=False)
        except ValueError:
            return to_json(self.data, inf_nan_mode="null").decode()


@dataclass(eq=False)
class _Watcher:
    migration_id: str | None
    begins: int
    """Events up to this id are not in `waiting`."""
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: deque[Event] = field(default_factory=deque)
    progress: dict[str, Event] = field(default_factory=dict)
    """The newest per migration not sent yet."""
    missed: bool = False
    ended: bool = False
    """Its migration may have ended."""
    looked_at: float = 0.0
    """When that was looked up last (time.monotonic)."""
    error: SternaError | None = None

    def tell(self, event: Event) -> None:
        """One more; too many, and all of them are read from the records later."""
        if len(self.waiting) >= MOST_WAITING:
            self.missed = True
            self.waiting.clear()
        if not self.missed:
            self.waiting.append(event)
        self.woken.set()

    def take(self, after: int) -> list[Event]:
        """All that waits."""
        taken = [event for event in self.waiting if event.id is None or event.id > after]
        taken += self.progress.values()
        self.waiting.clear()
        self.progress.clear()
        return taken


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
    """Streams of events, for any number of watchers."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._watchers: set[_Watcher] = set()
        self._closed = False
        self._reading: asyncio.Task[None] | None = None
        self._read_to = 0
        self._woken = asyncio.Event()
        self._progress: dict[str, Event] = {}
        """Not told yet to who watches the fleet."""
        self._told_at = 0.0

    def wake(self) -> None:
        """Entries have been stored."""
        self._woken.set()

    def progressed(self, record: MigrationRecord) -> None:
        """A migration was looked at."""
        if not self._watchers:
            return
        data = {"migration_id": record.id, "progress": record.progress.model_dump(mode="json")}
        event = self._progress[record.id] = Event(kind="progress", data=data)
        for watcher in self._watchers:
            if watcher.migration_id == record.id:
                watcher.progress[record.id] = event
                watcher.woken.set()
        self._tell_progress()

    def close(self) -> None:
        """End every stream: the controller stops."""
        self._closed = True
        self.wake()
        for watcher in self._watchers:
            watcher.woken.set()

    async def follow(self, migration_id: str | None, after: int | None) -> AsyncIterator[Event]:
        """As `batches`, one by one."""
        async for batch in self.batches(migration_id, after):
            for event in batch:
                yield event

    async def batches(self, migration_id: str | None, after: int | None) -> AsyncIterator[list[Event]]:
        """Events behind id `after`; None: of one migration all, of the fleet those from now on. An id that was not
        issued yet is of an older database, whose events have other ids here: as None.

        The stream of one migration ends with `end`; the fleet's goes on until `close`. Raises Unreachable.
        """
        last = await self._fleet.last_event()
        if after is None or after > last:
            after = 0 if migration_id else last
        with self._watching(migration_id, last) as watcher:
            async for batch in self._stored(watcher, after):
                yield batch
                after = batch[-1].id or after
            while not self._closed:
                watcher.woken.clear()
                ended = await self._has_ended(watcher)
                if watcher.missed or ended:
                    async for batch in self._caught_up(watcher, after, ended=ended):
                        yield batch
                        after = batch[-1].id or after
                if batch := watcher.take(after):
                    yield batch
                    after = max((event.id for event in batch if event.id is not None), default=after)
                if ended and migration_id is not None:
                    yield [await self._end(migration_id)]
                    return
                await self._news(watcher)

    async def _caught_up(self, watcher: _Watcher, after: int, *, ended: bool) -> AsyncIterator[list[Event]]:
        """What is in the records: all of it where nothing more comes, or for one that was too slow."""
        if watcher.missed:
            watcher.missed, watcher.begins = False, self._read_to
            yield [Event(kind="missed", data={"migration_id": watcher.migration_id, "after": after})]
        if ended:
            watcher.begins = await self._fleet.last_event()
        async for batch in self._stored(watcher, after):
            yield batch

    async def _stored(self, watcher: _Watcher, after: int) -> AsyncIterator[list[Event]]:
        """Up to where what waits for this watcher begins."""
        while after < watcher.begins:
            found = await self._fleet.events(after, watcher.migration_id)
            batch = [_event(one) for one in found if one.id <= watcher.begins]
            if not batch:
                return
            yield batch
            after = found[-1].id

    async def _news(self, watcher: _Watcher) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_AGAIN_S if watcher.migration_id is None else LOOK_FOR_END_S):
                await watcher.woken.wait()
        if watcher.error is not None:
            raise copy_of(watcher.error)
        self._keep_reading()

    @contextlib.contextmanager
    def _watching(self, migration_id: str | None, last: int) -> Iterator[_Watcher]:
        if self._reading is None:
            self._read_to, self._told_at = last, time.monotonic()
        self._keep_reading()
        watcher = _Watcher(migration_id, self._read_to)
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)
            if not self._watchers and self._reading is not None:
                self._reading.cancel()
                self._reading = None
                self._progress.clear()

    # ------------------------------------------------------------ one reading for all

    def _keep_reading(self) -> None:
        if not self._closed and (self._reading is None or self._reading.done()):
            self._reading = asyncio.create_task(self._read(), name="events")

    async def _read(self) -> None:
        """Tell all watchers what is new, until there are none. What fails here ends their streams."""
        try:
            while not self._closed:
                self._woken.clear()
                with own_cancellation_only():
                    await self._read_new()
                self._tell_progress()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY_S):  # wait_for may swallow a cancellation (CPython 3.11)
                        await self._woken.wait()
        except SternaError as error:
            self._fail(error)
        except Exception as error:
            log.exception("reading events failed")
            self._fail(Unreachable(f"events cannot be read: {error}"))

    async def _read_new(self) -> None:
        while stored := await self._fleet.events(self._read_to):
            self._read_to = stored[-1].id
            for one in stored:
                self._tell(one)

    def _fail(self, error: SternaError) -> None:
        self._reading = None
        for watcher in self._watchers:
            watcher.error = error
            watcher.woken.set()

    def _tell(self, stored: EntryRecord) -> None:
        event, about = _event(stored), stored.entry.migration_id
        for watcher in self._watchers:
            if watcher.migration_id in (None, about):
                watcher.tell(event)
                watcher.ended |= event.kind == "status" and event.data["status"] in _FINAL

    def _tell_progress(self) -> None:
        """To who watches the fleet, not too often."""
        now = time.monotonic()
        if not self._progress or now - self._told_at < PROGRESS_EVERY_S:
            return
        for watcher in self._watchers:
            if watcher.migration_id is None:
                watcher.progress |= self._progress
                watcher.woken.set()
        self._progress, self._told_at = {}, now

    # ------------------------------------------------------------ the end of one migration

    async def _has_ended(self, watcher: _Watcher) -> bool:
        if watcher.migration_id is None:
            return False
        now = time.monotonic()
        if not watcher.ended and watcher.looked_at and now - watcher.looked_at < LOOK_FOR_END_S:
            return False
        watcher.looked_at, watcher.ended = now, False
        return await self._ended(watcher.migration_id)

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
