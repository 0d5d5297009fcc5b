"""Many hosts are asked for their lists of VMs at once: for a preview, and before an operation ends."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

import pytest

from sterna.controller.records import snapshot
from sterna.domain.errors import Undelivered
from sterna.domain.fleet.course import OperationStatus
from sterna.domain.model import Data
from sterna.domain.sightings import News
from sterna.ports.fleet import Taken

from .conftest import World
from .fakes import FakeAgent, FakeBus
from .operating import Stage

MANY = 150


@pytest.fixture
async def many(world: World) -> World:
    """So many hosts."""
    for number in range(MANY):
        world.bus.agents[f"h{number}"] = agent = FakeAgent(f"h{number}", 10 + number)
        agent.add_vm(f"vm{number}", 1000 + number)
    await world.bus.beat(world.controller)
    return world


async def test_so_many_are_asked_at_once_and_stored_in_portions(
    many: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = most = 0
    portions = list[int]()
    answer, take = FakeBus._list_vms, many.fleet.take_news
    call = many.bus.call

    async def counted(to: str, method: str, params: Data, **more: object) -> Data:
        nonlocal asked, most
        asked += 1
        most = max(most, asked)
        for _ in range(3):
            await asyncio.sleep(0)
        try:
            return await call(to, method, params)
        finally:
            asked -= 1

    async def taken(told: Sequence[tuple[str, News]], again: Collection[str], at: str) -> Taken:
        portions.append(len(told))
        return await take(told, again, at)

    monkeypatch.setattr(many.bus, "call", counted)
    monkeypatch.setattr(many.fleet, "take_news", taken)
    assert await many.controller.snapshot.ask_now(sorted(many.bus.agents)) == {}
    assert most <= snapshot.AT_ONCE and max(portions) <= snapshot.STORED_AT_ONCE
    assert sum(portions) == MANY + 3 and len(await many.fleet.vms()) == MANY + 1 and answer is FakeBus._list_vms


async def test_those_for_which_there_is_no_time_are_named(many: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many.controller.snapshot, "_places", asyncio.Semaphore(1))

    async def slowly(to: str, method: str, params: Data, **more: object) -> Data:
        many.clock.ms += 10_000
        raise Undelivered(f"nobody answers for {to}")

    monkeypatch.setattr(many.bus, "call", slowly)
    failed = await many.controller.snapshot.ask_now([f"h{number}" for number in range(20)])
    assert len(failed) == 20
    assert sum("was not asked" in error.message for error in failed.values()) == 14


async def test_hosts_that_do_not_list_are_not_asked_at_each_look(stage: Stage) -> None:
    await stage.begin("b", "c")
    stage.bus.faults["list_vms"] = [Undelivered("lost")] * 1000
    before = stage.bus.asked("list_vms")
    for _ in range(30):
        stage.clock.ms += 500
        await stage.bus.beat(stage.controller)
        await stage.controller.operations.look()
    operation = await stage.operation()
    assert operation.status is OperationStatus.RUNNING and "has not listed its VMs" in operation.standing.waits_for
    assert stage.bus.asked("list_vms") - before <= 2 * 3
    stage.bus.faults.clear()
    assert (await stage.run()).status is OperationStatus.DONE
