"""What finished migrations taught is of use to the next one, and never in its way."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sterna.adapters.sql.fleet import SqlFleet
from sterna.controller.records import forecasts as forecast_history
from sterna.domain.errors import Unreachable
from sterna.domain.journal import Entry, Kind
from sterna.domain.objective import Asked
from sterna.domain.status import Status
from sterna.ports.fleet import Page
from tests.unit.controller.requests import MOVE, request

from ..domain.journals import good_destination, good_source
from .conftest import World
from .fakes import uuid

LONG_S = 20.0
NOT_OURS = [
    {"forecast": {"mode": "teleport", "ends": True, "odds": 1}},
    {"forecast": "soon"},
    {"link": {"correction": "none"}},
    {"link": 7},
]


async def finish(world: World, *ids: str, load: dict[str, Any] | None = None) -> None:
    for id in ids:
        move = MOVE.model_copy(update={"id": id})
        await world.fleet.admit(move, "2026-01-01T00:00:00+00:00")
        source = good_source(move)
        if load is not None:
            source.write(Kind.NOTE, "M3", "load", load)
        world.a.write(source)
        world.b.write(good_destination(move))
        await world.pull()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the migrations whose journals are read."""
    seen: list[str] = []
    entries = SqlFleet.entries

    async def counted(self: SqlFleet, migration_id: str) -> list[Entry]:
        seen.append(migration_id)
        return await entries(self, migration_id)

    monkeypatch.setattr(SqlFleet, "entries", counted)
    return seen


@pytest.mark.parametrize("load", NOT_OURS)
async def test_a_journal_that_teaches_nothing_stops_no_migration(world: World, load: dict[str, Any]) -> None:
    await finish(world, "m1", load=load)
    await finish(world, "m2")
    record, _ = await world.controller.migrate(request())
    assert record.status is Status.QUEUED
    assert (await world.controller.accuracy()).time.compared == 0
    assert (await world.controller.plan("web1", "b", Asked())).bandwidth_from == "learnt"  # from the other one


async def test_what_a_host_made_up_teaches_nothing_and_displaces_nothing(world: World) -> None:
    await finish(world, "m1")
    load = {"dirty_bytes": 2**40, "dirty_period_s": 1, "allocated_bytes": 2**40}
    for number in range(forecast_history.LOOK_BACK + 20):
        update = {"id": f"made-up-{number}", "source": "c", "destination": "b"}
        source = good_source(MOVE.model_copy(update=update)).write(Kind.NOTE, "M3", "load", {"load": load})
        world.c.write(source)
    await world.pull()
    assert len(await world.fleet.migrations(Page(statuses=(Status.COMPLETED,), limit=500))) > 100
    history = world.controller.forecast_history
    assert [one.source for one in await history.outcomes()] == ["a"] and history.loads() == {}
    assert (await world.controller.plan("web1", "b", Asked())).bandwidth_from == "learnt"


async def test_many_requests_at_once_read_each_journal_once(world: World, read: list[str]) -> None:
    await finish(world, "m1", "m2", "m3")
    await asyncio.gather(*(world.controller.accuracy() for _ in range(20)))
    assert sorted(read) == ["m1", "m2", "m3"]


@pytest.mark.parametrize("how", ["fails", "hangs"])
async def test_a_database_that_does_not_tell_of_the_past_keeps_no_migration_from_beginning(
    world: World, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    await finish(world, "m1")
    tells, entries = asyncio.Event(), world.fleet.entries

    async def silent(migration_id: str) -> list[Entry]:
        if how == "fails":
            raise Unreachable("the controller's database does not answer within 30 s")
        await tells.wait()
        return await entries(migration_id)

    monkeypatch.setattr(forecast_history, "READ_S", 0.1)
    monkeypatch.setattr(world.fleet, "entries", silent)
    async with asyncio.timeout(LONG_S):
        record, _ = await world.controller.migrate(request())
        expected = record.migration.options.expectations
        assert record.accepted and expected is not None and expected.link is None
        limited = request("web2", "a", id=uuid(99)).model_copy(update={"asked": Asked(bandwidth_bytes_s=2**20)})
        world.b.add_vm("web2", 2)
        record, _ = await world.controller.migrate(limited)
        expected = record.migration.options.expectations  # what was asked for is known
        assert expected is not None and expected.link is not None and expected.link.bandwidth_bytes_s == 2**20
        plan = await world.controller.plan("web1", "b", Asked())
        assert plan.load is not None and plan.forecasts == ()
        assert "does not answer" in plan.bandwidth_from if how == "fails" else "not read" in plan.bandwidth_from
        with pytest.raises(Unreachable):
            await world.controller.accuracy()
        monkeypatch.setattr(world.fleet, "entries", entries)
        monkeypatch.setattr(forecast_history, "READ_S", LONG_S)
        tells.set()
        assert (await world.controller.plan("web1", "b", Asked())).bandwidth_from == "learnt"


async def test_they_are_read_when_the_controller_starts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await finish(world, "m1")
    begun, entries = asyncio.Event(), world.fleet.entries

    async def told(migration_id: str) -> list[Entry]:
        begun.set()
        return await entries(migration_id)

    monkeypatch.setattr(world.fleet, "entries", told)
    await world.controller.start()
    async with asyncio.timeout(5):
        await begun.wait()  # nobody has asked for anything
