"""What only PostgreSQL can do to a controller: be away, hang, be shared by several controllers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

from sterna.adapters.sql import fleet_database
from sterna.adapters.sql.fleet import SqlFleet
from sterna.adapters.sql.fleet_database import open_database
from sterna.controller.controller import Controller
from sterna.controller.records.projector import apply
from sterna.domain.errors import Unreachable
from sterna.ports.fleet import Page
from tests.contract.records import AT, Held, accepted, batch, facts, move
from tests.postgres import Postgres
from tests.unit.api.clients import client, served
from tests.unit.controller.fakes import FakeAgent, FakeBus, HandClock
from tests.unit.domain.journals import good_source


@pytest.fixture
def database(postgres: Postgres) -> str:
    """The URL of an empty database."""
    return postgres.database()


@pytest.fixture
async def fleet(database: str) -> AsyncIterator[SqlFleet]:
    fleet = SqlFleet.open(database)
    for number, name in enumerate("ab"):
        await fleet.save_host(facts(name, number), "life-1", AT)
    yield fleet
    await fleet.close()


# ------------------------------------------------------------ away


async def test_a_server_that_comes_back_is_used_again(fleet: SqlFleet, server: Postgres) -> None:
    await fleet.admit(move(1), AT)
    server.stop()
    for work in (fleet.hosts, lambda: fleet.admit(move(2), AT)):
        with pytest.raises(Unreachable, match="does not answer") as raised:
            await work()
        assert raised.value.fix
    server.start()
    assert [h.name for h in await fleet.hosts()] == ["a", "b"]
    assert not (await fleet.admit(move(2), AT))[1]
    assert [m.id for m in await fleet.migrations(Page())] == ["m2", "m1"]


async def test_a_restart_between_two_questions_is_not_noticed(fleet: SqlFleet, server: Postgres) -> None:
    await fleet.hosts()
    server.stop()
    server.start()
    assert [h.name for h in await fleet.hosts()] == ["a", "b"]


async def test_what_is_cut_off_in_the_middle_is_not_there_and_is_taken_later(
    fleet: SqlFleet, server: Postgres
) -> None:
    page, held = batch("a", good_source(move(1))), Held("m1")
    cut = asyncio.create_task(fleet.take(page, held, AT))
    await held.reached()
    server.stop()
    held.go()
    with pytest.raises(Unreachable):
        await cut
    server.start()
    assert (await fleet.events(0), (await fleet.host("a")).cursor) == ([], 0)
    assert len(await fleet.take(page, apply, AT)) == len(page.entries) == len(await fleet.events(0))


async def test_a_controller_says_that_its_database_is_away_and_goes_on_when_it_is_back(
    database: str, server: Postgres
) -> None:
    agent = FakeAgent("a", 1)
    bus = FakeBus(agent, FakeAgent("b", 2))
    controller = Controller(SqlFleet.open(database), bus, HandClock())
    async with client(served(controller)) as http, asyncio.timeout(30):
        await bus.beat(controller)
        await controller.start()
        server.stop()
        agent.write(good_source(move(1)))
        await bus.hint("journal.a", {"last": 1})
        beacon = {"host": facts("c", 3).model_dump(), "boot": "life-1", "journal_last": 0}
        await bus.hint("host.c", beacon)
        await bus.hint("progress.a.m1", {"sample": {}})
        for path in ("hosts", "vms", "migrations", "migrations/m1"):
            answer = await http.get(f"/v1/{path}")
            assert answer.status_code == 503 and "does not answer" in answer.json()["detail"], path
            assert answer.json()["reasons"][0]["fix"]
        server.start()
        await bus.hint("host.c", beacon)
        await bus.hint("journal.a", {"last": 1})
        async for event in controller.follow(None, 0):
            if event.data.get("status") == "completed":
                break
        assert [h["name"] for h in (await http.get("/v1/hosts")).json()["hosts"]] == ["a", "b", "c"]
    await controller.stop()


async def test_a_controller_starts_without_its_database(database: str, server: Postgres) -> None:
    agent = FakeAgent("a", 1)
    bus = FakeBus(agent)
    controller = Controller(SqlFleet.open(database), bus, HandClock())
    await controller.fleet.save_host(facts("a", 1), "life-1", AT)
    server.stop()
    async with client(served(controller)) as http, asyncio.timeout(60):
        await controller.start()
        assert (await http.get("/v1/hosts")).status_code == 503
        server.start()
        agent.write(good_source(move(1)))
        await bus.hint("host.a", {"host": facts("a", 1).model_dump(), "boot": "life-1", "journal_last": 0})
        await bus.hint("journal.a", {"last": 1})
        async for event in controller.follow(None, 0):
            if event.data.get("status") == "completed":
                break
        assert [h["name"] for h in (await http.get("/v1/hosts")).json()["hosts"]] == ["a"]
    await controller.stop()


# ------------------------------------------------------------ hanging


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sterna.adapters.sql.postgres.PatientConnection.patience_s", 1.0)
    monkeypatch.setattr("sterna.adapters.sql.fleet.ANSWER_S", 4.0)
    monkeypatch.setitem(fleet_database._POSTGRES, "connect_timeout", "2")


@pytest.mark.usefixtures("impatient")
async def test_a_server_that_hangs_is_said_to_within_a_bound_and_is_used_again_when_it_goes_on(
    database: str, server: Postgres
) -> None:
    controller = Controller(SqlFleet.open(database), FakeBus(FakeAgent("a", 1)), HandClock())
    async with client(served(controller), timeout=30) as http:
        await asyncio.gather(*(http.get("/v1/hosts") for _ in range(8)))
        server.freeze()
        try:
            began = time.monotonic()
            asked = (http.get(f"/v1/{path}") for path in ("hosts", "vms", "migrations", "migrations/m1") * 10)
            async with asyncio.timeout(15):
                answers = await asyncio.gather(*asked)
            assert {a.status_code for a in answers} == {503} and time.monotonic() - began < 8
            assert all("does not answer" in a.json()["detail"] and a.json()["reasons"][0]["fix"] for a in answers)
            assert sum(t.name.startswith("fleet-") for t in threading.enumerate()) <= 4
        finally:
            server.thaw()
        async with asyncio.timeout(10):
            while (await http.get("/v1/hosts")).status_code != 200:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.1)
        assert time.monotonic() - began < 15
    await controller.fleet.close()


@pytest.mark.usefixtures("impatient")
async def test_a_server_that_hangs_in_the_middle_of_a_transaction(
    database: str, fleet: SqlFleet, server: Postgres
) -> None:
    # `fleet` has connections from before: the class's patience is looked up at each wait
    page, held = batch("a", good_source(move(1))), Held("m1")
    cut = asyncio.create_task(fleet.take(page, held, AT))
    await held.reached()
    server.freeze()
    try:
        held.go()
        with pytest.raises(Unreachable, match="hangs"):
            await asyncio.wait_for(cut, 10)
    finally:
        server.thaw()
    async with asyncio.timeout(20):
        assert len(await fleet.take(page, apply, AT)) == len(page.entries) == len(await fleet.events(0))


@pytest.mark.usefixtures("impatient")
def test_a_server_that_hangs_while_a_controller_starts_is_said_to_soon(
    database: str, server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = fleet_database.take_turn

    def hangs(connection: Connection) -> None:
        server.freeze()
        turn(connection)

    monkeypatch.setattr(fleet_database, "take_turn", hangs)
    monkeypatch.setattr(fleet_database, "_UPGRADE_S", 6.0)
    try:
        with pytest.raises(Unreachable, match="no answer within 1 s"):
            open_database(database)
    finally:
        server.thaw()


@pytest.mark.usefixtures("impatient")
def test_nor_is_one_waited_for_whose_tables_are_up_to_date(
    database: str, server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_database(database).dispose()
    read = MigrationContext.get_current_revision

    def hangs(context: MigrationContext) -> str | None:
        found = read(context)
        server.freeze()
        return found

    monkeypatch.setattr(MigrationContext, "get_current_revision", hangs)
    monkeypatch.setattr(fleet_database, "_UPGRADE_S", 6.0)
    try:
        with pytest.raises(Unreachable, match="no answer within 1 s"):
            open_database(database)
    finally:
        server.thaw()


@pytest.mark.usefixtures("impatient")
def test_bringing_the_tables_up_to_date_may_take_longer(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def takes_long(config: Config, _revision: str) -> None:
        config.attributes["connection"].exec_driver_sql("SELECT pg_sleep(2)")

    monkeypatch.setattr(command, "upgrade", takes_long)
    open_database(database).dispose()


# ------------------------------------------------------------ several controllers


def test_many_that_start_on_an_empty_database_make_its_tables_once(database: str) -> None:
    with ThreadPoolExecutor(8) as at_once:
        engines = list(at_once.map(open_database, [database] * 8))
    with engines[0].connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM hosts")).scalar() == 0
    for engine in engines:
        engine.dispose()


async def test_one_that_hangs_in_the_middle_holds_up_the_others_for_a_moment(
    database: str, fleet: SqlFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_database, "_SESSION", ("SET idle_in_transaction_session_timeout = '1s'",))
    hangs, held = SqlFleet.open(database), Held("m1")
    page = batch("a", accepted(move(1)))
    first = asyncio.create_task(hangs.take(page, held, AT))
    await held.reached()
    assert len(await fleet.take(page, apply, AT)) == 1
    held.go()
    with pytest.raises(Unreachable, match="idle"):
        await first
    assert await hangs.take(page, apply, AT) == []
    assert len(await fleet.events(0)) == 1
    await hangs.close()


async def test_who_reads_does_not_wait_for_who_writes(database: str, fleet: SqlFleet) -> None:
    writer, held = SqlFleet.open(database), Held("m1")
    writing = asyncio.create_task(writer.take(batch("a", accepted(move(1))), held, AT))
    await held.reached()
    async with asyncio.timeout(10):
        assert (await fleet.events(0), await fleet.vms(), (await writer.host("a")).cursor) == ([], [], 0)
    held.go()
    await writing
    await writer.close()
