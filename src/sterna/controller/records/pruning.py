"""Old records are removed, a few at a time: ended migrations and operations, and lines of the audit log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import structlog

from sterna.controller.records.forecasts import LOOK_BACK
from sterna.domain.errors import SternaError
from sterna.domain.model import Value
from sterna.kit.tasks import own_cancellation_only
from sterna.ports.clock import Clock
from sterna.ports.pruning import PruneRecords

log = structlog.get_logger(__name__)

PRUNE_EVERY_S = 600.0
ENDPOINT_DAYS = 1
"""An endpoint that no controller has had in its settings for so long is removed, with what waits for it."""
PAUSE_S = 0.2
"""Between two transactions: a database that is behind with it has other work as well."""


class Retention(Value):
    """How many days each kind of record is kept after it has ended. 0: for ever."""

    migrations: int = 0
    operations: int = 0
    log: int = 0


class Pruning:
    """What one controller removes. Each transaction looks for itself what there is, so that several controllers
    share the work."""

    def __init__(self, records: PruneRecords, clock: Clock, keep: Retention) -> None:
        self._records, self._clock, self._keep = records, clock, keep
        self._began, self._began_ms = clock.now(), clock.monotonic_ms()

    async def run(self) -> None:
        """For ever, now and then."""
        while True:
            await self._clock.sleep(PRUNE_EVERY_S)
            try:
                with own_cancellation_only():
                    await self.prune()
            except SternaError as error:
                log.info("old records are removed later", why=error.message)
            except Exception:
                log.exception("old records cannot be removed")

    async def prune(self) -> None:
        """Once. Raises Unreachable; the rest is done the next time."""
        forgotten = await self._records.prune_endpoints(self._before(ENDPOINT_DAYS))
        self._say("endpoints of notifications that no settings have", forgotten)
        if before := self._before(self._keep.migrations):
            await self._all("migrations", lambda: self._records.prune_migrations(before, LOOK_BACK))
        if until := self._before(self._keep.operations):
            await self._operations(until)
        if older := self._before(self._keep.log):
            await self._all("lines of the audit log", lambda: self._records.prune_log(older))

    def _before(self, days: int) -> str:
        """The time before which a record must have ended; '' where they are kept for ever."""
        return (self._now() - timedelta(days=days)).isoformat() if days else ""

    def _now(self) -> datetime:
        """A clock that is set forward while the controller runs removes nothing."""
        passed = timedelta(milliseconds=self._clock.monotonic_ms() - self._began_ms)
        return min(self._clock.now(), self._began + passed)

    async def _all(self, what: str, prune_some: Callable[[], Awaitable[int]]) -> None:
        total = 0
        while number := await prune_some():
            total += number
            await self._clock.sleep(PAUSE_S)
        self._say(what, total)

    async def _operations(self, before: str) -> None:
        total = 0
        for id in await self._records.old_operations(before):
            total += await self._records.prune_operation(id, before)
            await self._clock.sleep(PAUSE_S)
        self._say("operations", total)

    @staticmethod
    def _say(what: str, number: int) -> None:
        if number:
            log.info("old records were removed", what=what, number=number)
