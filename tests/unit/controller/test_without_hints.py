"""Hints make a controller quick; without any it learns the same, a little later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from sterna.adapters.sql.fleet import SqlFleet
from sterna.controller import background as follower
from sterna.controller.controller import Controller
from sterna.controller.records import events, registry
from sterna.domain.errors import Unreachable
from sterna.domain.status import Status
from sterna.ports.fleet import HostRecord
from tests.cancelling import cancelled
from tests.unit.controller.requests import MOVE

from ..domain.journals import good_destination, good_source
from .conftest import World
from .fakes import FakeBus, HandClock

SOON_S = 0.02
LONG_S = 20.0


async def test_a_journal_is_read_though_no_hint_of_it_ever_comes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "READ_ANYWAY_S", SOON_S)
    await world.controller.start()
    world.a.write(good_source(MOVE))
    world.b.write(good_destination(MOVE))
    async with asyncio.timeout(LONG_S):
        async for event in world.controller.follow(None, 0):
            if event.data.get("status") == "completed":
                break
    assert (await world.fleet.migration("m1")).status is Status.COMPLETED


async def test_hosts_are_followed_once_the_database_that_was_away_at_the_start_is_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "READ_ANYWAY_S", SOON_S)
    monkeypatch.setattr(follower, "TIDY_EVERY_S", SOON_S)
    look = world.fleet.hosts

    async def away() -> list[HostRecord]:
        monkeypatch.setattr(world.fleet, "hosts", look)
        raise Unreachable("the database is away")

    monkeypatch.setattr(world.fleet, "hosts", away)
    world.a.lost = "libvirtd is away"  # no beacon describes the host
    await world.controller.start()
    await world.bus.beat(world.controller, "a")
    world.a.write(good_source(MOVE))
    async with asyncio.timeout(LONG_S):
        async for event in world.controller.follow(None, 0):
            if event.data.get("status") == "completed":
                break


class Held(HandClock):
    """Whoever sleeps until the first beacons have come sleeps until `over`."""

    def __init__(self) -> None:
        super().__init__()
        self.over = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        if seconds == registry.LISTEN_FIRST_S:
            await self.over.wait()
        await super().sleep(seconds)


@pytest.mark.parametrize("silent", [True, False])
async def test_a_controller_that_starts_waits_for_the_beacons_of_known_hosts_for_a_while(
    world: World, *, silent: bool
) -> None:
    """Before they have come all hosts seem to be down. One that cannot be described has sent one, too."""
    clock, bus = Held(), FakeBus(world.a, world.b, world.c)
    world.b.lost = "libvirtd is away"
    starting = Controller(world.fleet, bus, clock)
    start = asyncio.create_task(starting.start())
    async with asyncio.timeout(LONG_S):
        while not bus.handlers:  # noqa: ASYNC110 - it listens
            await asyncio.sleep(0.01)
        await bus.beat(starting, "a", "b")
        assert not (await asyncio.wait({start}, timeout=0.3))[0]
        if silent:
            clock.over.set()
        else:
            await bus.beat(starting, "c")
        await start
    states = {host.name: host.state for host in await starting.registry.hosts()}
    assert states == {"a": "up", "b": "degraded", "c": "down" if silent else "up"}
    await starting.stop()


async def test_vms_are_listed_though_nobody_says_that_they_have_changed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "LIST_EVERY_S", SOON_S)
    await world.controller.start()
    world.b.add_vm("newcomer", 7)
    async with asyncio.timeout(LONG_S):
        while not any(vm.name == "newcomer" for vm in await world.fleet.vms()):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(SOON_S)


@pytest.mark.parametrize("work", ["pull", "refresh", "migrations"])
async def test_work_that_waited_for_something_that_was_cancelled_is_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    """Nobody told the controller to stop."""
    for pause in ("READ_ANYWAY_S", "LIST_EVERY_S", "TIDY_EVERY_S"):
        monkeypatch.setattr(follower, pause, SOON_S)
    controller, again = world.controller, asyncio.Event()
    of = {"pull": controller.projector, "refresh": controller.inventory, "migrations": world.fleet}[work]
    real, tries = getattr(of, work), list[object]()

    async def leaks(*args: object) -> object:
        tries.append(asyncio.current_task())
        if len(tries) == 1:
            await cancelled()
        if tries[0] in tries[1:]:
            again.set()
        return await real(*args)

    await controller.start()
    monkeypatch.setattr(of, work, leaks)
    async with asyncio.timeout(LONG_S):
        await again.wait()


async def test_events_that_another_controller_stored_are_found_by_looking(
    world: World, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "LOOK_EVERY_S", SOON_S)
    other = Controller(SqlFleet.open(database), world.bus, world.clock)
    following = other.follow(None, 0)
    assert isinstance(following, AsyncGenerator)
    first = asyncio.ensure_future(anext(following))
    await asyncio.sleep(SOON_S)  # it has found nothing yet
    assert not first.done()
    world.a.write(good_source(MOVE))
    await world.controller.projector.pull("a")
    async with asyncio.timeout(LONG_S):
        assert (await first).data["migration_id"] == "m1"
    await following.aclose()
    await other.stop()
