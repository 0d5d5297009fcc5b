"""How copies are getting on is told from memory, and stored now and then."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from sterna.controller.records import copy_progress
from sterna.domain.errors import Unreachable
from sterna.domain.journal import Role
from sterna.domain.progress import Progress
from sterna.domain.status import Status
from sterna.ports.fleet import Page
from tests.unit.controller.requests import MOVE

from ..domain.journals import Book
from .conftest import World
from .copying import copying, sample


async def stored(world: World) -> int | None:
    return (await world.fleet.migration("m1")).progress.bytes_processed


class Writes:
    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self._save, self.written = world.fleet.save_progress, list[list[str]]()
        monkeypatch.setattr(world.fleet, "save_progress", self.save)

    async def save(self, progress: Mapping[str, Progress]) -> None:
        self.written.append(sorted(progress))
        await self._save(progress)


async def test_each_look_is_shown_and_few_are_stored(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await copying(world)
    writes, known = Writes(world, monkeypatch), world.controller.copies
    for n in range(60):  # half a minute: stored after 10 s and 20 s
        world.clock.ms += 500
        await known.sampled("a", "m1", sample(n, 10 * n))
        assert (await world.controller.migration("m1")).progress.bytes_processed == 10 * n
        await known.store()
    assert writes.written == [["m1"]] * 2
    assert [r.progress.bytes_processed for r in await world.controller.migrations(Page())] == [590]


async def test_all_that_are_due_are_stored_in_one_write(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await copying(world)
    other = MOVE.model_copy(update={"id": "m2", "vm_uuid": "aaaaaaaa-0000-4000-8000-000000000002"})
    world.a.write(Book(Role.SOURCE, migration=other).accepted().status("preparing").status("migrating"))
    await world.pull()
    writes = Writes(world, monkeypatch)
    for id in ("m1", "m2"):
        await world.controller.copies.sampled("a", id, sample(1, 100))
    world.clock.ms += copy_progress.STORE_EVERY_S * 1000
    await world.controller.copies.store()
    await world.controller.copies.store()
    assert writes.written == [["m1", "m2"]]


async def test_at_a_change_of_status_nothing_is_lost_and_it_goes_on_from_there(world: World) -> None:
    await copying(world)
    known = world.controller.copies
    await known.sampled("a", "m1", sample(1, 900))
    percent = (await world.controller.migration("m1")).progress.percent
    world.a.write(Book(Role.SOURCE, migration=MOVE).status("post-copy"))
    await world.pull()
    record = await world.fleet.migration("m1")
    assert (record.status, record.progress.status) == (Status.POST_COPY, Status.POST_COPY)
    assert record.progress.bytes_processed == 900 and record.progress.percent >= percent
    await known.sampled("a", "m1", sample(2, 950))
    shown = (await world.controller.migration("m1")).progress
    assert (shown.status, shown.bytes_processed) == (Status.POST_COPY, 950)


async def test_what_is_old_is_not_stored_over_a_newer_status(world: World) -> None:
    await copying(world)
    record = await world.fleet.migration("m1")
    world.a.write(Book(Role.SOURCE, migration=MOVE).status("post-migrating").status("completed").end())
    await world.pull()
    await world.fleet.save_progress({"m1": record.progress.model_copy(update={"bytes_processed": 1})})
    ended = await world.fleet.migration("m1")
    assert (ended.progress.status, ended.progress.bytes_processed) == (Status.COMPLETED, None)


async def test_only_the_source_says_how_its_copy_is_getting_on(world: World) -> None:
    await copying(world)
    for host, id in (("b", "m1"), ("a", "unknown")):
        await world.controller.copies.sampled(host, id, sample(1, 900))
    assert (await world.controller.migration("m1")).progress.bytes_processed is None
    world.clock.ms += copy_progress.STORE_EVERY_S * 1000
    await world.controller.copies.store()
    assert await stored(world) is None


async def test_what_could_not_be_stored_is_stored_later(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await copying(world)
    save = world.fleet.save_progress

    async def away(progress: Mapping[str, Progress]) -> None:
        raise Unreachable("the database is away")

    await world.controller.copies.sampled("a", "m1", sample(1, 900))
    world.clock.ms += copy_progress.STORE_EVERY_S * 1000
    monkeypatch.setattr(world.fleet, "save_progress", away)
    with pytest.raises(Unreachable):
        await world.controller.copies.store()
    monkeypatch.setattr(world.fleet, "save_progress", save)
    await world.controller.copies.store()
    assert await stored(world) == 900


async def test_a_copy_that_nobody_looks_at_any_more_is_forgotten(world: World) -> None:
    await copying(world)
    await world.controller.copies.sampled("a", "m1", sample(1, 900))
    world.clock.ms += copy_progress.STORE_EVERY_S * 1000
    await world.controller.copies.store()
    world.clock.ms += copy_progress.FORGET_AFTER_S * 1000 + 1
    await world.controller.copies.store()
    assert world.controller.copies._known == {}
    assert (await world.controller.migration("m1")).progress.bytes_processed == 900


async def test_two_controllers_tell_the_same(world: World) -> None:
    """Each hears every look itself; whoever stores last stores the newer one."""
    await copying(world)
    other = copy_progress.CopyProgress(world.fleet, world.controller.events, world.clock)
    for n, done in ((1, 100), (2, 200)):
        for one in (world.controller.copies, other):
            await one.sampled("a", "m1", sample(n, done))
    record = await world.fleet.migration("m1")
    assert other.newest(record).progress == (await world.controller.migration("m1")).progress
