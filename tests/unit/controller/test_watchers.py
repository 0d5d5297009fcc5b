"""Many watch: what is new is read once, and nobody waits for a slow one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial

import pytest

from sterna.controller.records import events
from sterna.controller.records.events import Event
from sterna.domain.errors import Unreachable
from sterna.domain.journal import Role
from sterna.ports.fleet import EntryRecord
from tests.narrowing import not_none
from tests.unit.controller.requests import MOVE

from ..domain.journals import Book, good_source
from .conftest import World
from .copying import copying, sample

LONG_S, SOON_S = 20.0, 0.01


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(LONG_S):
        while not holds():  # noqa: ASYNC110 - no event tells of what watchers have taken
            await asyncio.sleep(SOON_S)


class Watcher:
    """Reads a stream, as long as it may."""

    def __init__(self, world: World, migration_id: str | None = None, after: int | None = None) -> None:
        self.seen: list[Event] = []
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self._stream = world.controller.events.batches(migration_id, after)
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for batch in self._stream:
            self.seen += batch
            await self.goes_on.wait()

    def ids(self) -> list[int]:
        return [event.id for event in self.seen if event.id is not None]

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


def has_looks(watcher: Watcher, number: int) -> bool:
    return [event.kind for event in watcher.seen].count("progress") == number


def note(world: World, times: int) -> None:
    book = Book(Role.SOURCE, migration=MOVE)
    for _ in range(times):
        book.note("M3")
    world.a.write(book)


@pytest.fixture
async def watchers(world: World) -> AsyncIterator[list[Watcher]]:
    await copying(world)
    made = [Watcher(world) for _ in range(20)]
    await until(lambda: len(world.controller.events._watchers) == 20)
    yield made
    for one in made:
        await one.stop()


async def test_what_is_new_is_read_once_for_all(
    world: World, watchers: list[Watcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    read, reads = world.fleet.events, 0

    async def counted(after: int, migration_id: str | None = None, limit: int = 200) -> list[EntryRecord]:
        nonlocal reads
        found = await read(after, migration_id, limit)
        reads += len(found)
        return found

    monkeypatch.setattr(world.fleet, "events", counted)
    note(world, 30)
    await world.pull()
    await until(lambda: all(len(one.ids()) == 30 for one in watchers))
    assert reads == 30
    assert len({id(event) for one in watchers for event in one.seen}) == 30, "each is made once"


async def test_a_slow_one_is_told_and_misses_no_stored_event(
    world: World, watchers: list[Watcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MOST_WAITING", 10)
    slow = watchers[0]
    note(world, 1)
    slow.goes_on.clear()
    await world.pull()
    await until(lambda: all(len(one.ids()) == 1 for one in watchers))
    for _ in range(5):
        note(world, 15)
        await world.pull()
        await until(lambda: world.controller.events._woken.is_set() is False)
    await until(lambda: all(watcher.missed or not watcher.waiting for watcher in world.controller.events._watchers))
    waiting = max(len(watcher.waiting) for watcher in world.controller.events._watchers)
    assert waiting <= 10
    slow.goes_on.set()
    await until(lambda: len(slow.ids()) == 76)
    assert slow.ids() == sorted(set(slow.ids()))
    assert [event.data["after"] for event in slow.seen if event.kind == "missed"] == [slow.ids()[0]]
    await until(lambda: all(len(one.ids()) == 76 for one in watchers))


async def test_who_watches_all_is_told_of_progress_once_a_second_and_who_watches_one_at_each_look(
    world: World, watchers: list[Watcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "PROGRESS_EVERY_S", 3600.0)
    close = Watcher(world, "m1")
    await until(lambda: len(world.controller.events._watchers) == 21)
    for n in range(5):
        await world.controller.copies.sampled("a", "m1", sample(n, n))
        await until(partial(has_looks, close, n + 1))
    assert all(not one.seen for one in watchers)
    monkeypatch.setattr(events, "PROGRESS_EVERY_S", 0.0)
    await world.controller.copies.sampled("a", "m1", sample(6, 6))
    await until(lambda: all([e.kind for e in one.seen] == ["progress"] for one in watchers))
    assert watchers[0].seen[0].data["progress"]["bytes_processed"] == 6, "the newest"
    await close.stop()


async def test_a_watcher_that_begins_in_between_misses_nothing(world: World, watchers: list[Watcher]) -> None:
    note(world, 5)
    await world.pull()
    late = Watcher(world, None, after=0)
    note(world, 5)
    await world.pull()
    await until(lambda: len(watchers[0].ids()) == 10)
    await until(lambda: len(late.ids()) == 10 + 3)
    assert late.ids() == sorted(set(late.ids()))
    await late.stop()


async def test_streams_end_where_events_cannot_be_read_and_can_be_opened_again(
    world: World, watchers: list[Watcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = world.fleet.events

    async def away(*_: object) -> list[EntryRecord]:
        raise Unreachable("the database is away")

    monkeypatch.setattr(world.fleet, "events", away)
    world.controller.events.wake()
    ended = await asyncio.gather(*(one.task for one in watchers), return_exceptions=True)
    assert {type(error) for error in ended} == {Unreachable}
    assert len({id(error) for error in ended}) == len(watchers), "one for all would gather the frames of all"
    monkeypatch.setattr(world.fleet, "events", read)
    again = Watcher(world)
    await until(lambda: len(world.controller.events._watchers) == 1)
    note(world, 3)
    await world.pull()
    await until(lambda: len(again.ids()) == 3)
    await again.stop()


async def test_a_reading_that_ended_silently_is_begun_again(
    world: World, watchers: list[Watcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "LOOK_AGAIN_S", SOON_S)
    note(world, 1)
    await world.pull()
    await until(lambda: all(len(one.ids()) == 1 for one in watchers))
    reading = not_none(world.controller.events._reading)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    note(world, 2)
    await world.pull()
    late = Watcher(world, None, after=0)
    await until(lambda: all(len(one.ids()) == 3 for one in watchers))
    await until(lambda: len(late.ids()) == 3 + 3)
    assert late.ids() == sorted(set(late.ids()))
    await late.stop()


async def test_a_migration_that_ends_without_an_entry_ends_its_stream(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "LOOK_FOR_END_S", SOON_S)
    await world.fleet.admit(MOVE, "2026-01-01T00:00:00+00:00")
    one = Watcher(world, "m1")
    await until(lambda: len(world.controller.events._watchers) == 1)
    await world.fleet.withdraw("m1", "refused", "2026-01-01T00:00:05+00:00")
    async with asyncio.timeout(LONG_S):
        await one.task
    assert [(event.kind, event.data["status"]) for event in one.seen] == [("end", None)]


async def test_nothing_is_read_while_nobody_watches(world: World, watchers: list[Watcher]) -> None:
    for one in watchers:
        await one.stop()
    assert world.controller.events._reading is None
    world.a.write(good_source(MOVE))
    await world.pull()
    assert world.controller.events._progress == {}
