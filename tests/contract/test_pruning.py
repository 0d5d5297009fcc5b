"""Old records are removed, on SQLite and on PostgreSQL: what ended long ago, and nothing that is needed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import JSON, column, create_engine, insert, text
from sqlalchemy import table as sql_table

from sterna.adapters.sql.fleet import SqlFleet
from sterna.adapters.sql.fleet_database import open_database
from sterna.controller.records import pruning
from sterna.controller.records.projector import apply
from sterna.controller.records.pruning import Pruning, Retention
from sterna.domain.errors import NotFound
from sterna.domain.fleet.attempts import AttemptState, Blame
from sterna.domain.fleet.course import OperationKind, OperationStatus, Order
from sterna.domain.journal import Kind, Role
from sterna.domain.status import Status
from sterna.ports.access import LogPage
from sterna.ports.fleet import Page
from sterna.ports.operations import OperationPage, Standing
from tests.contract.operation_records import attempt, decision, drain
from tests.contract.records import AT, accepted, asked, batch, facts, move, saw, seen, upgrade_to
from tests.unit.controller.fakes import HandClock
from tests.unit.domain.journals import Book, good_destination, good_source

OLD, MIDDLE, NEW = (f"2026-0{month}-01T00:00:00+00:00" for month in (1, 4, 7))
S = OperationStatus


@pytest.fixture
async def fleet(database: str) -> AsyncIterator[SqlFleet]:
    fleet = SqlFleet.open(database)
    for number, name in enumerate("abc"):
        await fleet.save_host(facts(name, number), "life-1", AT)
    yield fleet
    await fleet.close()


@pytest.fixture
async def other(fleet: SqlFleet, database: str) -> AsyncIterator[SqlFleet]:
    """Another controller's view of the same records."""
    other = SqlFleet.open(database)
    yield other
    await other.close()


async def completes(fleet: SqlFleet, *numbers: int, at: str = OLD) -> None:
    """Migrations from a to b; both hosts have closed them."""
    for n in numbers:
        await fleet.admit(move(n), at)
        for host, book in (("a", good_source(move(n))), ("b", good_destination(move(n)))):
            await fleet.reread(host)
            await fleet.take(batch(host, book), apply, at)


async def known(fleet: SqlFleet) -> list[str]:
    return sorted(record.id for record in await fleet.migrations(Page(limit=500)))


async def pruned(fleet: SqlFleet, before: str = MIDDLE, spare: int = 0) -> list[str]:
    """What is left."""
    while await fleet.prune_migrations(before, spare):
        pass
    return await known(fleet)


# ------------------------------------------------------------ migrations


async def test_migrations_that_ended_long_ago_are_removed_with_their_entries(fleet: SqlFleet) -> None:
    await completes(fleet, 1, 2)
    await completes(fleet, 3, at=NEW)
    assert await pruned(fleet, OLD) == ["m1", "m2", "m3"]
    assert await pruned(fleet) == ["m3"]
    assert await fleet.entries("m1") == [] and await fleet.entries("m3") != []
    with pytest.raises(NotFound):
        await fleet.migration("m1")
    assert {vm.host for vm in await fleet.vms()} == {"b"}, "the VMs are where they were"


async def test_so_many_at_a_time(fleet: SqlFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sterna.adapters.sql.prune_statements.MOST_MIGRATIONS", 2)
    await completes(fleet, 1, 2, 3)
    await completes(fleet, 4, at=NEW)
    assert [await fleet.prune_migrations(MIDDLE, 0) for _ in range(3)] == [2, 1, 0]


async def test_the_newest_that_completed_stay(fleet: SqlFleet) -> None:
    """Forecasts learn from them, however old they are."""
    await completes(fleet, 1, 2, 3, 4)
    await fleet.admit(move(5), OLD)
    await fleet.settle("m5", Status.FAILED, "never", OLD)
    assert await pruned(fleet, spare=10) == ["m1", "m2", "m3", "m4"]
    assert await pruned(fleet, spare=3) == ["m2", "m3", "m4"]


async def test_the_last_event_stays(fleet: SqlFleet) -> None:
    """A client that reads on behind it would take the records for others."""
    await completes(fleet, 1, 2)
    last = await fleet.last_event()
    assert await pruned(fleet) == ["m2"]
    assert await fleet.last_event() == last


@pytest.mark.parametrize("half", ["running", "source", "destination"])
async def test_what_is_open_stays(fleet: SqlFleet, half: str) -> None:
    """Also where it has ended, and one of its hosts is not done with it."""
    source, there = good_source(move(1)), good_destination(move(1))
    if half == "running":
        source, there = accepted(move(1)).status("migrating"), Book(Role.DESTINATION, migration=move(1)).accepted()
    open_half = {"source": source, "destination": there}.get(half)
    if open_half is not None:
        assert open_half.entries[-1].kind is Kind.CLOSED
        open_half.entries.pop()
    await fleet.admit(move(1), OLD)
    await fleet.take(batch("a", source), apply, OLD)
    await fleet.take(batch("b", there), apply, OLD)
    await completes(fleet, 9, at=NEW)
    assert await pruned(fleet) == ["m1", "m9"]
    if open_half is not None:
        host = "a" if half == "source" else "b"
        await fleet.reread(host)
        await fleet.take(batch(host, open_half.write(Kind.CLOSED)), apply, MIDDLE)
        await completes(fleet, 9, at=NEW)
        assert await pruned(fleet) == ["m1", "m9"], "it is closed since then"
        assert await pruned(fleet, NEW) == ["m9"]


async def test_a_request_that_no_agent_accepted_is_removed_and_one_that_waits_is_not(fleet: SqlFleet) -> None:
    await completes(fleet, 9, at=NEW)
    for n in (1, 2, 3):
        await fleet.admit(move(n), OLD)
    await fleet.settle("m1", Status.FAILED, "never accepted", OLD)
    await fleet.promise("m2")
    await fleet.withdraw("m2", "refused", OLD)
    assert await pruned(fleet) == ["m3", "m9"]


async def test_one_whose_source_is_dead_is_removed(fleet: SqlFleet) -> None:
    await completes(fleet, 9, at=NEW)
    await fleet.admit(move(1), OLD)
    await fleet.take(batch("a", accepted(move(1))), apply, OLD)
    assert await pruned(fleet) == ["m1", "m9"]
    await fleet.write_off("m1", Status.FAILED, "a is dead", OLD)
    assert await pruned(fleet) == ["m9"]


async def test_a_host_that_sets_its_clock_has_nothing_removed_early_or_kept(fleet: SqlFleet) -> None:
    """The time counts at which a controller has read it."""
    for n, (year, read_at) in enumerate((("1970", NEW), ("2999", OLD)), 1):
        book = accepted(move(n)).status("failed").write(Kind.CLOSED)
        book.entries[:] = [e.model_copy(update={"at": e.at.replace("2026", year)}) for e in book.entries]
        await fleet.admit(move(n), AT)
        await fleet.reread("a")
        await fleet.take(batch("a", book), apply, read_at)
    await completes(fleet, 9, at=NEW)
    assert await pruned(fleet) == ["m1", "m9"]


# ------------------------------------------------------------ operations


async def ended(fleet: SqlFleet, id: str, *hosts: str, at: str = OLD) -> None:
    """An operation on these hosts."""
    added, _ = await fleet.add_operation(drain(id, *hosts))
    held = await fleet.take_operation(added, "one")
    assert held is not None and await fleet.conclude(held, S.DONE, Standing(), at)
    for host in hosts:
        await fleet.set_maintenance(host, False)


async def old(fleet: SqlFleet, before: str = MIDDLE) -> list[str]:
    return await fleet.old_operations(before)


async def operations(fleet: SqlFleet) -> list[str]:
    return sorted(one.id for one in await fleet.operations(OperationPage()))


async def test_an_operation_is_removed_with_its_attempts_where_each_host_has_a_newer_one(fleet: SqlFleet) -> None:
    await saw(fleet, "a", [seen(1), seen(2)], AT)
    added, _ = await fleet.add_operation(drain())
    held = await fleet.take_operation(added, "one")
    assert held is not None and await fleet.decide(decision(held, attempt(1), attempt(2, 1)))
    assert await old(fleet) == [], "it goes on"
    for one in (attempt(1), attempt(2, 1)):
        told = {"reason": "", "blame": Blame.NOBODY, "at": OLD}
        await fleet.settle_attempt(one, held.epoch, AttemptState.FAILED, **told)  # type: ignore[arg-type]
    assert await fleet.conclude(held, S.DONE, Standing(), OLD)
    await fleet.set_maintenance("a", False)
    assert await old(fleet) == [], "it is the newest of its host"
    await ended(fleet, "x", "a", "b", at=NEW)
    await ended(fleet, "y", "b")
    assert await old(fleet) == [added.id]
    assert await old(fleet, OLD) == []
    assert await fleet.prune_operation(added.id, MIDDLE) and not await fleet.prune_operation(added.id, MIDDLE)
    assert await operations(fleet) == ["x", "y"] and await fleet.attempts(added.id) == []


async def test_one_of_several_hosts_that_is_the_newest_of_one_of_them_stays(fleet: SqlFleet) -> None:
    await ended(fleet, "x", "a", "b")
    await ended(fleet, "y", "b")
    assert await old(fleet) == []
    await ended(fleet, "z", "a", at=NEW)
    assert await old(fleet) == ["x"]


async def test_a_return_of_vms_does_not_take_the_place_of_the_last_drain(fleet: SqlFleet) -> None:
    """Whose undo would be lost."""
    await ended(fleet, "x", "a")
    added, _ = await fleet.add_operation(drain("y", "a", kind=OperationKind.BRING_BACK))
    held = await fleet.take_operation(added, "one")
    assert held is not None and await fleet.conclude(held, S.DONE, Standing(), OLD)
    assert await old(fleet) == ["y"]


async def test_one_that_keeps_a_host_closed_stays(fleet: SqlFleet) -> None:
    """Its undo would open it: until a later drain of that host takes this over."""
    added, _ = await fleet.add_operation(drain())
    held = await fleet.take_operation(added, "one")
    assert held is not None and await fleet.conclude(held, S.DONE, Standing(), OLD)
    second, _ = await fleet.add_operation(drain("y", "a"))
    again = await fleet.take_operation(second, "one")
    assert again is not None and await fleet.conclude(again, S.DONE, Standing(), NEW)
    assert await old(fleet) == [added.id]
    assert await fleet.prune_operation(added.id, MIDDLE) and await operations(fleet) == ["y"]
    await ended(fleet, "z", "b", at=NEW)
    assert not await fleet.prune_operation("y", MIDDLE) and await operations(fleet) == ["y", "z"]


async def test_one_that_is_undone_after_all_stays(fleet: SqlFleet, other: SqlFleet) -> None:
    await ended(fleet, "x", "a")
    await ended(fleet, "y", "a", at=NEW)
    assert await old(fleet) == ["x"]
    await other.order_operation("x", Order.UNDO, "token:ops", NEW)
    assert not await fleet.prune_operation("x", MIDDLE)
    assert await operations(fleet) == ["x", "y"]


async def test_a_migration_that_an_operation_waits_for_stays(fleet: SqlFleet) -> None:
    """Else it would be begun a second time."""
    await saw(fleet, "a", [seen(1)], AT)
    await completes(fleet, 9, at=NEW)
    added, _ = await fleet.add_operation(drain())
    held = await fleet.take_operation(added, "one")
    assert held is not None and await fleet.decide(decision(held))
    made = move(1).model_copy(update={"id": attempt().migration})
    await fleet.admit(made, OLD)
    await fleet.settle(made.id, Status.FAILED, "never accepted", OLD)
    assert await pruned(fleet) == sorted([made.id, "m9"])


# ------------------------------------------------------------ the audit log


def ago(days: float) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).isoformat()


async def lines(fleet: SqlFleet) -> list[tuple[str, int | None]]:
    return [(line.asked.request, line.status) for line in await fleet.log_page(LogPage())]


async def log_lines(fleet: SqlFleet, *days: float) -> None:
    for n, one in enumerate(days, 1):
        await fleet.log_asked(asked(n, at=ago(one)))
        await fleet.log_answered(f"r{n}", 200, ago(one))


async def test_old_lines_are_removed_with_their_answers(fleet: SqlFleet, database: str) -> None:
    await log_lines(fleet, 500, 400, 399, 31, 1)
    assert await fleet.prune_log(ago(399.5)) == 2
    assert await fleet.prune_log(ago(399.5)) == 0
    assert await lines(fleet) == [("r5", 200), ("r4", 200), ("r3", 200)]
    engine = open_database(database)
    with engine.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM answers")).scalar() == 3
    engine.dispose()


# ------------------------------------------------------------ all of it


async def test_several_controllers_share_the_work(
    fleet: SqlFleet, other: SqlFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sterna.adapters.sql.prune_statements.MOST_MIGRATIONS", 1)
    monkeypatch.setattr("sterna.adapters.sql.prune_statements.MOST_LINES", 1)
    monkeypatch.setattr(pruning, "LOOK_BACK", 1)
    await completes(fleet, *range(1, 13), at=ago(91))
    for n in range(6):
        await ended(fleet, f"x{n}", "a", at=ago(91))
    await log_lines(fleet, 400, 399, 398, 397, 1)
    clock = HandClock()
    clock.jump_s = (datetime.now(UTC) - clock.now()).total_seconds()
    keep = Retention(migrations=90, operations=90, log=365)
    await asyncio.gather(*(Pruning(records, clock, keep).prune() for records in (fleet, other) * 2))
    assert await known(fleet) == ["m12"]
    assert await operations(fleet) == ["x5"]
    assert await lines(fleet) == [("r5", 200)]


async def test_what_is_kept_for_ever_is(fleet: SqlFleet) -> None:
    await completes(fleet, 1, 2)
    await ended(fleet, "x", "a")
    await ended(fleet, "y", "a")
    await log_lines(fleet, 4000)
    await Pruning(fleet, HandClock(), Retention()).prune()
    assert await known(fleet) == ["m1", "m2"]
    assert await operations(fleet) == ["x", "y"] and len(await lines(fleet)) == 1


# ------------------------------------------------------------ records of an earlier version


async def test_migrations_of_an_earlier_version_are_removed_as_well(database: str) -> None:
    """Those that are closed count from their last change on."""
    rows = {
        "m1": {"accepted": True, "source_closed": True, "destination_closed": True},
        "m2": {"accepted": True, "source_closed": True},  # the destination's journal has it
        "m3": {"accepted": True, "source_closed": True},
        "m4": {"accepted": True, "destination_closed": True},
        "m5": {"accepted": False},
    }
    migrations = sql_table(
        "migrations",
        *(column(name) for name in ("number", "id", "vm_uuid", "vm_name", "status", "finished_at")),
        column("document", JSON),
    )
    entries = sql_table(
        "entries",
        *(column(name) for name in ("host", "generation", "seq", "migration_id")),
        column("document", JSON),
    )
    upgrade_to(database, "0006")
    engine = create_engine(database)
    with engine.begin() as connection:
        for n, (id, more) in enumerate(rows.items(), 1):
            migration = move(n).model_dump(mode="json")
            document = {"migration": migration, "status": "failed", "updated_at": OLD, "finished_at": AT} | more
            columns = {
                "number": n,
                "id": id,
                "vm_uuid": str(n),
                "vm_name": "x",
                "status": "failed",
                "finished_at": AT,
            }
            connection.execute(insert(migrations).values(columns | {"document": document}))
        for n, id in enumerate(("m2", "m9"), 1):
            told = {"host": "b", "generation": 0, "seq": n, "migration_id": id, "document": {}}
            connection.execute(insert(entries).values(told))
    engine.dispose()
    fleet = SqlFleet.open(database)
    assert await pruned(fleet, OLD) == sorted(rows)
    assert await pruned(fleet, MIDDLE) == ["m2", "m4"]
    await fleet.close()
