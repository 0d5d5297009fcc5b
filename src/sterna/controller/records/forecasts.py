"""What was learnt from completed migrations, and the loads last measured for plans: the next one's expectations.

Read from the records; a completed migration that both hosts have closed is read once. One that no controller is
known to have asked for teaches nothing: its host may have made it up. Loads are kept in this process only: a plan
answered by another controller is not known here, and nothing but a forecast is lost by that.
"""

from __future__ import annotations

import asyncio

import structlog

from sterna.domain.errors import Unreachable
from sterna.domain.experience import Experience, Outcome, outcome_of
from sterna.domain.forecast import Expectations, Load
from sterna.domain.status import Status
from sterna.ports.clock import Clock
from sterna.ports.fleet import Fleet, MigrationRecord, Page

LOOK_BACK = 100
"""How many completed migrations are read to learn from them."""
READ_S = 10.0
"""How long a request waits until they are read; the reading goes on."""
LOAD_HOLDS_S = 600.0
"""How long a measured load is taken to describe the guest."""

log = structlog.get_logger(__name__)


class ForecastHistory:
    """One controller's memory."""

    def __init__(self, fleet: Fleet, clock: Clock) -> None:
        self._fleet, self._clock = fleet, clock
        self._read: dict[str, Outcome | None] = {}
        self._loads: dict[str, tuple[float, Load]] = {}
        self._reading: asyncio.Task[list[Outcome]] | None = None

    def begin(self) -> None:
        """Read beside all else, so that the first migration after a start of the controller need not wait."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._look_back(), name="lessons")
            self._reading.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def stop(self) -> None:
        """Read no more."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def outcomes(self) -> list[Outcome]:
        """Of the last completed migrations, oldest first; many that ask at once share one look. Raises
        Unreachable, also after READ_S."""
        self.begin()
        assert self._reading is not None
        try:
            async with asyncio.timeout(READ_S):
                return await asyncio.shield(self._reading)
        except TimeoutError as e:
            why = f"past migrations were not read within {READ_S:g} s: the database is slow"
            raise Unreachable(why, fix="try again in a moment") from e

    async def _look_back(self) -> list[Outcome]:
        page = Page(statuses=(Status.COMPLETED,), limit=LOOK_BACK, asked_for=True)
        done = await self._fleet.migrations(page)
        found = [await self._outcome(record) for record in reversed(done)]
        self._read = {record.id: self._read[record.id] for record in done if record.id in self._read}
        return [outcome for outcome in found if outcome is not None]

    async def experience(self, vm_uuid: str, source: str, destination: str) -> Experience:
        """From the migrations of this VM, and those between these hosts. Raises Unreachable."""
        taught = Experience()
        for outcome in await self.outcomes():
            if outcome.vm == vm_uuid or (outcome.source, outcome.destination) == (source, destination):
                taught = taught.learn(outcome)
        return taught

    async def expectations(
        self, vm_uuid: str, source: str, destination: str, *, bandwidth_bytes_s: int | None
    ) -> Expectations:
        """Of a migration that is about to begin. Raises Unreachable."""
        taught = await self.experience(vm_uuid, source, destination)
        return self.expectations_from(taught, vm_uuid, source, destination, bandwidth_bytes_s=bandwidth_bytes_s)

    def expectations_from(
        self, taught: Experience, vm_uuid: str, source: str, destination: str, *, bandwidth_bytes_s: int | None
    ) -> Expectations:
        """The same, from an `Experience` that was read before."""
        link = taught.link(vm_uuid, source, destination, bandwidth_bytes_s=bandwidth_bytes_s)
        return Expectations(load=self._load(vm_uuid), link=link)

    def measured(self, vm_uuid: str, load: Load) -> None:
        """For `expectations`, while it holds."""
        now = self._clock.monotonic_ms()
        self._loads = {vm: seen for vm, seen in self._loads.items() if now - seen[0] <= LOAD_HOLDS_S * 1000}
        self._loads[vm_uuid] = now, load

    def loads(self) -> dict[str, Load]:
        """VM -> its load as last measured, as far as it is known here: nothing is read for it."""
        known: dict[str, Load] = {}
        for outcome in self._read.values():  # newest first
            if outcome is not None and outcome.load is not None:
                known.setdefault(outcome.vm, outcome.load)
        return known | {vm: load for vm, (_, load) in self._loads.items()}

    def _load(self, vm_uuid: str) -> Load | None:
        at, load = self._loads.get(vm_uuid, (0.0, None))
        return load if self._clock.monotonic_ms() - at <= LOAD_HOLDS_S * 1000 else None

    async def _outcome(self, record: MigrationRecord) -> Outcome | None:
        if record.id in self._read:
            return self._read[record.id]
        entries = await self._fleet.entries(record.id)
        try:
            outcome = outcome_of(record.migration, entries)
        except Exception as e:  # an entry of another version: only a forecast is lost, and no migration may be
            log.warning("nothing can be learnt from a finished migration", migration=record.id, error=repr(e))
            outcome = None
        if record.source_closed and record.destination_closed:
            self._read[record.id] = outcome
        return outcome
