"""The real controller over the fleet: its database in virtual time, and migrations through it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from sterna.adapters.sql.fleet import SqlFleet
from sterna.adapters.sql.fleet_database import open_database
from sterna.controller.controller import Controller
from sterna.controller.intents.request import MigrateRequest
from sterna.ports.fleet import MigrationRecord
from sterna.sim.world.clock import SimClock
from tests.saga.fleet import SimFleet

Scenario = Callable[[SimFleet, Controller], Awaitable[None]]
Play = Callable[[Scenario], Awaitable[None]]


class HoldingFleet(SqlFleet):
    """Virtual time stands still while the database's threads work."""

    def __init__(self, database: str, clock: SimClock) -> None:
        super().__init__(open_database(database))
        self._clock = clock

    async def _run(self, work: Any, *args: Any, **kwargs: Any) -> Any:
        with self._clock.hold():
            return await super()._run(work, *args, **kwargs)

    async def _write(self, work: Any, *args: Any, **kwargs: Any) -> Any:
        with self._clock.hold():
            return await super()._write(work, *args, **kwargs)


async def started(fleet: SimFleet, controller: Controller, to: str | None = "host2") -> MigrationRecord:
    record, repeated = await controller.migrate(MigrateRequest(vm="tern", destination=to))
    assert not repeated
    fleet.migration = record.id
    return record


async def read(controller: Controller, id: str) -> MigrationRecord:
    for host in await controller.registry.hosts():
        await controller.projector.pull(host.name)
    return await controller.fleet.migration(id)
