"""The controller's records, on SQLite and on PostgreSQL: ports.fleet, kept by both."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Protocol

import pytest

from sterna.adapters.sql.fleet import SqlFleet
from sterna.controller.records.projector import apply
from sterna.domain.errors import BadRequest, Conflict, NotFound
from sterna.domain.journal import Entry, Kind, Migration, Role
from sterna.domain.model import GuestState
from sterna.domain.progress import Progress
from sterna.domain.status import Status
from sterna.ports.fleet import Page, VmRecord
from tests.contract.records import AT, Held, Take, accepted, batch, facts, move, saw, seen, taking, uuid
from tests.unit.domain.journals import Book, good_destination, good_source

LATER = "2026-01-01T00:00:05+00:00"


@pytest.fixture
async def fleet(database: str) -> AsyncIterator[SqlFleet]:
    fleet = SqlFleet.open(database)
    for number, name in enumerate("ab"):
        await fleet.save_host(facts(name, number), "life-1", AT)
    yield fleet
    await fleet.close()


@pytest.fixture
async def other(fleet: SqlFleet, database: str) -> AsyncIterator[SqlFleet]:
    """Another controller's view of the same records."""
    other = SqlFleet.open(database)
    yield other
    await other.close()


async def holder(fleet: SqlFleet, n: int) -> str | None:
    return {vm.uuid: vm.migration_id for vm in await fleet.vms()}[uuid(n)]


async def test_closing_finishes_what_was_begun_and_holds_nothing_else_up(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet, goes_on = SqlFleet.open(database), threading.Event()
    begun = asyncio.ensure_future(fleet._run(lambda c: goes_on.wait(5)))
    asyncio.get_running_loop().call_later(0.1, goes_on.set)
    await asyncio.sleep(0)
    await fleet.close()
    assert await begun  # set by the event loop, while it was waited for
    monkeypatch.setattr("sterna.adapters.sql.fleet.CLOSE_S", 0.1)
    fleet, hangs = SqlFleet.open(database), threading.Event()
    begun = asyncio.ensure_future(fleet._run(lambda c: hangs.wait(20)))
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await fleet.close()
    hangs.set()
    assert await begun


# ------------------------------------------------------------ hosts


async def test_hosts_are_kept_whole(fleet: SqlFleet) -> None:
    assert await fleet.hosts() == [await fleet.host("a"), await fleet.host("b")]
    first = await fleet.host("a")
    assert (first.facts, first.boot, first.seen_at) == (facts("a", 0), "life-1", AT)
    assert (first.maintenance, first.cursor, first.mark, first.generation) == (False, 0, "", 0)
    again = await fleet.save_host(facts("a", 0).model_copy(update={"cpus": 8}), "life-2", LATER)
    assert again == await fleet.host("a") and (again.facts.cpus, again.boot, again.seen_at) == (8, "life-2", LATER)


async def test_a_name_stays_with_its_host(fleet: SqlFleet) -> None:
    with pytest.raises(Conflict, match="belongs to host"):
        await fleet.save_host(facts("a", 9), "life-1", LATER)
    assert (await fleet.host("a")).facts.host_uuid == facts("a", 0).host_uuid


async def test_what_an_operator_says_of_a_host_is_kept_over_its_beacons(fleet: SqlFleet) -> None:
    assert (await fleet.set_maintenance("a", True)).maintenance
    assert (await fleet.set_dead("a", AT)).dead_at == AT
    back = await fleet.save_host(facts("a", 0), "life-2", LATER)
    assert back == await fleet.host("a")
    assert (back.maintenance, back.dead_at, back.back_at) == (True, AT, LATER)
    assert (await fleet.set_dead("a", "")).back_at == ""
    assert (await fleet.set_maintenance("a", True, "new fans")).maintenance_reason == "new fans"
    assert (await fleet.save_host(facts("a", 0), "life-3", LATER)).maintenance_reason == "new fans"
    assert (await fleet.host("a")).maintenance_reason == "new fans"
    off = await fleet.set_maintenance("a", False, "fans are new")
    assert (off.maintenance, off.maintenance_reason) == (False, "")
    for unknown in (fleet.host("z"), fleet.set_maintenance("z", True), fleet.set_dead("z", AT)):
        with pytest.raises(NotFound):
            await unknown


async def test_a_host_that_two_controllers_hear_first_is_stored_once(fleet: SqlFleet, other: SqlFleet) -> None:
    for n in range(20):
        new = facts(f"new{n}", 10 + n)
        stored = await asyncio.gather(*(f.save_host(new, "life-1", AT) for f in (fleet, other) * 2))
        assert stored == [await fleet.host(f"new{n}")] * 4


async def test_lists_are_in_the_order_of_bytes(fleet: SqlFleet) -> None:
    names = ["C", "a-2", "a1", "a_3", "aB", "aa"]
    for number, name in enumerate(names, 10):
        await fleet.save_host(facts(name, number), "life-1", AT)
    assert [h.name for h in await fleet.hosts()] == sorted([*names, "a", "b"])
    await saw(fleet, "a", [seen(n, name=name) for n, name in enumerate(names)], AT)
    assert [v.name for v in await fleet.vms()] == sorted(names)


# ------------------------------------------------------------ VMs


async def test_vms_are_kept_whole_whatever_their_size_and_name(fleet: SqlFleet) -> None:
    big = seen(1, name="Küstenseeschwalbe 🐦 " + "x" * 5000, memory_bytes=6 * 2**40, vcpus=288)
    await saw(fleet, "a", [big, seen(2, GuestState.PAUSED)], AT)
    vm = VmRecord(**big.model_dump(), host="a", observed_at=AT)
    assert await fleet.vms_called(big.name) == await fleet.vms_called(uuid(1).upper()) == [vm]
    assert await fleet.vms_called("no such") == []


async def test_a_vm_is_where_it_runs(fleet: SqlFleet) -> None:
    await saw(fleet, "a", [seen(1), seen(2)], AT)
    await saw(fleet, "b", [seen(1, GuestState.SHUTOFF)], AT)
    assert [(v.name, v.host) for v in await fleet.vms()] == [("vm1", "a"), ("vm2", "a")]
    await saw(fleet, "b", [seen(1)], LATER)
    assert [(v.name, v.host, v.observed_at) for v in await fleet.vms()] == [("vm1", "b", LATER), ("vm2", "a", AT)]
    await saw(fleet, "a", [], LATER)
    assert [v.name for v in await fleet.vms()] == ["vm1"]


async def test_a_vm_that_migrates_is_neither_moved_nor_forgotten_by_a_list(fleet: SqlFleet) -> None:
    await saw(fleet, "a", [seen(1)], AT)
    await fleet.admit(move(1), AT)
    await saw(fleet, "b", [seen(1)], LATER)
    await saw(fleet, "a", [], LATER)
    assert [(v.host, v.migration_id) for v in await fleet.vms()] == [("a", "m1")]


# ------------------------------------------------------------ requests


async def test_a_request_takes_the_vm_once(fleet: SqlFleet) -> None:
    record, known = await fleet.admit(move(1), AT)
    assert record == await fleet.migration("m1") and not known and record.number > 0
    assert await fleet.admit(move(1), LATER) == (record.model_copy(update={"promised": True}), True)
    with pytest.raises(Conflict, match="in migration m1"):
        await fleet.admit(move(2, vm=1), AT)
    assert [m.id for m in await fleet.migrations(Page())] == ["m1"]


async def test_a_request_that_a_repeated_one_was_answered_with_is_kept(fleet: SqlFleet) -> None:
    """The client was told that it is accepted: what it asks about afterwards must be there."""
    for n in range(1, 3):
        await fleet.admit(move(n), AT)
    shown = await fleet.promise("m1")
    assert shown is not None and shown.id == "m1"
    await fleet.admit(move(2), LATER)  # the same once more
    for n in range(1, 3):
        await fleet.withdraw(f"m{n}", "it is full", LATER)
        kept = await fleet.migration(f"m{n}")
        assert (kept.status, kept.reason, kept.finished_at) == (Status.FAILED, "it is full", LATER)
        assert await holder(fleet, n) is None
    assert await fleet.promise("m3") is None
    await fleet.admit(move(4), AT)
    await fleet.accepted(move(4), AT)
    await fleet.promise("m4")
    assert (await fleet.migration("m4")).status is Status.QUEUED


async def test_requests_end_in_four_ways(fleet: SqlFleet) -> None:
    for n in range(1, 5):
        await fleet.admit(move(n), AT)
    await fleet.explain("m1", "waiting", LATER)
    assert (await fleet.migration("m1")).reason == "waiting"
    await fleet.withdraw("m1", "refused", LATER)
    with pytest.raises(NotFound):
        await fleet.migration("m1")
    await fleet.settle("m2", Status.FAILED, "nobody took it", LATER)
    failed = await fleet.migration("m2")
    assert (failed.status, failed.reason, failed.finished_at) == (Status.FAILED, "nobody took it", LATER)
    await fleet.explain("m2", "x", LATER)  # too late: it has ended
    await fleet.withdraw("m2", "refused", LATER)
    assert await fleet.migration("m2") == failed
    await fleet.write_off("m3", Status.FAILED, "its host is dead", LATER)
    assert (await fleet.migration("m3")).written_off
    assert (await fleet.accepted(move(4).model_copy(update={"epoch": 7}), LATER)).migration.epoch == 7
    await fleet.withdraw("m4", "refused", LATER)  # too late: the source has it
    await fleet.settle("m4", Status.FAILED, "x", LATER)
    await fleet.explain("m4", "x", LATER)
    assert (await fleet.migration("m4")).reason == "asking the source"
    assert [await holder(fleet, n) for n in range(1, 5)] == [None, None, None, "m4"]


async def test_one_of_many_requests_for_a_vm_is_admitted(fleet: SqlFleet, other: SqlFleet) -> None:
    asked = [(fleet, other)[n % 2].admit(move(n, vm=1), AT) for n in range(20)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    won = [a for a in answers if isinstance(a, tuple)]
    assert len(won) == 1 and sum(isinstance(a, Conflict) for a in answers) == 19
    assert [m.id for m in await other.migrations(Page())] == [won[0][0].id] == [await holder(other, 1)]


async def test_one_request_that_comes_to_both_is_admitted_once(fleet: SqlFleet, other: SqlFleet) -> None:
    for n in range(20):
        answers = await asyncio.gather(*(f.admit(move(n), AT) for f in (fleet, other) * 2))
        assert sorted(known for _, known in answers) == [False, True, True, True]
        assert {record.number for record, _ in answers} == {(await fleet.migration(f"m{n}")).number}


async def test_pages_of_migrations(fleet: SqlFleet) -> None:
    for n in range(1, 6):
        await fleet.admit(move(n).model_copy(update={"id": f"ab{n}_{n}"}), AT)
    await fleet.settle("ab2_2", Status.FAILED, "x", AT)

    async def ids(**page: object) -> str:
        return "".join(m.id[2] for m in await fleet.migrations(Page.model_validate(page)))

    assert await ids() == "54321" and await ids(limit=2) == "54"
    assert await ids(before=(await fleet.migration("ab3_3")).number) == "21"
    assert await ids(vm="vm4") == await ids(vm=uuid(4).upper()) == "4"
    assert await ids(statuses=(Status.FAILED,)) == "2" and await ids(statuses=(Status.QUEUED,)) == "5431"
    assert await ids(id_prefix="ab3") == await ids(id_prefix="AB3") == await ids(id_prefix="ab3_") == "3"
    assert await ids(id_prefix="b") == await ids(id_prefix="%3") == await ids(id_prefix="ab_") == ""


async def test_a_name_that_no_database_could_hold_is_nobodys(fleet: SqlFleet) -> None:
    impossible = "no\x00name"
    for lookup in (fleet.host, fleet.migration):
        with pytest.raises((NotFound, BadRequest)):
            await lookup(impossible)
    for page in (Page(vm=impossible), Page(id_prefix=impossible)):
        with contextlib.suppress(BadRequest):
            assert await fleet.migrations(page) == []
    with contextlib.suppress(BadRequest):
        assert await fleet.vms_called(impossible) == []


# ------------------------------------------------------------ journals


async def test_journals_are_taken_once(fleet: SqlFleet, other: SqlFleet) -> None:
    told = {"a": batch("a", good_source(move(1))), "b": batch("b", good_destination(move(1)))}
    stored = await asyncio.gather(*(f.take(b, apply, AT) for f in (fleet, other) * 2 for b in told.values()))
    total = sum(len(b.entries) for b in told.values())
    assert sum(len(s) for s in stored) == total
    events = await other.events(0, limit=1000)
    assert sorted((e for s in stored for e in s), key=lambda e: e.id) == events
    assert [e.entry for e in events if e.host == "a"] == list(told["a"].entries)
    assert await other.events(events[9].id, "m1", limit=5) == events[10:15]
    assert await fleet.last_event() == events[-1].id
    assert sorted(await fleet.entries("m1"), key=_place) == sorted((e.entry for e in events), key=_place)
    record = await other.migration("m1")
    assert (record.status, record.source_closed, record.destination_closed) == (Status.COMPLETED, True, True)
    assert [(v.name, v.host, v.migration_id) for v in await other.vms()] == [("vm1", "b", None)]
    assert (await other.host("a")).cursor == len(told["a"].entries)


def _place(entry: Entry) -> tuple[str, int]:
    return entry.role, entry.seq


async def test_another_journal_is_taken_from_its_beginning(fleet: SqlFleet) -> None:
    first = batch("a", good_source(move(1)))
    await fleet.take(first, apply, AT)
    assert await fleet.take(first, apply, AT) == []
    await fleet.reread("a")
    assert (await fleet.host("a")).generation == 1
    assert len(await fleet.take(first, apply, AT)) == len(first.entries)
    assert len(await fleet.entries("m1")) == len(first.entries)
    with pytest.raises(NotFound):
        await fleet.take(batch("z", good_source(move(1))), apply, AT)


async def test_entries_hold_what_agents_can_write(fleet: SqlFleet) -> None:
    data = {"n": 2**63, "text": "\x00 \ud800 ü 🐦 \\", "deep": [{"a": [None, True, 1.5e300]}]}
    book = accepted(move(1)).write(Kind.NOTE, "M3", "x" * 3000, data)
    await fleet.take(batch("a", book), apply, AT)
    assert (await fleet.entries("m1"))[-1].data == data
    record = await fleet.migration("m1")
    progress = record.progress.model_copy(update={"bytes_processed": 5 * 2**40, "eta_reason": "\x00 \ud800 🐦"})
    await fleet.save_progress({"m1": progress, "m9": progress})
    assert await fleet.migration("m1") == record.model_copy(update={"progress": progress})
    await fleet.save_progress({"m1": progress.model_copy(update={"status": Status.MIGRATING})})
    assert (await fleet.migration("m1")).progress == progress, "of another status: it is old"


# ------------------------------------------------------------ two controllers in the same instant


Act = Callable[[], Coroutine[None, None, None]]


class Meanwhile(Protocol):
    async def __call__(self, at: str, first: Take, second: Act, between: Act | None = None) -> None: ...


@pytest.fixture
def meanwhile(fleet: SqlFleet) -> Meanwhile:
    """Runs `second` while `first`, given a rule, is held up at an entry of a migration; both must succeed."""

    async def run(at: str, first: Take, second: Act, between: Act | None = None) -> None:
        held = Held(at)
        one = asyncio.create_task(first(held))
        await held.reached()
        two = asyncio.create_task(second())
        try:
            await asyncio.wait({two}, timeout=0.3)  # done if it can be: if not, it waits for the first
            if between is not None:
                await between()
        finally:
            held.go()
        await asyncio.gather(one, two)

    return run


async def test_who_reads_events_as_they_come_misses_none(
    fleet: SqlFleet, other: SqlFleet, meanwhile: Meanwhile, database: str
) -> None:
    read: list[int] = []

    async def look() -> None:
        read.extend(e.id for e in await reader.events(read[-1] if read else 0, limit=1000))

    reader = SqlFleet.open(database)
    one, two = batch("a", good_source(move(1))), batch("b", good_source(move(2, source="b", to="a")))
    # SQLite lets nobody read meanwhile
    between = look if database.startswith("postgresql") else None
    await meanwhile("m1", taking(fleet, one), taking(other, two), between)
    await look()
    assert read == [e.id for e in await reader.events(0, limit=1000)]
    assert len(read) == len(one.entries) + len(two.entries)
    await reader.close()


async def test_two_journals_about_the_same_migrations_in_different_order(
    fleet: SqlFleet, other: SqlFleet, meanwhile: Meanwhile
) -> None:
    there, back = move(1), move(2, source="b", to="a")

    def arrived(migration: Migration) -> Book:
        return Book(Role.DESTINATION, migration=migration).accepted().end()

    for known in (there, back):
        await fleet.admit(known, AT)
    one = batch("a", accepted(there).status("preparing"), arrived(back))
    two = batch("b", accepted(back).status("preparing"), arrived(there))
    await meanwhile("m1", taking(fleet, one), taking(other, two))
    for n in (1, 2):
        record = await fleet.migration(f"m{n}")
        assert (record.status, record.destination_closed) == (Status.PREPARING, True)


async def test_a_journal_and_a_list_that_touch_the_same_vms_in_different_order(
    fleet: SqlFleet, other: SqlFleet, meanwhile: Meanwhile
) -> None:
    vms = [seen(1), seen(2)]
    await saw(fleet, "a", vms, AT)

    async def listed() -> None:
        await saw(other, "a", vms, LATER)

    await meanwhile("m1", taking(fleet, batch("a", accepted(move(2)), accepted(move(1)))), listed)
    assert [(v.name, v.observed_at, v.migration_id) for v in await fleet.vms()] == [
        ("vm1", LATER, "m1"),
        ("vm2", LATER, "m2"),
    ]


async def test_what_two_write_about_one_migration_is_both_kept(
    fleet: SqlFleet, other: SqlFleet, meanwhile: Meanwhile
) -> None:
    await fleet.admit(move(1), AT)

    async def sampled() -> None:
        await other.save_progress({"m1": Progress(status=Status.MIGRATING, percent=50.0)})

    begun = batch("a", accepted(move(1)).status("migrating", "copying"))
    await fleet.take(begun, apply, AT)
    told = batch("a", accepted(move(1)).status("migrating", "copying").note("M3"))
    await meanwhile("m1", taking(fleet, told), sampled)
    record = await fleet.migration("m1")
    assert (record.status, record.accepted) == (Status.MIGRATING, True)
    assert record.progress.percent and record.progress.percent > 0
