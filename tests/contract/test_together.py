"""Writes that wait for the records' thread share one transaction, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import Connection, event

from sterna.adapters.sql.fleet import SqlFleet
from sterna.domain.errors import Conflict
from tests.contract.records import AT, facts, move, uuid


@pytest.fixture
async def fleet(database: str) -> AsyncIterator[SqlFleet]:
    fleet = SqlFleet.open(database)
    await fleet.save_host(facts("a"), "life-1", AT)
    yield fleet
    await fleet.close()


async def test_writes_that_wait_share_a_commit_and_one_that_fails_takes_back_its_own_only(fleet: SqlFleet) -> None:
    begun, goes_on, commits = threading.Event(), threading.Event(), list[object]()

    def hold(_: Connection) -> None:
        begun.set()
        assert goes_on.wait(20)

    held = asyncio.ensure_future(fleet._write(hold))
    await asyncio.sleep(0)
    assert await asyncio.to_thread(begun.wait, 20)
    event.listen(fleet._engine, "commit", commits.append)
    moves = [fleet.admit(move(n, vm=vm), AT) for n, vm in ((1, 1), (2, 1), (3, 3))]
    waiting = [asyncio.ensure_future(one) for one in moves]
    await asyncio.sleep(0)
    goes_on.set()
    done = await asyncio.gather(*waiting, return_exceptions=True)
    await held
    assert len(commits) == 2, "that of the one before them, and theirs"
    assert [isinstance(one, Conflict) for one in done] == [False, True, False]
    assert {vm.uuid: vm.migration_id for vm in await fleet.vms()} == {uuid(1): "m1", uuid(3): "m3"}


async def test_one_that_is_not_wanted_any_more_is_not_done(fleet: SqlFleet) -> None:
    begun, goes_on = threading.Event(), threading.Event()

    def hold(_: Connection) -> None:
        begun.set()
        assert goes_on.wait(20)

    held = asyncio.ensure_future(fleet._write(hold))
    await asyncio.sleep(0)
    assert await asyncio.to_thread(begun.wait, 20)
    left = asyncio.ensure_future(fleet.admit(move(1), AT))
    stays = asyncio.ensure_future(fleet.admit(move(2), AT))
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.sleep(0)
    goes_on.set()
    await held
    await stays
    assert [vm.uuid for vm in await fleet.vms()] == [uuid(2)]
