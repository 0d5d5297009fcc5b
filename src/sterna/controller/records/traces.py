"""Sends a trace of each migration after it has ended.

Each journal entry is stored once, by one of the controllers that share the records: the one that stores a
migration's end sends its trace, once both hosts' journals are complete. It does so at most once: a trace that may
have arrived is not sent again, and what waits is lost with the process. Nothing waits for it: it has a task of its
own.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence

import structlog

from sterna.controller.records.totals import MOST_ENTRIES, MOST_REMEMBERED, is_end, is_new
from sterna.domain.errors import NotFound, SternaError, Temporary, Undelivered
from sterna.domain.journal import Entry, Role
from sterna.domain.otlp import otlp_of
from sterna.domain.spans import trace_of
from sterna.kit.tasks import own_cancellation_only
from sterna.kit.threads import in_thread
from sterna.ports.clock import Clock
from sterna.ports.fleet import EntryRecord, Fleet, MigrationRecord
from sterna.ports.traces import TraceReceiver

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 5.0
JOURNALS_MS = 60_000.0
"""How long the rest of both journals is waited for. A host that is away, or declared dead, leaves its own out."""
SENT_AGAIN_MS = 600_000.0
"""How long a receiver that cannot be reached is tried, for each trace."""
ASKS_DESTINATION = "P3"
"""The row of the source that first asks the destination to do something."""
MOST_WAITING = 1_000
MAKING_S = 30.0


def body_of(record: MigrationRecord, entries: Sequence[Entry], version: str) -> bytes:
    """The request that sends it."""
    trace = trace_of(record.migration, entries, record.status, record.reason, record.error)
    return json.dumps(otlp_of(trace, version), separators=(",", ":")).encode()


def _involves_destination(entry: Entry) -> bool:
    """Has its journal something of this migration, or will it have once it has been read?"""
    return entry.role is Role.DESTINATION or entry.row == ASKS_DESTINATION


class TraceExport:
    """Of one controller."""

    def __init__(self, fleet: Fleet, receiver: TraceReceiver, clock: Clock, version: str) -> None:
        """`version`: of Sterna."""
        self._fleet, self._receiver, self._clock, self._version = fleet, receiver, clock, version
        self._waiting: OrderedDict[str, float] = OrderedDict()
        """Migrations that have ended, and since when they have waited here (monotonic ms)."""
        self._taken: OrderedDict[str, None] = OrderedDict()
        """Those of this process: a journal that is read again sends nothing again."""
        self._away = False

    def stored(self, entries: Sequence[EntryRecord]) -> None:
        """These are new in the records. Takes no time."""
        now = self._clock.now()
        for entry in (one.entry for one in entries if is_end(one.entry)):
            if entry.migration_id not in self._taken and is_new(entry, now):
                self._taken[entry.migration_id] = None
                self._waiting[entry.migration_id] = self._clock.monotonic_ms()
        while len(self._taken) > MOST_REMEMBERED:
            self._taken.popitem(last=False)
        if (surplus := len(self._waiting) - MOST_WAITING) > 0:
            self._lose(list(self._waiting)[:surplus], f"more than {MOST_WAITING} wait to be sent")

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            try:
                with own_cancellation_only():
                    await self.look()
            except SternaError as error:
                log.info("traces are sent later", why=error.message)

    async def look(self) -> None:
        """Once at each that waits. Raises nothing."""
        for migration_id in list(self._waiting):
            try:
                await self._look_at(migration_id)
            except Undelivered as error:
                self._is_away(error)
                return
            except NotFound:
                self._waiting.pop(migration_id, None)
            except Temporary as error:
                log.info("traces are made later", why=error.message)
                return
            except Exception:
                self._waiting.pop(migration_id, None)
                log.exception("a migration's trace cannot be made", migration=migration_id)

    async def _look_at(self, migration_id: str) -> None:
        """Raises Undelivered where the receiver has not taken it, Temporary without the records, NotFound."""
        record = await self._fleet.migration(migration_id)
        if record.migration.options.rehearse or record.reported_by or not record.status.final:
            self._waiting.pop(migration_id, None)
            return
        since_ms = self._waiting.get(migration_id, -JOURNALS_MS)
        waits = self._clock.monotonic_ms() - since_ms < JOURNALS_MS
        if waits and not record.is_closed(on_destination=False):
            return
        entries = [one.entry for one in await self._fleet.events(0, migration_id, limit=MOST_ENTRIES)]
        if waits and not record.is_closed(on_destination=any(map(_involves_destination, entries))):
            return
        body = await in_thread(
            lambda: body_of(record, entries, self._version), name="sterna-traces", limit_s=MAKING_S
        )
        await self._send(migration_id, body)

    async def _send(self, migration_id: str, body: bytes) -> None:
        """Raises Undelivered."""
        try:
            await self._receiver.send(body)
        except Undelivered:
            raise
        except SternaError as error:
            why, fix = error.message, error.fix
            log.warning("a migration's trace was not taken", migration=migration_id, why=why, fix=fix)
        else:
            if self._away:
                log.info("traces are sent again")
            self._away = False
        self._waiting.pop(migration_id, None)

    def _is_away(self, error: Undelivered) -> None:
        if not self._away:
            self._away = True
            log.warning("traces cannot be sent; retrying", why=error.message, fix=error.fix)
        now_ms = self._clock.monotonic_ms()
        old = [one for one, since_ms in self._waiting.items() if now_ms - since_ms > SENT_AGAIN_MS]
        self._lose(old, error.message)

    def _lose(self, migrations: Sequence[str], why: str) -> None:
        for migration_id in migrations:
            self._waiting.pop(migration_id, None)
        if migrations:
            fix = "`sterna show ID --trace FILE` writes the trace of one migration"
            log.warning("traces are lost", number=len(migrations), why=why, fix=fix)
