"""Two controllers on one database: together they are one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from sterna.adapters.sql.fleet import SqlFleet
from sterna.controller.controller import Controller
from sterna.domain.errors import Conflict, NotFound
from sterna.domain.status import Status
from sterna.ports.fleet import MigrationRecord, Page

from ..domain.journals import good_destination, good_source
from .conftest import World
from .test_migrate_vm import ID, request
from .test_projector import MOVE


@pytest.fixture
async def other(world: World, database: str) -> AsyncIterator[Controller]:
    """The other one; the fixture `world` has made the first."""
    controller = Controller(SqlFleet.open(database), world.bus, world.clock)
    await world.bus.beat(controller)
    yield controller
    await controller.stop()


async def test_of_many_requests_at_both_one_is_accepted(world: World, other: Controller) -> None:
    both = [world.controller, other]
    answers = await asyncio.gather(
        *(both[n % 2].migrate(request(id="")) for n in range(20)), return_exceptions=True
    )
    assert sum(1 for a in answers if isinstance(a, tuple)) == 1
    assert sum(1 for a in answers if isinstance(a, Conflict)) == 19
    assert len(await world.fleet.migrations(Page())) == 1 and world.bus.asked("start_migration") == 1


async def test_the_same_request_at_both_is_one_migration(
    world: World, other: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, looks = other.fleet.migration, 0

    async def too_early(migration_id: str) -> MigrationRecord:
        nonlocal looks
        looks += 1
        if looks == 1:
            first, _ = await world.controller.migrate(request())  # it comes between the look and what follows
            raise NotFound(f"there is no migration {first.id}")
        return await look(migration_id)

    monkeypatch.setattr(other.fleet, "migration", too_early)
    record, repeated = await other.migrate(request())
    assert repeated and record.id == ID
    assert world.bus.asked("start_migration") == 1


async def test_both_read_every_journal_and_each_entry_is_there_once(world: World, other: Controller) -> None:
    world.a.write(good_source(MOVE))
    world.b.write(good_destination(MOVE))
    pulls = [c.projector.pull(host) for c in (world.controller, other) for host in ("a", "b")]
    await asyncio.gather(*pulls)
    record = await other.fleet.migration("m1")
    assert record.status is Status.COMPLETED and record.source_closed and record.destination_closed
    stored = await world.fleet.events(0, "m1", limit=1000)
    assert len(stored) == len(world.a.journal) + len(world.b.journal)
    told = [event async for event in other.follow("m1", None)]
    assert told[-1].kind == "end" and len(told) == len(stored) + 1
