"""A host whose journal has no end, or is another one each time, holds up nobody but itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from sterna.controller import background
from sterna.controller.records import projector
from sterna.domain.errors import Unknown
from sterna.domain.journal import Role
from sterna.domain.model import Data
from sterna.domain.status import Status
from sterna.ports.fleet import Page
from tests.unit.controller.requests import ID, MOVE, request

from ..domain.journals import Book, good_destination, good_source
from .conftest import World
from .fakes import FakeAgent, FakeBus, uuid

OTHER = uuid(99)
LONG_S = 20.0


def answers(world: World, journal_since: Callable[[Data], Data]) -> None:
    """Host b reads its journal out like this."""

    def of_all(agent: FakeAgent, params: Data) -> Data:
        return journal_since(params) if agent is world.b else FakeBus._journal_since(world.bus, agent, params)

    world.bus._journal_since = of_all  # type: ignore[method-assign]


def has_no_end(world: World) -> None:
    """There is always one more."""

    def journal_since(params: Data) -> Data:
        (note,) = Book(Role.DESTINATION, migration=MOVE).note("P11").entries
        page = [note.model_copy(update={"seq": params["cursor"] + n}) for n in (1, 2)]
        return {"entries": [e.model_dump(mode="json") for e in page], "migrations": [MOVE.model_dump(mode="json")]}

    answers(world, journal_since)


def is_another_one_each_time(world: World) -> None:
    lives = count()

    def journal_since(params: Data) -> Data:
        book = Book(Role.DESTINATION, boot=f"life-{next(lives)}", migration=MOVE).note("P11")
        page = [e.model_copy(update={"seq": params["cursor"] + 1}) for e in book.entries]
        return {"entries": [e.model_dump(mode="json") for e in page], "migrations": [MOVE.model_dump(mode="json")]}

    answers(world, journal_since)


def asked(world: World) -> int:
    """How often b was asked for its journal."""
    return sum(1 for to, method, _ in world.bus.calls if (to, method) == ("b", "journal_since"))


@pytest.mark.parametrize("journal", [has_no_end, is_another_one_each_time])
async def test_so_much_is_read_in_one_go(world: World, journal: Callable[[World], None]) -> None:
    journal(world)
    async with asyncio.timeout(LONG_S):
        read = await world.controller.projector.pull("b")
    assert read.more


async def test_so_long_is_read_in_one_go(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    has_no_end(world)
    monkeypatch.setattr(projector, "GO_S", 0.0)
    async with asyncio.timeout(LONG_S):
        read = await world.controller.projector.pull("b")
    assert (read.entries, read.more) == (2, True)


async def test_an_end_that_is_reached_is_told(world: World) -> None:
    world.b.write(good_destination(MOVE))
    read = await world.controller.projector.pull("b")
    assert (read.entries, read.more) == (len(world.b.journal), False)


async def test_who_reads_it_pauses_whatever_hints_come_and_reads_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_no_end(world)
    monkeypatch.setattr(projector, "MOST_PAGES", 3)
    monkeypatch.setattr(background, "READ_ON_S", 1234.5)  # nobody else sleeps for so long
    pauses, goes_on, real = asyncio.Event(), asyncio.Event(), asyncio.sleep

    async def sleep(seconds: float) -> None:
        if seconds == background.READ_ON_S:
            pauses.set()
            await goes_on.wait()
            pauses.clear()
            goes_on.clear()
        else:
            await real(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    await world.controller.start()
    async with asyncio.timeout(LONG_S):
        await pauses.wait()
        await world.bus.hint("journal.b", {"last": 4})
        world.a.write(good_source(MOVE))
        await world.bus.hint("journal.a", {"last": 1})
        while (await world.fleet.migration("m1")).status is not Status.COMPLETED:
            await real(0.01)
        assert asked(world) == 3
        goes_on.set()
        while asked(world) < 6:
            await real(0.01)
        await pauses.wait()
    assert asked(world) == 6


async def never_accepted(world: World) -> None:
    """One request on a, one on b, both older than they may be."""
    world.b.add_vm("web2", 2)
    await world.controller.inventory.vms()
    world.bus._start_migration = lambda agent, params: {}  # type: ignore[method-assign]
    world.bus.faults["start_migration"] = [Unknown("lost")] * 18
    await world.controller.migrate(request())
    await world.controller.migrate(request("web2", "a", id=OTHER))
    await world.controller.follower.tidy()
    world.clock.ms += 200_000
    await world.bus.beat(world.controller)


async def statuses(world: World) -> list[Status]:
    """Of the request on a, and of that on b."""
    return [(await world.fleet.migration(id)).status for id in (ID, OTHER)]


@pytest.mark.parametrize("journal", [has_no_end, is_another_one_each_time])
async def test_a_request_is_not_ended_before_the_journals_end_and_others_are(
    world: World, journal: Callable[[World], None]
) -> None:
    await never_accepted(world)
    journal(world)
    async with asyncio.timeout(LONG_S):
        await world.controller.follower.tidy()
    assert await statuses(world) == [Status.FAILED, Status.QUEUED]


async def test_a_source_that_does_not_answer_in_time_keeps_no_others_request_from_its_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await never_accepted(world)
    call = world.bus.call

    async def hangs(to: str, method: str, *args: Any, **more: Any) -> Data:
        if (to, method) == ("b", "decline_migration"):
            await asyncio.Event().wait()
        return await call(to, method, *args, **more)

    monkeypatch.setattr(world.bus, "call", hangs)
    monkeypatch.setattr(background, "END_S", 0.5)
    async with asyncio.timeout(LONG_S):
        await world.controller.follower.tidy()
    assert await statuses(world) == [Status.FAILED, Status.QUEUED]


async def test_an_entry_about_a_migration_that_nobody_knows_is_read_and_not_kept(world: World) -> None:
    world.b.write(Book(Role.DESTINATION, migration=MOVE).note("P11").note("P11"))
    world.b.migrations.clear()
    await world.controller.projector.pull("b")
    assert await world.fleet.events(0) == []
    assert (await world.fleet.host("b")).cursor == 2
    world.a.write(good_source(MOVE))
    await world.controller.projector.pull("a")
    assert {one.host for one in await world.fleet.events(0)} == {"a"}


async def test_one_that_names_two_migrations_is_about_neither(world: World) -> None:
    (entry,) = Book(Role.SOURCE, migration=MOVE).accepted().entries
    world.a.journal += [entry.model_copy(update={"seq": n, "migration_id": "another"}) for n in (1, 2)]
    read = await world.controller.projector.pull("a")
    assert read == projector.Pulled(0, more=False)
    assert await world.fleet.migrations(Page()) == []
