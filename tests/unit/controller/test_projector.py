from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from sterna.adapters.sql.fleet import SqlFleet
from sterna.controller.controller import Controller
from sterna.controller.intents.request import MigrateRequest
from sterna.controller.records import projector
from sterna.domain.errors import Unknown, Unreachable
from sterna.domain.journal import Kind, Role
from sterna.domain.model import Data, GuestState
from sterna.domain.status import Status
from sterna.ports.fleet import Page
from tests.unit.controller.requests import MOVE

from ..domain.journals import Book, good_destination, good_source
from .conftest import World
from .fakes import uuid


async def test_a_whole_run_is_projected(world: World) -> None:
    await world.controller.inventory.vms()
    world.a.write(good_source(MOVE))
    world.b.write(good_destination(MOVE))
    await world.pull()
    record = await world.fleet.migration("m1")
    assert (record.status, record.progress.percent, record.accepted) == (Status.COMPLETED, 100.0, True)
    assert record.finished_at and record.source_closed and record.destination_closed
    vm = next(v for v in await world.fleet.vms() if v.uuid == uuid(1))
    assert (vm.host, vm.state, vm.migration_id) == ("b", GuestState.RUNNING, None)
    assert (await world.controller.report(record)).downtime_ms == 48
    assert [i.row for i in await world.controller.timeline("m1") if i.row == "F8"] == ["F8"]
    assert "@startuml" in await world.controller.diagram("m1")


async def test_a_vm_is_on_its_new_host_as_soon_as_it_is_free(world: World) -> None:
    """The source's journal may be read to its end before the destination's: who polls until the VM is free reads
    its host then."""
    await world.controller.inventory.vms()
    world.a.write(good_source(MOVE))
    world.b.write(good_destination(MOVE))
    await world.controller.projector.pull("a")
    (vm,) = await world.fleet.vms_called(uuid(1))
    assert (vm.host, vm.state, vm.migration_id) == ("b", GuestState.RUNNING, None)


async def test_an_old_migration_that_is_read_again_moves_no_vm(world: World) -> None:
    world.a.write(good_source(MOVE))
    world.b.write(good_destination(MOVE))
    await world.pull()
    world.b.vms[uuid(1)] = world.a.vms.pop(uuid(1))
    await world.controller.inventory.vms()
    back = MOVE.model_copy(update={"id": "m2", "source": "b", "destination": "a", "epoch": 8})
    world.b.write(Book(Role.SOURCE, migration=back).accepted())
    await world.pull()
    await world.fleet.reread("a")
    await world.controller.projector.pull("a")
    (vm,) = await world.fleet.vms_called(uuid(1))
    assert (vm.host, vm.migration_id) == ("b", "m2")


async def test_the_reason_says_what_is_tried_again_or_waited_for_while_it_is(world: World) -> None:
    def book() -> Book:
        return Book(Role.SOURCE, migration=MOVE)

    async def reason() -> str:
        await world.pull()
        return (await world.fleet.migration("m1")).reason

    world.a.write(book().accepted().status("preparing", "preparing b").intent("P3"))
    assert await reason() == "preparing b"
    world.a.write(book().failed("P3", Unknown("b: nothing received for 5 s, it hangs or is cut off"), final=False))
    assert await reason() == "P3 is tried again: b: nothing received for 5 s, it hangs or is cut off"
    world.a.write(book().done("P3"))
    assert await reason() == "preparing b"
    waiting = {"why": "waiting for b to report F9"}
    world.a.write(book().status("post-migrating", "on b").write(Kind.NOTE, "", "waiting-dhost-reports-F9", waiting))
    assert await reason() == "waiting for b to report F9"
    world.a.write(book().status("completed", "complete").write(Kind.NOTE, "", "waiting", {"why": "late"}))
    assert await reason() == "complete"


@pytest.mark.parametrize(("status", "row"), [("rolling-back", "R5"), ("post-migrating", "F8")])
async def test_so_does_it_say_what_the_destination_tries_again(world: World, status: str, row: str) -> None:
    """In a rollback and behind the pivot, where the source waits for it for as long as it takes."""

    def book(role: Role) -> Book:
        return Book(role, migration=MOVE)

    async def reason() -> str:
        await world.pull()
        return (await world.fleet.migration("m1")).reason

    world.a.write(book(Role.SOURCE).accepted().status(status, "as told"))
    silent = Unreachable("libvirtd does not answer")
    world.b.write(book(Role.DESTINATION).failed("P8", silent, final=False))  # the source says that itself
    assert await reason() == "as told"
    world.b.write(book(Role.DESTINATION).failed(row, silent, final=False))
    tried = f"on b, {row} is tried again: libvirtd does not answer"
    assert await reason() == tried
    report = {"why": "waiting for b to report"}  # says less
    world.a.write(book(Role.SOURCE).done("R6").write(Kind.NOTE, "", "waiting-dhost-reports-R7", report))
    assert await reason() == tried
    world.b.write(book(Role.DESTINATION).done(row))
    assert await reason() == "as told"
    again = {"why": "the word of a is handled again: a does not answer"}
    world.b.write(book(Role.DESTINATION).write(Kind.NOTE, "P8", "waiting", again))
    assert await reason() == "as told"
    world.b.write(book(Role.DESTINATION).write(Kind.NOTE, row, "waiting", again))
    assert await reason() == f"on b, {again['why']}"
    world.b.write(book(Role.DESTINATION).done(row))
    assert await reason() == "as told"
    waiting = {"why": "waiting for b"}
    world.a.write(book(Role.SOURCE).write(Kind.NOTE, "", "waiting", waiting))
    assert await reason() == "waiting for b"
    world.b.write(book(Role.DESTINATION).done(row))
    assert await reason() == "waiting for b"
    world.a.write(book(Role.SOURCE).status("completed", "complete"))
    assert await reason() == "complete"
    world.b.write(book(Role.DESTINATION).failed(row, silent, final=False))
    assert await reason() == "complete"


async def test_the_vm_is_held_from_acceptance_to_release(world: World) -> None:
    book = Book(Role.SOURCE, migration=MOVE).accepted().status("preparing")
    world.a.write(book)
    await world.pull()
    assert [v.migration_id for v in await world.fleet.vms()] == ["m1"]
    world.a.write(Book(Role.SOURCE, migration=MOVE).status("rolling-back").write(Kind.RELEASED, "R8"))
    await world.pull()
    assert [v.migration_id for v in await world.fleet.vms()] == [None]
    assert (await world.fleet.migration("m1")).status is Status.ROLLING_BACK


async def test_reading_again_changes_nothing(world: World) -> None:
    world.a.write(good_source(MOVE))
    world.b.write(good_destination(MOVE))
    await world.pull()
    before = (
        await world.fleet.migrations(Page()),
        await world.fleet.events(0, limit=1000),
        await world.fleet.vms(),
    )
    for _ in range(3):
        await world.pull()
    again = (await world.fleet.migrations(Page()), await world.fleet.events(0, limit=1000), await world.fleet.vms())
    assert before == again


async def test_everything_is_rebuilt_from_zero(world: World, tmp_path: Path) -> None:
    world.a.write(good_source(MOVE))
    world.b.write(good_destination(MOVE))
    await world.pull()
    other = Controller(SqlFleet.open(f"sqlite:///{tmp_path}/second.db"), world.bus, world.clock)
    await world.bus.beat(other)
    for host in ("b", "a", "c"):  # the order of hosts does not matter in the end
        await other.projector.pull(host)
    assert (await other.fleet.migration("m1")).status is Status.COMPLETED
    assert await other.timeline("m1") == await world.controller.timeline("m1")
    assert await other.diagram("m1") == await world.controller.diagram("m1")
    await other.stop()


async def test_many_pages_are_read_at_once(world: World) -> None:
    for n in range(30):
        world.a.write(good_source(MOVE.model_copy(update={"id": f"m{n}"})))
    read = await world.controller.projector.pull("a")
    assert read.entries == len(world.a.journal) > 400
    assert (await world.fleet.host("a")).cursor == len(world.a.journal)


async def test_a_journal_that_was_replaced_is_read_from_its_beginning(world: World) -> None:
    world.a.write(good_source(MOVE))
    await world.pull()
    world.a.journal.clear()
    world.a.migrations.clear()
    other = MOVE.model_copy(update={"id": "m2"})
    book = Book(Role.SOURCE, boot="new-life", migration=other).accepted().status("preparing")
    world.a.write(book)
    await world.pull()
    assert (await world.fleet.migration("m2")).status is Status.PREPARING
    assert (await world.fleet.migration("m1")).status is Status.COMPLETED


async def test_a_migration_the_controller_did_not_start_is_known_from_the_journal(world: World) -> None:
    world.b.write(good_destination(MOVE))  # the source is not read yet
    await world.controller.projector.pull("b")
    record = await world.fleet.migration("m1")
    assert record.migration.source == "a" and not record.accepted


async def test_progress_hints_move_the_percentage_and_only_forward(world: World) -> None:
    world.a.write(Book(Role.SOURCE, migration=MOVE).accepted().status("preparing").status("migrating"))
    await world.pull()
    looks = [(100, 900), (600, 400), (500, 500)]
    seen = []
    for n, (done, left) in enumerate(looks):
        sample = {"elapsed_ms": n * 500, "memory_total": 1000, "memory_processed": done, "memory_remaining": left}
        await world.controller.copies.sampled("a", "m1", {"sample": sample, "at": "x"})
        seen.append((await world.controller.migration("m1")).progress.percent)
    assert seen == sorted(seen) and seen[1] > 50
    await world.controller.copies.sampled("a", "unknown", {"sample": {}})


async def test_what_turned_it_back_is_kept(world: World) -> None:
    book = Book(Role.SOURCE, migration=MOVE).accepted().status("preparing")
    book.write(Kind.COMPENSATING, data={"error": {"code": "permanent", "message": "no bridge", "fix": ""}})
    world.a.write(book.status("rolling-back", "no bridge").status("failed", "no bridge").end())
    await world.pull()
    record = await world.fleet.migration("m1")
    assert record.error is not None and record.error["message"] == "no bridge"
    assert record.status is Status.FAILED and record.reason == "no bridge"


async def test_an_admitted_request_is_not_reset_by_what_the_destination_says_first(world: World) -> None:
    record, _ = await world.controller.migrate(MigrateRequest(id="m1", vm="web1", destination="b"))
    world.b.write(good_destination(record.migration))
    await world.pull()
    assert (await world.fleet.migration("m1")).number == record.number


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("known", [True, False])
async def test_a_migrations_entries_come_from_its_own_two_hosts_only(world: World, role: Role, known: bool) -> None:
    await world.controller.inventory.vms()
    if known:
        world.a.write(Book(Role.SOURCE, migration=MOVE).accepted().status("preparing"))
        world.b.write(Book(Role.DESTINATION, migration=MOVE).accepted())
        await world.pull()
    before = (await world.fleet.migrations(Page()), await world.fleet.vms(), await world.fleet.entries("m1"))
    forged = Book(role, migration=MOVE).accepted().status("completed", "believe me").write(Kind.CLOSED)
    world.c.write(forged.done("F8", {"host": "c", "power_state": "running"}))
    await world.pull()
    after = (await world.fleet.migrations(Page()), await world.fleet.vms(), await world.fleet.entries("m1"))
    assert after == before
    assert (await world.fleet.host("c")).cursor == len(world.c.journal)  # read, and not read again


@pytest.mark.parametrize("role, host", [(Role.SOURCE, "b"), (Role.DESTINATION, "a")])
async def test_nor_does_one_of_them_speak_for_the_other(world: World, role: Role, host: str) -> None:
    world.a.write(Book(Role.SOURCE, migration=MOVE).accepted().status("preparing"))
    await world.pull()
    before = await world.fleet.migration("m1")
    world.bus.agents[host].write(Book(role, migration=MOVE).status("completed", "believe me").write(Kind.CLOSED))
    await world.pull()
    assert await world.fleet.migration("m1") == before


async def test_the_source_cannot_make_it_a_migration_of_another_vm(world: World) -> None:
    await world.controller.inventory.vms()
    world.a.write(Book(Role.SOURCE, migration=MOVE).accepted())
    await world.pull()
    for change in ({"vm_uuid": uuid(2)}, {"source": "c"}, {"destination": "c"}, {"id": "m2"}):
        other = MOVE.model_copy(update=change)
        world.a.write(Book(Role.SOURCE, migration=MOVE).write(Kind.ACCEPTED, data=other.model_dump()))
    await world.pull()
    assert (await world.fleet.migration("m1")).migration == MOVE


async def test_a_guest_arrives_on_the_host_that_says_so_and_on_no_other(world: World) -> None:
    await world.controller.inventory.vms()
    world.a.write(good_source(MOVE))
    world.b.write(Book(Role.DESTINATION, migration=MOVE).done("F8", {"host": "c", "power_state": "running"}))
    await world.pull()
    assert next(v for v in await world.fleet.vms() if v.uuid == uuid(1)).host == "b"


async def test_a_reader_that_hangs_keeps_the_next_one_waiting_for_a_while_only(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.a.write(good_source(MOVE))
    call, hangs = world.bus.call, asyncio.Event()

    async def hang(to: str, method: str, params: Data, *, total_s: float = 300.0, **more: Any) -> Data:
        if method != "journal_since" or hangs.is_set():
            return await call(to, method, params, **more)
        hangs.set()
        try:
            async with asyncio.timeout(total_s):  # as the real one
                await asyncio.Event().wait()
        except TimeoutError:
            raise Unknown("no result") from None
        return {}

    monkeypatch.setattr(projector, "PAGE_S", 0.1)
    monkeypatch.setattr(world.bus, "call", hang)
    async with asyncio.timeout(20):
        first = asyncio.create_task(world.controller.projector.pull("a"))
        await hangs.wait()
        assert (await world.controller.projector.pull("a")).entries == len(world.a.journal)
        with pytest.raises(Unknown):
            await first
