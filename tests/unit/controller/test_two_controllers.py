"""Two controllers on one database: together they are one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sterna.adapters.sql.fleet import SqlFleet
from sterna.controller.controller import Controller
from sterna.domain.errors import Conflict, NotFound, Refused, SternaError, Undelivered
from sterna.domain.model import Data, Refusal
from sterna.domain.status import Status
from sterna.ports.fleet import MigrationRecord, Page
from tests.unit.controller.requests import ID, MOVE, request

from ..domain.journals import good_destination, good_source
from .conftest import World


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


@pytest.mark.parametrize(
    "error", [Refused([Refusal(code="memory-short", message="it is full")]), Undelivered("it is full")]
)
async def test_what_a_repeated_request_was_answered_with_is_kept(
    world: World, other: Controller, monkeypatch: pytest.MonkeyPatch, error: SternaError
) -> None:
    """The client lost its connection to the first controller, and asked the other one. That one has said that the
    migration was accepted before, and the source refuses it afterwards."""
    call, answers = world.bus.call, []

    async def refuse(target: str, method: str, params: Data, **more: Any) -> Data:
        if method != "start_migration":
            return await call(target, method, params, **more)
        answers.append(await other.migrate(request()))
        raise error

    monkeypatch.setattr(world.bus, "call", refuse)
    with pytest.raises(type(error)):
        await world.controller.migrate(request())
    (record, repeated) = answers[0]
    assert repeated and record.id == ID
    kept = await other.fleet.migration(ID)
    assert kept.status is Status.FAILED and kept.finished_at and "it is full" in kept.reason
    assert (await other.inventory.find(record.migration.vm_uuid)).migration_id is None


async def test_a_request_that_was_withdrawn_as_it_was_repeated_is_a_new_one(
    world: World, other: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.fleet.admit(MOVE.model_copy(update={"id": ID}), "2026-11-29T00:00:00+00:00")
    look, looks = other.fleet.migration, 0

    async def too_late(migration_id: str) -> MigrationRecord:
        nonlocal looks
        looks, known = looks + 1, await look(migration_id)
        if looks == 1:
            await world.fleet.withdraw(migration_id, "refused", known.updated_at)
        return known

    monkeypatch.setattr(other.fleet, "migration", too_late)
    record, repeated = await other.migrate(request())
    assert not repeated and record.id == ID and record.accepted


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
