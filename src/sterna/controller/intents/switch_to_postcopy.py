"""Switch a running copy to post-copy: the guest runs on the destination at once, the rest of its memory follows."""

from __future__ import annotations

from sterna.controller.calls import AgentCalls, ask_source
from sterna.domain.errors import Conflict
from sterna.domain.status import Status
from sterna.ports.fleet import Fleet, MigrationRecord

_SWITCHED = {Status.POST_COPY, Status.RECOVERING}


class SwitchToPostcopy:
    """The intent "over there, now"."""

    def __init__(self, fleet: Fleet, calls: AgentCalls) -> None:
        self._fleet, self._calls = fleet, calls

    async def switch(self, migration_id: str) -> MigrationRecord:
        """Ask the source to switch as soon as libvirt can. May be repeated.

        Raises NotFound; Conflict where post-copy was not permitted, the migration has ended or is being rolled
        back; Unreachable or Unknown where the source does not answer.
        """
        record = await self._fleet.migration(migration_id)
        if record.status in _SWITCHED:
            return record
        if record.status.final:
            raise Conflict(f"migration {migration_id} has ended already: it is {record.status}")
        await ask_source(self._calls, record, "switch_to_postcopy", {})
        return record
