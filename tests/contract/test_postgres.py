"""What only PostgreSQL can do to a controller: be away, be cut off, be another's, have settings of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

from sterna.adapters.sql import fleet_database
from sterna.adapters.sql.fleet import SqlFleet
from sterna.adapters.sql.fleet_database import is_away, open_database
from sterna.controller.controller import Controller
from sterna.controller.records.projector import apply
from sterna.domain.errors import Permanent, SternaError, Unreachable
from sterna.ports.fleet import Page
from tests.contract.records import AT, Held, accepted, batch, facts, move, saw, seen, taking
from tests.postgres import Postgres
from tests.unit.api.clients import client, served
from tests.unit.controller.fakes import FakeAgent, FakeBus, HandClock
from tests.unit.domain.journals import good_source


def name_of(url: str) -> str:
    return url.split("/")[3].split("?", maxsplit=1)[0]


@pytest.fixture
def database(postgres: Postgres) -> str:
    return postgres.database()


@pytest.fixture
async def fleet(database: str) -> AsyncIterator[SqlFleet]:
    fleet = SqlFleet.open(database)
    for number, name in enumerate("ab"):
        await fleet.save_host(facts(name, number), "life-1", AT)
    yield fleet
    await fleet.close()


@pytest.fixture
def server(postgres: Postgres) -> Iterator[Postgres]:
    """The server, for tests that stop it."""
    yield postgres
    postgres.stop()
    postgres.start()


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


# ------------------------------------------------------------ databases as people make them


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
async def test_a_servers_own_isolation_level_changes_nothing(postgres: Postgres, level: str) -> None:
    url = postgres.database()
    postgres.execute(f"ALTER DATABASE {name_of(url)} SET default_transaction_isolation = '{level}'")
    one, two = SqlFleet.open(url), SqlFleet.open(url)
    await one.save_host(facts("a"), "life-1", AT)
    page, held = batch("a", good_source(move(1))), Held("m1")
    first = asyncio.create_task(taking(one, page)(held))
    await held.reached()
    second = asyncio.create_task(two.take(page, apply, AT))
    await asyncio.wait({second}, timeout=0.3)
    held.go()
    await first
    assert await second == []
    for fleet in (one, two):
        await fleet.close()


async def test_a_servers_own_encoding_of_clients_changes_nothing(postgres: Postgres) -> None:
    url = postgres.database()
    postgres.execute(f"ALTER DATABASE {name_of(url)} SET client_encoding = 'SQL_ASCII'")
    fleet = SqlFleet.open(url)
    await fleet.save_host(facts("a"), "life-1", AT)
    await saw(fleet, "a", [seen(1, name="Küstenseeschwalbe 🐦")], AT)
    assert [v.name for v in await fleet.vms_called("Küstenseeschwalbe 🐦")] == ["Küstenseeschwalbe 🐦"]
    await fleet.close()


async def test_more_events_than_32_bits_can_count(database: str, fleet: SqlFleet, postgres: Postgres) -> None:
    name = database.split("/")[3].split("?", maxsplit=1)[0]
    postgres.execute("ALTER SEQUENCE entries_id_seq RESTART WITH 5000000000", database=name)
    (stored,) = await fleet.take(batch("a", accepted(move(1))), apply, AT)
    assert stored.id == 5_000_000_000 == await fleet.last_event()
    assert await fleet.events(4_999_999_999) == [stored] and await fleet.events(2**63 - 1) == []
    assert len(await fleet.migrations(Page(before=2**63 - 1))) == 1


def test_what_cannot_be_opened_says_why(postgres: Postgres) -> None:
    with pytest.raises(Unreachable, match='"nosuch" does not exist') as raised:
        open_database(postgres.url("nosuch"))
    assert raised.value.fix
    with pytest.raises(Unreachable) as raised:
        open_database("postgresql://me:s3cret@127.0.0.1:1/sterna")
    assert "s3cret" not in raised.value.message
    with pytest.raises(Permanent, match="SQL_ASCII") as wrong:
        open_database(postgres.database("ENCODING 'SQL_ASCII' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0"))
    assert "UTF8" in wrong.value.fix


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me@127.0.0.1:s3cret/sterna",
        "postgresql://me:a@127.0.0.1:s3cret@/sterna",
        "postgresql://me:a@s3cret@127.0.0.1:1/sterna",
        "postgresql://127.0.0.1:1/sterna?user=me&password=s3cret",
        "postgresql://127.0.0.1:1/sterna?sslpassword=s3cret",
    ],
)
def test_no_error_shows_the_password_wherever_the_address_has_it(url: str) -> None:
    with pytest.raises(SternaError) as raised:
        open_database(url)
    assert "s3cret" not in raised.value.message + raised.value.fix


def test_a_password_that_is_not_encoded_is_not_waited_for() -> None:
    """Its end would be the name of a host that never answers."""
    with pytest.raises(Permanent) as raised:
        open_database("postgresql://me:a@b@127.0.0.1/sterna")
    assert "%40" in raised.value.fix


def test_a_server_that_refuses_is_told_from_one_that_is_away(postgres: Postgres, server: Postgres) -> None:
    name = name_of(postgres.database())
    with pytest.raises(Unreachable) as no_user:
        open_database(postgres.url(name, user="nobody"))
    with pytest.raises(Unreachable) as no_database:
        open_database(postgres.url("nosuch"))
    assert not is_away(postgres.url(name, user="nobody"), no_user.value)
    assert not is_away(postgres.url("nosuch"), no_database.value)
    server.stop()
    for url in (postgres.url(name), "postgresql://me:s3cret@127.0.0.1:1/sterna"):
        with pytest.raises(Unreachable) as away:
            open_database(url)
        assert is_away(url, away.value)


def test_another_controller_that_holds_the_turn_for_long_is_waited_for(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_database, "_SESSION", ("SET lock_timeout = '100ms'",))
    engine = open_database(database)
    with engine.begin() as connection:
        fleet_database.take_turn(connection)
        with pytest.raises(Unreachable, match="lock timeout") as raised:
            open_database(database)
    assert is_away(database, raised.value)
    engine.dispose()


async def test_a_user_without_rights_is_told_what_is_missing(postgres: Postgres) -> None:
    postgres.execute("DROP ROLE IF EXISTS guest", "CREATE ROLE guest LOGIN")
    name = name_of(postgres.database())
    with pytest.raises(Permanent, match="permission denied") as raised:
        open_database(postgres.url(name, user="guest"))
    assert "own" in raised.value.fix
    fleet = SqlFleet.open(postgres.url(name))
    postgres.execute("ALTER TABLE hosts RENAME TO gone", database=name)
    with pytest.raises(Permanent, match="refuses") as raised:
        await fleet.hosts()
    assert raised.value.fix
    await fleet.close()


async def test_another_programs_tables_are_left_alone(postgres: Postgres) -> None:
    url = postgres.database()
    postgres.execute("CREATE TABLE hosts (x int)", database=name_of(url))
    with pytest.raises(Permanent, match="not Sterna's"):
        open_database(url)
