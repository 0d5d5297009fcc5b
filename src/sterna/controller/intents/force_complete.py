"""Force a running copy to its end: by post-copy where that is permitted, else the guest is paused until the rest is
copied."""

from __future__ import annotations

from sterna.controller.calls import AgentCalls, ask_source
from sterna.domain.errors import Conflict
from sterna.domain.policies import May
from sterna.domain.status import Status
from sterna.ports.fleet import Fleet, MigrationRecord

_ARRIVED = {Status.POST_COPY, Status.RECOVERING, Status.POST_MIGRATING}


class ForceComplete:
    """The intent "whatever it costs the guest, now"."""

    def __init__(self, fleet: Fleet, calls: AgentCalls) -> None:
        self._fleet, self._calls = fleet, calls

    async def force(self, migration_id: str) -> MigrationRecord:
        """May be repeated. Of one whose guest runs on the destination already nothing is asked.

        Raises NotFound; Conflict where it has ended or is being rolled back; Unreachable or Unknown where the
        source does not answer.
        """
        record = await self._fleet.migration(migration_id)
        if record.status in _ARRIVED:
            return record
        if record.status.final:
            raise Conflict(f"migration {migration_id} has ended already: it is {record.status}")
        await ask_source(self._calls, record, _method(record), {})
        return record


def _method(record: MigrationRecord) -> str:
    wanted = record.migration.options.objective  # None: another version's
    permitted = wanted is not None and May.POSTCOPY in wanted.may
    return "switch_to_postcopy" if permitted else "pause_guest"
