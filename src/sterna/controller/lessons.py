"""What completed migrations taught, and the loads last measured for plans: the outlook of the next migration.

Read from the records; a completed migration that both hosts have closed is read once. Loads are kept in this
process only: a plan answered by another controller is not known here, and nothing but a forecast is lost by that.
"""

from __future__ import annotations

import structlog

from sterna.domain.experience import Experience, Outcome, outcome_of
from sterna.domain.forecast import Load, Outlook
from sterna.domain.status import Status
from sterna.ports.clock import Clock
from sterna.ports.fleet import Fleet, MigrationRecord, Page

log = structlog.get_logger(__name__)

LOOK_BACK = 100
"""How many completed migrations are looked through for what they taught."""
LOAD_HOLDS_S = 600.0
"""How long a measured load is thought to tell of the guest."""


class Lessons:
    """One controller's memory."""

    def __init__(self, fleet: Fleet, clock: Clock) -> None:
        self._fleet, self._clock = fleet, clock
        self._read: dict[str, Outcome | None] = {}
        self._loads: dict[str, tuple[float, Load]] = {}

    async def outcomes(self) -> list[Outcome]:
        """Of the last completed migrations, oldest first. Raises Unreachable."""
        done = await self._fleet.migrations(Page(statuses=(Status.COMPLETED,), limit=LOOK_BACK))
        found = [await self._outcome(record) for record in reversed(done)]
        self._read = {record.id: self._read[record.id] for record in done if record.id in self._read}
        return [outcome for outcome in found if outcome is not None]

    async def experience(self, vm_uuid: str, source: str, destination: str) -> Experience:
        """What those of this VM, and those between these hosts, taught. Raises Unreachable."""
        taught = Experience()
        for outcome in await self.outcomes():
            if outcome.vm == vm_uuid or (outcome.source, outcome.destination) == (source, destination):
                taught = taught.learn(outcome)
        return taught

    async def outlook(
        self, vm_uuid: str, source: str, destination: str, *, bandwidth_bytes_s: int | None
    ) -> Outlook:
        """Of a migration that is about to begin. Raises Unreachable."""
        taught = await self.experience(vm_uuid, source, destination)
        road = taught.road(vm_uuid, source, destination, bandwidth_bytes_s=bandwidth_bytes_s)
        return Outlook(load=self._load(vm_uuid), road=road)

    def measured(self, vm_uuid: str, load: Load) -> None:
        """For `outlook`, while it holds."""
        now = self._clock.monotonic_ms()
        self._loads = {vm: seen for vm, seen in self._loads.items() if now - seen[0] <= LOAD_HOLDS_S * 1000}
        self._loads[vm_uuid] = now, load

    def _load(self, vm_uuid: str) -> Load | None:
        at, load = self._loads.get(vm_uuid, (0.0, None))
        return load if self._clock.monotonic_ms() - at <= LOAD_HOLDS_S * 1000 else None

    async def _outcome(self, record: MigrationRecord) -> Outcome | None:
        if record.id in self._read:
            return self._read[record.id]
        entries = await self._fleet.entries(record.id)
        try:
            outcome = outcome_of(record.migration, entries)
        except ValueError as error:  # another version's words: nothing to learn, and no reason to refuse a move
            log.info("a migration teaches nothing", migration=record.id, error=str(error))
            outcome = None
        if record.source_closed and record.destination_closed:
            self._read[record.id] = outcome
        return outcome
