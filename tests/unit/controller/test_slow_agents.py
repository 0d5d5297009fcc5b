"""Questions to many agents are asked at once, and each has its own deadline: one that hangs holds up no other."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from sterna.controller.intents.declare_dead import LONGEST_S
from sterna.domain.audit import AUDIT_S, REPAIR_S
from sterna.domain.errors import Unknown
from sterna.domain.model import Data
from tests.unit.controller.requests import ID, request

from .conftest import World

COMMAND_LINE_S = 120.0


class Meeting:
    """Each call of that method waits until so many of them are under way."""

    def __init__(self, world: World, method: str, expected: int) -> None:
        self._call, self._method, self._expected = world.bus.call, method, expected
        self.limits: dict[str, float | None] = {}
        self.most = self._now = 0
        self._met = asyncio.Event()
        world.bus.call = self.call  # type: ignore[method-assign]

    async def call(self, to: str, method: str, params: Data, **more: Any) -> Data:
        if method == self._method:
            self.limits[to] = more.get("total_s")
            self._now += 1
            self.most = max(self.most, self._now)
            if self._now == self._expected:
                self._met.set()
            async with asyncio.timeout(5):
                await self._met.wait()
            self._now -= 1
        return await self._call(to, method, params, **more)


async def test_hosts_are_audited_at_once_and_repaired_one_after_the_other(world: World) -> None:
    meeting = Meeting(world, "audit", 3)
    assert (await world.controller.audits.audit()).asked == 3
    assert meeting.most == 3
    assert {AUDIT_S < limit < COMMAND_LINE_S for limit in meeting.limits.values() if limit} == {True}
    one_by_one = Meeting(world, "audit", 1)
    assert (await world.controller.audits.audit(repair=True)).asked == 3
    assert one_by_one.most == 1
    assert {limit > REPAIR_S for limit in one_by_one.limits.values() if limit} == {True}


async def gone(world: World) -> None:
    """Host a does not answer any more."""
    world.a.listening = False
    world.clock.ms += 10_000
    await world.bus.beat(world.controller, "b", "c")


@pytest.mark.parametrize("method", ["fencing_plan", "declare_dead"])
async def test_all_agents_are_told_of_a_dead_host_at_once(world: World, method: str) -> None:
    await gone(world)
    meeting = Meeting(world, method, 2)
    death = await world.controller.deaths.declare("a", fenced=True)
    assert death.silent == ()
    assert set(meeting.limits.values()) == {LONGEST_S}


async def test_and_that_it_lives(world: World) -> None:
    await gone(world)
    await world.controller.deaths.declare("a", fenced=True)
    meeting = Meeting(world, "declare_alive", 2)
    await world.controller.deaths.take_back("a")
    assert set(meeting.limits) == {"b", "c"}


async def test_a_host_that_is_silent_is_asked_once_about_what_a_dead_one_left(world: World) -> None:
    """And keeps what went to other hosts from no end."""
    for number, (vm, destination) in enumerate((("web3", "b"), ("web4", "b"), ("web5", "c"))):
        world.a.add_vm(vm, 3 + number)
        await world.controller.inventory.vms()
        await world.controller.migrate(request(vm, destination, id=f"{ID[:-1]}{number}"))
    await gone(world)
    asked = Counter[str]()

    def ending(agent: Any, params: Data) -> Data:
        asked[agent.name] += 1
        if agent.name == "b":
            raise Unknown("no result after 25 s")
        return {"ending": "F9"}

    world.bus._migration_ending = ending  # type: ignore[attr-defined]
    await world.controller.registry.set_dead("a", "2026-11-29T11:00:00+00:00")
    await world.controller.deaths.notify_again()
    assert asked == {"b": 1, "c": 1}
    assert (await world.fleet.migration(f"{ID[:-1]}2")).status.final


@pytest.mark.parametrize("answer", [{"ending": "F9"}, {"ending": "open"}, None])
async def test_a_host_that_answers_slowly_is_asked_about_the_rest_in_the_next_turns(
    world: World, answer: Data | None
) -> None:
    """Also where one of them can never be ended."""
    ids = [f"{ID[:-1]}{number}" for number in range(4)]
    for number, id in enumerate(ids):
        world.a.add_vm(f"web{3 + number}", 3 + number)
        await world.controller.inventory.vms()
        await world.controller.migrate(request(f"web{3 + number}", "b", id=id))
    await gone(world)
    asked: list[str] = []

    def ending(agent: Any, params: Data) -> Data:
        world.clock.ms += 20_000
        asked.append(params["migration"]["id"])
        if asked[-1] != ids[-1]:  # the newest is first
            return {"ending": "F9"}
        if answer is None:
            raise Unknown("no result after 25 s")
        return answer

    world.bus._migration_ending = ending  # type: ignore[attr-defined]
    await world.controller.registry.set_dead("a", "2026-11-29T11:00:00+00:00")
    for turn in range(1, 5):
        await world.controller.deaths.notify_again()
        assert len(asked) == turn
    assert sorted(asked) == ids
    await world.controller.deaths.notify_again()
    again = [] if answer == {"ending": "F9"} else [ids[-1]]
    assert asked[4:] == again
