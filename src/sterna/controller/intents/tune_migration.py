"""Tune a running copy: another bandwidth limit. The source's agent does it; nothing is recorded here."""

from __future__ import annotations

from sterna.controller.calls import AgentCalls, ask_source
from sterna.domain.errors import Conflict, Unknown
from sterna.ports.clock import Clock
from sterna.ports.fleet import Fleet, MigrationRecord

TUNE_TRIES = 3
ASK_AGAIN_S = 1.0


class TuneMigration:
    """The intent "faster", or "slower"."""

    def __init__(self, fleet: Fleet, calls: AgentCalls, clock: Clock) -> None:
        self._fleet, self._calls, self._clock = fleet, calls, clock

    async def tune(self, migration_id: str, bandwidth_bytes_s: int | None) -> MigrationRecord:
        """The copy sends no more than this from now on; None: no limit. May be repeated.

        Raises NotFound; Conflict where nothing is being copied; Unreachable or Unknown where the source does not
        answer.
        """
        record = await self._fleet.migration(migration_id)
        if record.status.final:
            raise Conflict(f"migration {record.id} has ended already: it is {record.status}")
        params = {"bandwidth_bytes_s": bandwidth_bytes_s}
        for attempt in range(1, TUNE_TRIES + 1):
            try:
                await ask_source(self._calls, record, "tune_migration", params)
                return record
            except Unknown:  # the same limit twice is the same limit
                if attempt == TUNE_TRIES:
                    raise
                await self._clock.sleep(ASK_AGAIN_S)
        return record  # pragma: no cover - the loop returns or raises
