"""Writes that wait for the records' thread share one transaction, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from sterna.adapters.sql import fleet_database, group_commit
from sterna.adapters.sql import host_statements as statements
from sterna.adapters.sql.fleet import SqlFleet
from sterna.adapters.sql.fleet_database import own_errors
from sterna.domain.errors import Conflict, Temporary, Unreachable
from sterna.ports.fleet import HostRecord
from tests.contract.records import AT, facts, move, uuid
from tests.postgres import Postgres


@pytest.fixture
async def fleet(database: str) -> AsyncIterator[SqlFleet]:
    fleet = SqlFleet.open(database)
    await fleet.save_host(facts("a"), "life-1", AT)
    yield fleet
    await fleet.close()


@contextlib.asynccontextmanager
async def thread_is_busy(fleet: SqlFleet) -> AsyncIterator[None]:
    """Inside, what is to be written waits for the records' thread; all of it has its turn at the end."""
    begun, goes_on = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        assert goes_on.wait(20)

    held = fleet._writer.submit(hold)
    assert await asyncio.to_thread(begun.wait, 20)
    yield
    await asyncio.sleep(0)
    goes_on.set()
    await asyncio.wrap_future(held)


async def at_once(fleet: SqlFleet, *writes: Callable[[Connection], Any]) -> list[Any]:
    """What each returns or raises: they wait for the thread together."""
    async with thread_is_busy(fleet):
        waiting = [asyncio.ensure_future(fleet._write(one)) for one in writes]
    return await asyncio.gather(*waiting, return_exceptions=True)


def add(name: str) -> Callable[[Connection], HostRecord]:
    return lambda connection: statements.save_host(connection, facts(name, ord(name)), "life-1", AT)


async def test_writes_that_wait_share_a_commit_and_one_that_fails_takes_back_its_own_only(fleet: SqlFleet) -> None:
    commits = list[object]()
    async with thread_is_busy(fleet):
        event.listen(fleet._engine, "commit", commits.append)
        moves = [fleet.admit(move(n, vm=vm), AT) for n, vm in ((1, 1), (2, 1), (3, 3))]
        waiting = [asyncio.ensure_future(one) for one in moves]
    done = await asyncio.gather(*waiting, return_exceptions=True)
    assert len(commits) == 1
    assert [isinstance(one, Conflict) for one in done] == [False, True, False]
    assert {vm.uuid: vm.migration_id for vm in await fleet.vms()} == {uuid(1): "m1", uuid(3): "m3"}


async def test_the_first_one_that_fails_takes_back_its_own_only(fleet: SqlFleet) -> None:
    def fails(c: Connection) -> None:
        add("b")(c)
        raise Conflict("held")

    done = await at_once(fleet, fails, add("c"), fails, add("d"))
    assert [type(one) for one in done] == [Conflict, HostRecord, Conflict, HostRecord]
    assert [host.name for host in await fleet.hosts()] == ["a", "c", "d"]


async def test_one_that_is_not_wanted_any_more_is_not_done(fleet: SqlFleet) -> None:
    async with thread_is_busy(fleet):
        left = asyncio.ensure_future(fleet.admit(move(1), AT))
        stays = asyncio.ensure_future(fleet.admit(move(2), AT))
        await asyncio.sleep(0)
        left.cancel()
    await stays
    assert [vm.uuid for vm in await fleet.vms()] == [uuid(2)]


async def test_a_connection_that_is_lost_is_said_to_all_whose_work_it_takes_along(postgres: Postgres) -> None:
    fleet = SqlFleet.open(postgres.schema())

    def is_cut_off(c: Connection) -> None:
        c.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    done = await at_once(fleet, add("a"), is_cut_off, add("b"))
    assert [type(one) for one in done] == [Unreachable, Unreachable, HostRecord]
    assert done[0].fix and done[0] is not done[1], "who raises the same one adds to its traceback each time"
    assert [host.name for host in await fleet.hosts()] == ["b"]
    await fleet.close()


async def test_a_server_that_hangs_in_the_middle_is_unreachable_for_all(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sterna.adapters.sql.postgres.PatientConnection.patience_s", 1.0)
    monkeypatch.setitem(fleet_database._POSTGRES, "connect_timeout", "2")
    fleet = SqlFleet.open(postgres.schema())

    def hangs(c: Connection) -> None:
        postgres.freeze()
        c.execute(text("SELECT 1"))

    try:
        async with asyncio.timeout(20):
            done = await at_once(fleet, add("a"), hangs, add("b"))
    finally:
        postgres.thaw()
    assert [type(one) for one in done] == [Unreachable] * 3
    assert await fleet.hosts() == []
    await fleet.close()


async def test_a_file_that_cannot_grow_takes_back_all_that_was_written_with_it(tmp_path: Path) -> None:
    """SQLite ends the whole transaction then, not the savepoint alone."""
    fleet = SqlFleet.open(f"sqlite:///{tmp_path}/controller.db")

    def is_full(c: Connection) -> None:
        pages = c.exec_driver_sql("PRAGMA page_count").scalar()
        c.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        c.exec_driver_sql("INSERT INTO answers VALUES (zeroblob(1000000), 200, '')")

    def has_room(c: Connection) -> None:
        c.exec_driver_sql("PRAGMA max_page_count = 100000")
        statements.save_host(c, facts("b", 2), "life-1", AT)

    done = await at_once(fleet, add("a"), is_full, has_room)
    assert [type(one) for one in done] == [Unreachable, Unreachable, type(None)]
    assert "full" in done[0].message and "full" in done[1].message
    assert [host.name for host in await fleet.hosts()] == ["b"]
    await fleet.close()


def test_work_on_a_lost_connection_is_unreachable(tmp_path: Path) -> None:
    engine = fleet_database.open_database(f"sqlite:///{tmp_path}/controller.db")
    with pytest.raises(Unreachable, match="does not answer") as raised, own_errors(), engine.begin() as connection:
        connection.invalidate()
        connection.begin_nested()
    assert raised.value.fix
    engine.dispose()


async def test_a_transaction_that_has_lasted_for_a_while_takes_no_more_along(
    fleet: SqlFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "SHARED_S", 0.0, raising=False)
    commits = list[object]()
    event.listen(fleet._engine, "commit", commits.append)
    await at_once(fleet, add("b"), add("c"), add("d"))
    assert len(commits) == 3
    assert len(await fleet.hosts()) == 4


async def test_one_that_has_not_begun_is_dropped_while_another_is_written(
    fleet: SqlFleet,
) -> None:
    begun, goes_on = threading.Event(), threading.Event()

    def slow(_: Connection) -> None:
        begun.set()
        assert goes_on.wait(20)

    async with thread_is_busy(fleet):
        first = asyncio.ensure_future(fleet._write(slow))
        left = asyncio.ensure_future(fleet._write(add("b")))
    assert await asyncio.to_thread(begun.wait, 20)
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    goes_on.set()
    await first
    assert [host.name for host in await fleet.hosts()] == ["a"]


async def test_what_the_thread_does_not_take_is_not_done_later(
    fleet: SqlFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(_: object) -> None:
        raise Temporary("this host has no thread left")

    with monkeypatch.context() as patched:
        patched.setattr(fleet._writer, "submit", no_thread)
        with pytest.raises(Temporary):
            await fleet._write(add("b"))
    await fleet._write(add("c"))
    assert [host.name for host in await fleet.hosts()] == ["a", "c"]
