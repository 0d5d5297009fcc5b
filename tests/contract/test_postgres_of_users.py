"""Databases, servers and addresses as people make them: settings of their own, wrong addresses, missing rights."""

from __future__ import annotations

import asyncio

import pytest

from sterna.adapters.sql import fleet_database
from sterna.adapters.sql.fleet import SqlFleet
from sterna.adapters.sql.fleet_database import is_away, open_database
from sterna.controller.records.projector import apply
from sterna.domain.errors import Permanent, SternaError, Unreachable
from sterna.ports.fleet import Page
from tests.contract.records import AT, Held, accepted, batch, facts, move, saw, seen, taking
from tests.postgres import Postgres
from tests.unit.domain.journals import good_source


@pytest.fixture
def database(postgres: Postgres) -> str:
    """The URL of an empty database."""
    return postgres.database()


def name_of(url: str) -> str:
    return url.split("/")[3].split("?", maxsplit=1)[0]


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


async def test_more_events_than_32_bits_can_count(database: str, postgres: Postgres) -> None:
    fleet = SqlFleet.open(database)
    await fleet.save_host(facts("a"), "life-1", AT)
    postgres.execute("ALTER SEQUENCE entries_id_seq RESTART WITH 5000000000", database=name_of(database))
    (stored,) = await fleet.take(batch("a", accepted(move(1))), apply, AT)
    assert stored.id == 5_000_000_000 == await fleet.last_event()
    assert await fleet.events(4_999_999_999) == [stored] and await fleet.events(2**63 - 1) == []
    assert len(await fleet.migrations(Page(before=2**63 - 1))) == 1
    await fleet.close()


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
