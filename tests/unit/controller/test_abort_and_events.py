from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from sterna.controller.controller import Controller
from sterna.controller.intents.request import MigrateRequest
from sterna.controller.records.events import Event
from sterna.domain.errors import BadRequest, Conflict, NotFound, Unknown, Unreachable
from sterna.domain.journal import Role
from sterna.domain.status import Status
from tests.unit.controller.requests import MOVE

from ..domain.journals import Book, good_destination, good_source
from .conftest import World


async def under_way(world: World, *statuses: str) -> None:
    book = Book(Role.SOURCE, migration=MOVE).accepted()
    for status in statuses:
        book.status(status)
    world.a.write(book)
    await world.pull()


async def test_an_abort_is_handed_to_the_source(world: World) -> None:
    await under_way(world, "preparing", "migrating")
    record = await world.controller.abort("m1")
    assert record.id == "m1" and world.bus.asked("abort_migration") == 1


async def test_a_lost_answer_to_an_abort_is_asked_for_again(world: World) -> None:
    await under_way(world, "preparing")
    world.bus.faults["abort_migration"] = [Unknown("lost"), None]
    await world.controller.abort("m1")
    assert world.bus.asked("abort_migration") == 2


@pytest.mark.parametrize("status", ["post-migrating", "post-copy"])
async def test_after_the_pivot_it_is_too_late(world: World, status: str) -> None:
    await under_way(world, "preparing", "migrating", status)
    with pytest.raises(Conflict, match="already on b"):
        await world.controller.abort("m1")


async def test_the_agent_may_know_of_the_pivot_first(world: World) -> None:
    await under_way(world, "preparing", "migrating")
    world.a.write(Book(Role.SOURCE, migration=MOVE).note("M5"))
    with pytest.raises(Conflict, match="already on DHOST"):
        await world.controller.abort("m1")


async def test_what_has_ended_cannot_be_aborted(world: World) -> None:
    await under_way(world, "preparing", "rolling-back", "failed")
    with pytest.raises(Conflict, match="ended already: it is failed"):
        await world.controller.abort("m1")
    with pytest.raises(NotFound):
        await world.controller.abort("nope")


async def test_a_source_that_is_away_cannot_be_told(world: World) -> None:
    await under_way(world, "preparing")
    world.a.listening = False
    with pytest.raises(Unreachable):
        await world.controller.abort("m1")


ACTIONS: dict[str, Callable[[Controller], Awaitable[object]]] = {
    "abort": lambda controller: controller.abort("m1"),
    "tune": lambda controller: controller.tune("m1", 2**20),
    "switch to post-copy": lambda controller: controller.switch_to_postcopy("m1"),
}


@pytest.mark.parametrize("action", ACTIONS)
async def test_a_request_not_accepted_yet(world: World, action: str) -> None:
    world.bus._start_migration = lambda agent, params: {"migration": MOVE.model_dump()}  # type: ignore[method-assign]
    await world.controller.migrate(MigrateRequest(id="m1", vm="web1", destination="b"))
    with pytest.raises(Conflict, match="has not accepted migration m1 yet"):
        await ACTIONS[action](world.controller)


# ------------------------------------------------------------ events


async def read(world: World, migration_id: str | None, after: int | None, upto: int = 10_000) -> list[Event]:
    events: list[Event] = []
    async with asyncio.timeout(10):
        async for event in world.controller.follow(migration_id, after):
            events.append(event)
            if len(events) == upto:
                break
    return events


async def test_a_stream_tells_everything_in_order_and_ends(world: World) -> None:
    world.a.write(good_source(MOVE))
    await world.pull()
    events = await read(world, "m1", None)
    stored = [e for e in events if e.id is not None]
    assert [e.id for e in stored] == sorted({e.id for e in stored if e.id})
    assert [e.data["status"] for e in events if e.kind == "status"] == [
        "preparing",
        "migrating",
        "post-migrating",
        "completed",
    ]
    assert events[-1].kind == "end" and events[-1].data["status"] == "completed"


async def test_a_reader_that_was_cut_off_goes_on_behind_the_last_id(world: World) -> None:
    world.a.write(good_source(MOVE))
    await world.pull()
    whole = await read(world, "m1", None)
    first = await read(world, "m1", None, upto=5)
    rest = await read(world, "m1", first[-1].id)
    assert first + rest == whole


async def test_a_reader_of_an_older_database_misses_nothing_in_the_new_one(world: World) -> None:
    world.a.write(good_source(MOVE))
    await world.pull()
    whole = await read(world, "m1", None)
    assert await read(world, "m1", 5000) == whole
    fleet_wide = asyncio.create_task(read(world, None, 5000, upto=1))
    await asyncio.sleep(0.05)
    world.b.write(good_destination(MOVE))
    await world.pull()
    assert [e.data["host"] for e in await fleet_wide] == ["b"]


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - no event tells of what readers have taken
            await asyncio.sleep(0.005)


async def test_what_happens_while_one_reads_is_told(world: World) -> None:
    await under_way(world, "preparing", "migrating")
    reading = asyncio.create_task(read(world, "m1", None))
    fleet_wide = asyncio.create_task(read(world, None, None, upto=2))
    readers = world.controller.events._watchers
    await until(lambda: len(readers) == 2)
    world.controller.events._told_at = 0.0  # as if nothing had been told for a while
    await world.controller.copies.sampled("a", "m1", {"sample": {"memory_remaining": 1, "memory_total": 4}})
    await until(lambda: not any(reader.progress for reader in readers))
    world.a.write(Book(Role.SOURCE, migration=MOVE).status("post-migrating").status("completed").end())
    await world.pull()
    kinds = [e.kind for e in await reading]
    assert kinds.count("progress") == 1 and kinds[-1] == "end"
    assert [e.kind for e in await fleet_wide] == ["progress", "status"]


async def test_streams_end_when_the_controller_stops(world: World) -> None:
    reading = asyncio.create_task(read(world, None, None))
    await asyncio.sleep(0.05)
    world.controller.events.close()
    assert await reading == []


@pytest.mark.parametrize("steps", range(6))
async def test_a_controller_stops_in_the_instant_in_which_a_hint_comes(world: World, steps: int) -> None:
    await world.controller.start()
    for _ in range(20):
        await world.fleet.hosts()  # the journal has been read; the next hint is waited for
    world.controller.follower.look("a")
    for _ in range(steps):
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await world.controller.follower.stop()


async def test_hints_that_come_while_the_database_is_away_are_no_bug(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise Unreachable("the controller's database does not answer")

    await world.controller.start()
    world.clock.ms += 60_000  # else it would not be stored
    with monkeypatch.context() as patch:
        patch.setattr(world.fleet, "save_host", away)
        patch.setattr(world.fleet, "migration", away)
        await world.bus.hint("host.a", {"host": world.a.facts().model_dump(), "boot": "life-1"})
        await world.bus.hint("progress.a.m1", {"sample": {"memory_remaining": 1}})
    assert not world.controller.registry.is_up("a")
    await world.bus.hint("host.a", {"host": world.a.facts().model_dump(), "boot": "life-1"})
    assert world.controller.registry.is_up("a")


async def test_the_follower_reads_journals_on_hints_and_without(world: World) -> None:
    await world.controller.start()
    world.a.write(good_source(MOVE))
    await world.bus.hint("journal.a", {"last": 1})
    async with asyncio.timeout(5):
        while True:
            try:
                if (await world.fleet.migration("m1")).status is Status.COMPLETED:
                    break
            except NotFound:
                await asyncio.sleep(0.01)


async def test_hints_that_cannot_be_read_change_nothing(world: World) -> None:
    await world.controller.start()
    await under_way(world, "preparing", "migrating")
    await world.bus.hint("progress.a.m1", {"sample": {"memory_remaining": 1, "memory_total": 4}})
    record = await world.controller.migration("m1")
    assert record.progress.bytes_remaining == 1
    with pytest.raises(BadRequest):
        await world.bus.hint("progress.a.m1", {"sample": "nonsense"})
    await world.bus.hint("progress.b.m1", {"sample": {"memory_remaining": 2, "memory_total": 4}})  # not its source
    assert await world.controller.migration("m1") == record
    await world.bus.hint("host.zzz", {"nonsense": 1})
    assert "zzz" not in [host.name for host in await world.fleet.hosts()]
