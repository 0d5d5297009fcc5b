"""A rehearsal is asked for as a migration, and its answer read from its journal: passed only if it was undone."""

from __future__ import annotations

from typing import Any

import pytest

from sterna.domain.journal import Kind, Migration, Role
from sterna.domain.model import Refusal
from sterna.domain.objective import Asked

from ..domain.journals import Book
from .conftest import World

SAMPLE = {"sample": {"memory_processed": 4096}}
DISTRUST = Refusal(code="tls-handshake", message="TLS with b fails", fix="see to the certificates")


def plays(world: World, *notes: tuple[str, dict[str, Any]], ends: str = "cancelled") -> list[Migration]:
    """The source's agent journals these notes, and ends so; what it was asked for."""
    asked: list[Migration] = []

    def play(migration: Migration) -> None:
        asked.append(migration)
        book = Book(Role.SOURCE, migration=migration).status("preparing")
        for name, data in notes:
            book.write(Kind.NOTE, "P12", name, data)
        world.a.write(book.status("rolling-back").status(ends, "undone").end())

    world.bus.on_accept = play
    return asked


async def rehearse(world: World, *, with_copy: bool = False) -> Any:
    plan = await world.controller.plan("web1", "b", Asked())
    record = await world.controller._rehearse.start(plan.vm.uuid, "b", Asked(), with_copy=with_copy)
    await world.pull()
    return await world.controller._rehearse.result(record, with_copy=with_copy)


@pytest.mark.parametrize("with_copy", [False, True])
async def test_it_passes_where_all_was_tried_and_undone(world: World, with_copy: bool) -> None:
    tried = ("rehearsed", {"tried": ["volumes"], "refusals": []})
    plays(world, tried, *([("rehearsed-copy", SAMPLE)] if with_copy else []))
    rehearsal = await rehearse(world, with_copy=with_copy)
    assert (rehearsal.passed, rehearsal.copied, rehearsal.tried, rehearsal.refusals) == (
        True,
        with_copy,
        ("volumes",),
        (),
    )
    assert (rehearsal.sample is not None) is with_copy
    (options,) = [p["options"] for _, m, p in world.bus.calls if m == "start_migration"]
    assert options["rehearse"] == ("copy" if with_copy else "prepare")


async def test_it_fails_with_what_was_found(world: World) -> None:
    plays(world, ("rehearsed", {"tried": [], "refusals": [DISTRUST.model_dump()]}), ends="failed")
    rehearsal = await rehearse(world)
    assert (rehearsal.passed, rehearsal.refusals) == (False, (DISTRUST,))


@pytest.mark.parametrize("with_copy", [False, True])
async def test_one_that_was_aborted_or_never_copied_has_not_passed(world: World, with_copy: bool) -> None:
    plays(world, *([("rehearsed", {"tried": ["volumes"], "refusals": []})] if with_copy else []))
    assert not (await rehearse(world, with_copy=with_copy)).passed


async def test_one_that_takes_too_long_says_so(world: World) -> None:
    world.bus.on_accept = lambda migration: None
    began_ms = world.clock.monotonic_ms()
    rehearsal = await rehearse(world)
    assert not rehearsal.passed
    assert rehearsal.why.startswith("still ")
    assert 40_000 <= world.clock.monotonic_ms() - began_ms <= 42_000


async def test_nothing_begins_where_something_is_in_the_way(world: World) -> None:
    world.b.against = [Refusal(code="memory-short", message="b is full", fix="move one")]
    plan = await world.controller.plan("web1", "b", Asked())
    assert (await world.controller.rehearse(plan, Asked(), with_copy=False)).rehearsal is None
    assert world.bus.asked("start_migration") == 0


async def test_what_comes_in_between_is_the_answer(world: World) -> None:
    plan = await world.controller.plan("web1", "b", Asked())
    world.b.against = [Refusal(code="memory-short", message="b is full", fix="move one")]
    rehearsal = (await world.controller.rehearse(plan, Asked(), with_copy=False)).rehearsal
    assert rehearsal is not None and not rehearsal.passed
    assert [r.code for r in rehearsal.refusals] == ["memory-short"]
