"""A journal whose disk is full for a while: nothing acts without its intent, and nothing is forgotten for good."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from sterna.domain.entries.notes import AbortAsked
from sterna.domain.errors import Temporary
from sterna.domain.objective import Asked
from sterna.domain.status import Status
from tests.narrowing import not_none
from tests.saga.fleet import SimAgent, SimFleet
from tests.saga.playing import begin, run
from tests.saga.steps import backward, forward


async def again(fleet: SimFleet, vm: str) -> None:
    """The VM may migrate as ever, once there is room."""
    await fleet.clock.sleep(fleet.full_s)
    at = fleet.world.running(vm)[0]
    to = "host2" if at == "host1" else "host1"
    await fleet.start(vm, to=to, source=at)
    assert await fleet.ended(at) is Status.COMPLETED
    assert fleet.world.running(vm) == [to]


def before(cases: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Of the host that drives, one moment each: what finds no room is what is written after it."""
    return [case for case in cases if case[0] == "host1" and case[2] == "before"]


@pytest.mark.parametrize(("host", "step", "moment"), before(forward()))
async def test_a_migration_ends_when_the_disk_has_room_again(host: str, step: str, moment: str) -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm(autostart=True)
        empty = {name: fleet.own(name) for name in fleet.agents}
        fleet.agents[host].rules.append((step, moment, "disk-full"))
        await fleet.start(vm)
        ended = await fleet.ended()
        assert fleet.agents[host].applied
        assert fleet.world.running(vm) == ["host2" if ended is Status.COMPLETED else "host1"]
        if ended is not Status.COMPLETED:
            assert fleet.own("host2") == empty["host2"]
        await again(fleet, vm)

    await run(scenario)


@pytest.mark.parametrize(("host", "step", "moment"), before(backward()))
async def test_a_rollback_ends_when_the_disk_has_room_again(host: str, step: str, moment: str) -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm(autostart=True)
        as_it_was = fleet.snapshots()
        fleet.agents["host1"].rules.append(("copy", "before", "permanent"))
        fleet.agents[host].rules.append((step, moment, "disk-full"))
        await fleet.start(vm)
        assert await fleet.ended() is Status.FAILED
        assert fleet.agents[host].applied
        assert fleet.snapshots() == as_it_was
        fleet.agents["host1"].rules.clear()
        await again(fleet, vm)

    await run(scenario)


def full_after(agent: SimAgent, method: str, *words: str) -> None:
    """Its disk is full right after this is written."""
    write = getattr(agent.journal, method)

    def written(*told: Any, **more: Any) -> Any:
        result = write(*told, **more)
        if all(word in (*told, *more.values()) for word in words):
            agent.disk_full(True)
        return result

    setattr(agent.journal, method, written)


async def test_a_request_that_was_the_last_to_find_room_is_driven() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm()
        full_after(fleet.agents["host1"], "accept")
        with contextlib.suppress(Temporary):
            await fleet.start(vm)
        fleet.agents["host1"].disk_full(False)
        assert await fleet.ended(limit_s=120) is Status.COMPLETED

    await run(scenario)


async def copying(fleet: SimFleet, **asked: Any) -> SimAgent:
    await begin(fleet, fleet.vm(), Asked(bandwidth_bytes_s=2**20, **asked))  # minutes
    while not fleet.world.copies:
        await fleet.clock.sleep(0.1)
    return fleet.agents["host1"]


async def test_an_abort_that_was_the_last_to_find_room_is_obeyed() -> None:
    async def scenario(fleet: SimFleet) -> None:
        source = await copying(fleet)
        full_after(source, "append", AbortAsked.entry)
        await fleet.abort()
        await fleet.clock.sleep(10)
        assert not fleet.world.copies
        source.disk_full(False)
        assert await fleet.ended(limit_s=60) is Status.CANCELLED

    await run(scenario)


async def test_a_copy_is_steered_also_when_a_word_about_it_found_no_room() -> None:
    async def scenario(fleet: SimFleet) -> None:
        source = await copying(fleet, finish_within_s=30, may=frozenset())
        await fleet.clock.sleep(5)
        source.disk_full(True)
        await fleet.clock.sleep(40)
        source.disk_full(False)
        assert await fleet.ended(limit_s=60) is Status.FAILED
        assert "given up" in not_none(source.history(fleet.migration).turned_back)["error"]["message"]

    await run(scenario)


async def test_an_agent_that_dies_meanwhile_takes_its_migration_up_again() -> None:
    async def scenario(fleet: SimFleet) -> None:
        agent = await copying(fleet)
        agent.disk_full(True)
        await agent.kill()
        await fleet.clock.sleep(3)
        await agent.start()
        await fleet.clock.sleep(30)
        agent.disk_full(False)
        await fleet.client.call("host1", "tune_migration", {"id": fleet.migration, "bandwidth_bytes_s": None})
        assert await fleet.ended() is Status.COMPLETED

    await run(scenario)
