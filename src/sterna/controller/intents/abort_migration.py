"""Abort a migration: before the pivot it is rolled back; after it, the guest stays on the destination."""

from __future__ import annotations

from sterna.controller.calls import AgentCalls, ask_source
from sterna.domain.errors import Conflict, Unknown
from sterna.domain.status import Status
from sterna.ports.clock import Clock
from sterna.ports.fleet import Fleet, MigrationRecord

ABORT_TRIES = 3
ASK_AGAIN_S = 1.0

_ARRIVED = {Status.POST_COPY, Status.RECOVERING, Status.POST_MIGRATING, Status.COMPLETED}


class AbortMigration:
    """The intent "not after all"."""

    def __init__(self, fleet: Fleet, calls: AgentCalls, clock: Clock) -> None:
        self._fleet, self._calls, self._clock = fleet, calls, clock

    async def abort(self, migration_id: str) -> MigrationRecord:
        """Ask the source to give it up; it is `cancelled` when everything is as it was. May be repeated.

        Raises NotFound; Conflict after the pivot or the end; Unreachable or Unknown where the source does not
        answer.
        """
        record = await self._fleet.migration(migration_id)
        self._check(record)
        for attempt in range(1, ABORT_TRIES + 1):
            try:
                await ask_source(self._calls, record, "abort_migration", {})
                return record
            except Unknown:
                if attempt == ABORT_TRIES:
                    raise
                await self._clock.sleep(ASK_AGAIN_S)
        return record  # pragma: no cover - the loop returns or raises

    def _check(self, record: MigrationRecord) -> None:
        migration = record.migration
        if record.status in _ARRIVED:
            raise Conflict(
                f"{migration.vm_name} is already on {migration.destination} (the migration is {record.status})",
                fix=f"`sterna migrate {migration.vm_name} --to {migration.source}` brings it back",
            )
        if record.status.final:
            raise Conflict(f"migration {record.id} has ended already: it is {record.status}")
