"""Migrations that are in a host's journal, and of which no controller knows, on SQLite and on PostgreSQL.

A host may have made them up, together with what it lists of its VMs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sterna.adapters.sql.fleet import SqlFleet
from sterna.controller.records.projector import apply
from sterna.domain.journal import Kind, Role
from sterna.domain.model import GuestState
from sterna.domain.status import Status
from sterna.domain.trust import journals
from sterna.ports.fleet import Batch, Page
from tests.contract.records import AT, accepted, batch, facts, move, saw, seen, uuid
from tests.unit.domain.journals import Book

LATER = "2026-01-01T00:00:05+00:00"
ON, OFF, PAUSED = GuestState.RUNNING, GuestState.SHUTOFF, GuestState.PAUSED


@pytest.fixture
async def fleet(database: str) -> AsyncIterator[SqlFleet]:
    """Of three hosts; somebody has taken over a."""
    fleet = SqlFleet.open(database)
    for number, name in enumerate("abc"):
        await fleet.save_host(facts(name, number), "life-1", AT)
    yield fleet
    await fleet.close()


async def vm(fleet: SqlFleet) -> tuple[str, str | None]:
    """Where it is, and which migration has it."""
    (found,) = await fleet.vms()
    return found.host, found.migration_id


async def take(fleet: SqlFleet, told: Batch) -> None:
    await fleet.take(told, apply, LATER)


# ------------------------------------------------------------ VMs of others


@pytest.mark.parametrize("state", [ON, OFF, PAUSED])
@pytest.mark.parametrize("to", ["b", "c"])
async def test_a_host_that_claims_anothers_vm_can_neither_lock_nor_move_it(
    fleet: SqlFleet, to: str, state: GuestState
) -> None:
    await saw(fleet, "b", [seen(1, state)], AT)
    await saw(fleet, "a", [seen(1)], AT)
    made_up = accepted(move(1, to=to)).status("migrating")
    await take(fleet, batch("a", made_up))
    home, holder = await vm(fleet)
    assert holder is None, "or nobody else could move it"
    await take(fleet, batch("a", made_up.status("completed")))
    assert await vm(fleet) == (home, None)
    assert home != "c"
    await saw(fleet, "a", [], LATER)
    assert await vm(fleet) == ("b", None)


async def test_nor_one_that_its_host_lists_only_later(fleet: SqlFleet) -> None:
    """It was the only one that had it, as far as was known; until then it is believed."""
    await take(fleet, batch("a", accepted(move(1, to="b")).status("migrating")))
    assert await vm(fleet) == ("a", "m1")
    await saw(fleet, "b", [seen(1)], LATER)
    assert await vm(fleet) == ("b", None)


async def test_records_that_were_lost_are_found_again_without_permits(fleet: SqlFleet) -> None:
    """Also in the middle of a migration: the destination has the VM paused until it has arrived."""
    await saw(fleet, "a", [seen(1)], AT)
    await take(fleet, batch("a", accepted(move(1)).status("migrating")))
    await saw(fleet, "b", [seen(1, PAUSED)], AT)
    assert await vm(fleet) == ("a", "m1")
    await take(fleet, batch("a", accepted(move(1)).status("migrating").status("completed")))
    assert await vm(fleet) == ("b", None)


async def test_a_permit_proves_more_than_what_hosts_list(fleet: SqlFleet) -> None:
    await saw(fleet, "a", [seen(1)], AT)
    await saw(fleet, "b", [seen(1, PAUSED)], AT)
    told = batch("a", accepted(move(1)).status("migrating"))
    await take(fleet, told.model_copy(update={"permitted": frozenset({"m1"})}))
    assert await vm(fleet) == ("a", "m1")
    assert (await fleet.migration("m1")).reported_by == ""


async def test_what_a_controller_has_asked_for_needs_no_other_proof(fleet: SqlFleet) -> None:
    await saw(fleet, "a", [seen(1)], AT)
    await saw(fleet, "b", [seen(1, OFF)], AT)
    await fleet.admit(move(1), AT)
    await take(fleet, batch("a", accepted(move(1)).status("migrating")))
    await saw(fleet, "b", [seen(1)], LATER)
    assert await vm(fleet) == ("a", "m1")
    assert (await fleet.migration("m1")).reported_by == ""


async def test_a_permit_that_comes_later_proves_it_too(fleet: SqlFleet) -> None:
    """The destination's journal may be read first."""
    await take(fleet, batch("b", Book(Role.DESTINATION, migration=move(1)).accepted()))
    assert (await fleet.migration("m1")).reported_by == "b"
    told = batch("a", accepted(move(1)))
    other = told.model_copy(update={"migrations": (move(1, to="c"),)})
    await take(fleet, other.model_copy(update={"permitted": frozenset({"m1"})}))
    assert (await fleet.migration("m1")).reported_by == "b", "that was a permit for another one"
    again = batch("a", accepted(move(1)), accepted(move(1)))
    await take(fleet, again.model_copy(update={"permitted": frozenset({"m1"})}))
    assert (await fleet.migration("m1")).reported_by == ""


# ------------------------------------------------------------ bounds


async def stored(fleet: SqlFleet) -> list[str]:
    return sorted(record.id for record in await fleet.migrations(Page(limit=500)))


async def test_of_one_host_so_many_are_stored(fleet: SqlFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "MOST_REPORTED", 3)
    told = batch("a", *(accepted(move(n)).status("failed") for n in range(1, 6)))
    await take(fleet, told)
    assert await stored(fleet) == ["m1", "m2", "m3"]
    assert (await fleet.host("a")).cursor == 10, "it is read on behind them"
    await take(fleet, batch("b", *(accepted(move(n, source="b", to="c")) for n in (7, 8))))
    await fleet.admit(move(4), AT)
    again = batch("a", *(accepted(move(n)).status("failed") for n in range(1, 7)))
    await take(fleet, again.model_copy(update={"permitted": frozenset({"m6"})}))
    assert await stored(fleet) == ["m1", "m2", "m3", "m4", "m6", "m7", "m8"], "others, and what was asked for"


async def test_of_one_host_so_many_bytes_are_stored(fleet: SqlFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "MOST_REPORTED_BYTES", 30_000)
    book = accepted(move(1))
    await fleet.admit(move(2), AT)
    mine = accepted(move(2))
    for _ in range(50):
        book.note("M3", {"x": "y" * 1_000})
        mine.note("M3", {"x": "y" * 1_000})
    await take(fleet, batch("a", book, mine))
    once = await fleet.entries("m1")
    assert 20 < len(once) < 30
    assert len(await fleet.entries("m2")) == 51
    await fleet.reread("a")  # it says that its journal is another one
    await take(fleet, batch("a", book, mine, accepted(move(3)), accepted(move(4)), accepted(move(5))))
    assert await fleet.entries("m1") == once
    assert len(await fleet.events(0)) < 51 + 51 + 32
    assert len(await stored(fleet)) < 5


async def test_of_one_half_so_many_bytes_are_stored_and_the_rest_counts(
    fleet: SqlFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a migration that a controller has asked for; the other host's half is not concerned."""
    monkeypatch.setattr(journals, "MOST_BYTES_OF_A_HALF", 20_000)
    await fleet.admit(move(1), AT)
    book = accepted(move(1))
    for _ in range(50):
        book.note("M3", {"x": "y" * 1_000})
    await take(fleet, batch("a", book.status("failed", "too long")))
    assert len(await fleet.entries("m1")) < 20
    record = await fleet.migration("m1")
    assert (record.status, record.reason) == (Status.FAILED, "too long")
    there = Book(Role.DESTINATION, migration=move(1)).accepted().write(Kind.CLOSED)
    await take(fleet, batch("b", there))
    assert [e.kind for e in await fleet.entries("m1") if e.role is Role.DESTINATION] == [Kind.ACCEPTED, Kind.CLOSED]


async def test_who_fills_its_share_locks_nothing_by_what_is_not_stored(
    fleet: SqlFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "MOST_REPORTED", 0)
    await saw(fleet, "a", [seen(1)], AT)
    await take(fleet, batch("a", accepted(move(1)).status("completed")))
    assert await vm(fleet) == ("a", None) and await fleet.vms_called(uuid(1))
