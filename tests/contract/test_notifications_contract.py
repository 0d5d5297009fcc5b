"""The notifications of the controller's records, on SQLite and on PostgreSQL: ports.notifications, kept by both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Connection

from sterna.adapters.sql.fleet import SqlFleet
from sterna.adapters.sql.fleet_statements import accepted as accept
from sterna.controller.records.projector import apply
from sterna.domain.errors import Conflict
from sterna.domain.fleet.course import OperationKind, OperationStatus, Order
from sterna.domain.journal import Role
from sterna.domain.notifications.events import CHOSEN, EventType
from sterna.domain.options import MigrationOptions
from sterna.domain.status import Status
from sterna.ports.notifications import Lease, Notification
from sterna.ports.operations import OperationRecord, Standing
from tests.contract.operation_records import FIRST, attempt, decision, drain
from tests.contract.records import AT, Held, accepted, batch, facts, move, saw, seen, upgrade_to
from tests.unit.domain.journals import Book, good_source

T = EventType
PAGER = "pager"


def later(seconds: float) -> str:
    return (datetime.fromisoformat(AT) + timedelta(seconds=seconds)).isoformat()


@pytest.fixture
async def fleet(database: str) -> AsyncIterator[SqlFleet]:
    """Two hosts, a VM on the first, and an endpoint that wants everything."""
    fleet = SqlFleet.open(database)
    for number, name in enumerate("ab"):
        await fleet.save_host(facts(name, number), "life-1", AT)
    await saw(fleet, "a", [seen(1)], AT)
    await fleet.put_endpoints({PAGER: CHOSEN}, AT)
    yield fleet
    await fleet.close()


@pytest.fixture
async def other(fleet: SqlFleet, database: str) -> AsyncIterator[SqlFleet]:
    """Another controller's view of the same records."""
    other = SqlFleet.open(database)
    yield other
    await other.close()


async def everything(fleet: SqlFleet, endpoint: str = PAGER) -> list[Notification]:
    """All that waits, in the order in which it is sent; it is delivered."""
    found = []
    while due := await fleet.due(endpoint, (), 100):
        found += due
        for one in due:
            await fleet.delivered(one, AT)
    return sorted(found, key=lambda one: one.number)


async def types(fleet: SqlFleet, endpoint: str = PAGER) -> list[str]:
    return [one.type for one in await everything(fleet, endpoint)]


async def held(fleet: SqlFleet, **more: object) -> OperationRecord:
    added, _ = await fleet.add_operation(drain(FIRST, "a", **more))
    taken = await fleet.take_operation(added, "one")
    assert taken is not None
    return taken


# ------------------------------------------------------------ migrations


async def test_each_change_of_a_migration_is_written_once(fleet: SqlFleet) -> None:
    await fleet.admit(move(1), AT)
    await fleet.accepted(move(1), AT)
    await fleet.accepted(move(1), AT)
    for _ in range(2):
        await fleet.take(batch("a", good_source(move(1))), apply, later(1))
    found = await everything(fleet)
    assert [one.type for one in found] == [
        T.MIGRATION_ACCEPTED,
        T.MIGRATION_SWITCHED_OVER,
        T.MIGRATION_COMPLETED,
    ]
    assert {one.subject for one in found} == {"migrations/m1"} and len({one.id for one in found}) == 3
    assert found[0].at == AT and found[2].at == later(1)
    known = found[2].data
    assert (known["vm"]["name"], known["source"], known["destination"]) == ("vm1", "a", "b")
    assert (known["status"], known["operation"], known["error"]) == ("completed", None, None)
    assert known["finished_at"]


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([Status.ROLLING_BACK, Status.FAILED], [T.MIGRATION_FAILED]),
        ([Status.ROLLING_BACK, Status.CANCELLED], [T.MIGRATION_CANCELLED]),
        (
            [Status.MIGRATING, Status.POST_COPY, Status.RECOVERING, Status.POST_COPY, Status.ERROR],
            [T.MIGRATION_SWITCHED_OVER, T.MIGRATION_INTERRUPTED, T.MIGRATION_IN_DOUBT],
        ),
    ],
)
async def test_what_becomes_of_a_migration(
    fleet: SqlFleet, statuses: list[Status], expected: list[EventType]
) -> None:
    await fleet.admit(move(1), AT)
    book = accepted(move(1))
    for status in statuses:
        book.status(status, "the link broke")
    await fleet.take(batch("a", book), apply, AT)
    found = await everything(fleet)
    assert [one.type for one in found] == [T.MIGRATION_ACCEPTED, *expected]
    assert found[-1].data["reason"] == "the link broke"


async def test_a_request_that_nobody_accepted_ends_with_an_event_where_it_is_kept(fleet: SqlFleet) -> None:
    await fleet.admit(move(1), AT)
    await fleet.withdraw("m1", "a refuses", AT)
    assert await everything(fleet) == []
    await fleet.admit(move(2), AT)
    await fleet.settle("m2", Status.FAILED, "a does not answer", AT)
    assert await types(fleet) == [T.MIGRATION_FAILED]


async def test_what_no_controller_has_asked_for_and_rehearsals_are_no_events(fleet: SqlFleet) -> None:
    await fleet.take(batch("a", good_source(move(1))), apply, AT)
    rehearsal = move(2).model_copy(update={"options": MigrationOptions(rehearse="prepare")})
    await fleet.admit(rehearsal, AT)
    await fleet.accepted(rehearsal, AT)
    assert await everything(fleet) == []


async def test_what_is_taken_back_is_no_event(fleet: SqlFleet) -> None:
    """In one transaction: an event without its change, or a change without its event, cannot be."""
    await fleet.admit(move(1), AT)

    class Breaks(Exception):
        pass

    def breaks(c: Connection) -> None:
        accept(c, move(1), AT)
        raise Breaks

    with pytest.raises(Breaks):
        await fleet._write(breaks)
    assert await everything(fleet) == []
    assert not (await fleet.migration("m1")).accepted


async def test_the_operation_of_a_migration_is_named(fleet: SqlFleet) -> None:
    operation = await held(fleet)
    assert await fleet.decide(decision(operation))
    migration = move(1).model_copy(update={"id": attempt().migration})
    await fleet.admit(migration, AT)
    await fleet.accepted(migration, AT)
    found = await everything(fleet)
    assert [one.type for one in found] == [T.OPERATION_STARTED, T.MIGRATION_ACCEPTED]
    assert found[1].data["operation"] == FIRST


# ------------------------------------------------------------ operations


async def test_each_order_and_the_end_of_an_operation(fleet: SqlFleet) -> None:
    operation = await held(fleet)
    await fleet.add_operation(drain())  # repeated
    for order in (Order.PAUSE, Order.PAUSE, Order.RESUME, Order.STOP):
        await fleet.order_operation(FIRST, order, "token:ops", later(1))
    stopping = await fleet.operation(FIRST)
    assert await fleet.conclude(stopping, OperationStatus.STOPPED, Standing(at=later(2)), later(2))
    await fleet.order_operation(FIRST, Order.UNDO, "token:boss", later(3))
    found = await everything(fleet)
    assert [one.type for one in found] == [
        T.OPERATION_STARTED,
        T.OPERATION_PAUSED,
        T.OPERATION_RESUMED,
        T.OPERATION_STOPPING,
        T.OPERATION_ENDED,
        T.OPERATION_UNDOING,
    ]
    started, paused, *_, ended, undoing = (one.data for one in found)
    assert (started["reason"], started["hosts"], started["previous_status"]) == ("new fans", ["a"], None)
    assert (paused["status"], paused["previous_status"], paused["changed_by"]) == ("paused", "running", "token:ops")
    assert (ended["status"], ended["ended_at"]) == ("stopped", later(2))
    assert undoing["changed_by"] == "token:boss" and operation.id == undoing["id"]


async def test_one_that_pauses_by_itself_says_why(fleet: SqlFleet) -> None:
    operation = await held(fleet, kind=OperationKind.ROLLING)
    assert await fleet.advance_hosts(operation, [], "b is late", at=later(5))
    found = (await everything(fleet))[-1]
    assert (found.type, found.at, found.data["paused_because"]) == (T.OPERATION_PAUSED, later(5), "b is late")


async def test_a_promise_that_moves_and_what_is_waited_for_are_events(fleet: SqlFleet) -> None:
    operation = await held(fleet)
    assert await types(fleet) == [T.OPERATION_STARTED]

    async def stands(at_s: float, promised_s: float | None, waits_for: str = "") -> list[Notification]:
        standing = Standing(at=later(at_s), promised_s=promised_s, waits_for=waits_for)
        await fleet.stand(FIRST, operation.epoch, standing)
        return await everything(fleet)

    (first,) = await stands(0, 600)
    assert (first.type, first.data["promised_end"]) == (T.OPERATION_PROMISE_CHANGED, later(600))
    assert first.data["previous_promised_end"] is None
    assert await stands(10, 620) == []
    (moved,) = await stands(20, 900)
    assert (moved.data["previous_promised_end"], moved.data["promised_end"]) == (later(600), later(920))
    assert await stands(30, 890, "b does not answer") == []
    (waits,) = await stands(60, 860, "b does not answer")
    assert (waits.type, waits.data["waits_for"]) == (T.OPERATION_WAITING, "b does not answer")
    assert await stands(90, 830, "b does not answer") == []
    await fleet.stand(FIRST, operation.epoch - 1, Standing(at=later(95), promised_s=9000))
    assert await everything(fleet) == []


# ------------------------------------------------------------ hosts


async def test_a_host_that_goes_down_and_comes_back_is_written_once(fleet: SqlFleet, other: SqlFleet) -> None:
    assert await fleet.note_reach("a", True, AT, "nothing received")
    assert not await other.note_reach("a", True, AT, "nothing received")
    assert await other.hosts_down() == {"a"}
    assert await other.note_reach("a", False, later(9)) and not await fleet.note_reach("a", False, AT)
    found = await everything(fleet)
    assert [(one.type, one.subject) for one in found] == [(T.HOST_DOWN, "hosts/a"), (T.HOST_UP, "hosts/a")]
    assert found[0].data == {"name": "a", "reason": "nothing received"}


async def test_a_host_that_is_declared_dead_is_written_once(fleet: SqlFleet) -> None:
    for at in (AT, later(1), "", later(2)):
        await fleet.set_dead("a", at)
    assert await types(fleet) == [T.HOST_DECLARED_DEAD, T.HOST_DECLARED_DEAD]


# ------------------------------------------------------------ endpoints


async def test_an_endpoint_begins_with_what_happens_after_it_was_added(fleet: SqlFleet, other: SqlFleet) -> None:
    await fleet.note_reach("a", True, AT)
    await other.put_endpoints({"chat": (T.HOST_UP,)}, later(5))
    await fleet.note_reach("a", False, later(6))
    await fleet.note_reach("a", True, later(7))
    (only,) = await everything(fleet, "chat")
    whole = await everything(fleet)
    assert only.type == T.HOST_UP and only.id == whole[1].id and only.number != whole[1].number
    chat, pager = await fleet.endpoints()
    assert (chat.name, chat.since, pager.since) == ("chat", later(5), AT)
    await fleet.put_endpoints({"chat": (T.HOST_DOWN,)}, later(8))
    assert (await fleet.endpoints())[0].events == (T.HOST_DOWN,)
    assert (await fleet.endpoints())[0].since == later(5)


async def test_without_endpoints_nothing_is_written(database: str) -> None:
    fleet = SqlFleet.open(database)
    await fleet.note_reach("a", True, AT)
    await fleet.put_endpoints({PAGER: CHOSEN}, AT)
    assert await everything(fleet) == []
    await fleet.close()


async def test_the_tables_come_with_their_revision(database: str) -> None:
    """What has happened before is not sent."""
    upgrade_to(database, "0009")
    fleet = SqlFleet.open(database)
    assert await fleet.endpoints() == [] and await fleet.hosts_down() == frozenset()
    await fleet.put_endpoints({PAGER: CHOSEN}, AT)
    await fleet.note_reach("a", True, AT)
    assert await types(fleet) == [T.HOST_DOWN]
    await fleet.close()


async def test_how_an_endpoint_gets_on(fleet: SqlFleet) -> None:
    await fleet.note_reach("a", True, AT)
    await fleet.note_reach("b", True, later(1))
    await fleet.not_delivered(PAGER, "it answers with status 500", later(2))
    (known,) = await fleet.endpoints()
    assert (known.pending, known.oldest_at, known.last_success_at) == (2, AT, "")
    assert (known.last_error, known.last_error_at) == ("it answers with status 500", later(2))
    first, second = await fleet.due(PAGER, (), 10)
    for _ in range(2):
        await fleet.delivered(first, later(3))
    (known,) = await fleet.endpoints()
    assert (known.pending, known.oldest_at, known.last_success_at) == (1, later(1), later(3))
    assert await fleet.due(PAGER, (), 10) == [second]


async def test_the_oldest_of_each_subject_is_due(fleet: SqlFleet) -> None:
    for at, down in enumerate((True, False, True)):
        for host in "ab":
            await fleet.note_reach(host, down, later(at))
    due = await fleet.due(PAGER, (), 10)
    assert [(one.subject, one.type) for one in due] == [("hosts/a", T.HOST_DOWN), ("hosts/b", T.HOST_DOWN)]
    assert [one.subject for one in await fleet.due(PAGER, ["hosts/a"], 10)] == ["hosts/b"]
    assert [one.subject for one in await fleet.due(PAGER, (), 1)] == ["hosts/a"]
    await fleet.delivered(due[0], AT)
    assert [one.type for one in await fleet.due(PAGER, (), 10)] == [T.HOST_DOWN, T.HOST_UP]


async def test_what_is_too_old_is_given_up(fleet: SqlFleet) -> None:
    await fleet.put_endpoints({"chat": CHOSEN}, AT)
    for at, host in enumerate("abc"):
        await fleet.note_reach(host, True, later(at))
    assert await fleet.give_up(PAGER, later(2), "hosts/b") == 1
    assert await fleet.give_up(PAGER, later(2)) == 1
    assert [one.subject for one in await everything(fleet)] == ["hosts/c"]
    assert len(await everything(fleet, "chat")) == 3


async def test_an_endpoint_that_no_settings_have_is_removed_with_what_waits_for_it(fleet: SqlFleet) -> None:
    await fleet.put_endpoints({"chat": CHOSEN}, later(50))
    await fleet.note_reach("a", True, later(60))
    assert await fleet.prune_endpoints(later(10)) == 1 and await fleet.prune_endpoints(later(10)) == 0
    (left,) = await fleet.endpoints()
    assert (left.name, left.pending) == ("chat", 1)
    assert await everything(fleet) == []


async def test_events_of_a_newer_version_are_left_alone(fleet: SqlFleet) -> None:
    newer = (*CHOSEN, "migration.of_the_future")
    await fleet.put_endpoints({PAGER: newer}, AT)  # type: ignore[dict-item]
    (known,) = await fleet.endpoints()
    assert known.events == CHOSEN


# ------------------------------------------------------------ leases


async def test_one_holds_a_lease_at_a_time(fleet: SqlFleet, other: SqlFleet) -> None:
    nobody = await fleet.lease("x")
    assert nobody == Lease()
    taken = await asyncio.gather(fleet.take_lease("x", nobody, "one"), other.take_lease("x", nobody, "two"))
    (mine,) = [one for one in taken if one is not None]
    assert await fleet.keep_lease("x", mine.epoch) and not await fleet.keep_lease("x", mine.epoch + 1)
    assert await fleet.take_lease("x", mine, "three") is None  # a sign of life came since
    now = await fleet.lease("x")
    assert (now.holder, now.epoch, now.beat) == (mine.holder, 1, 1)
    third = await other.take_lease("x", now, "three")
    assert third is not None and third.epoch == 2 and not await fleet.keep_lease("x", 1)
    await fleet.release_lease("x", 1)
    assert (await fleet.lease("x")).holder == "three"
    await fleet.release_lease("x", 2)
    assert (await fleet.lease("x")).holder == "" and not await fleet.keep_lease("x", 2)
    assert await fleet.lease("y") == Lease()


async def test_events_are_seen_in_the_order_of_their_numbers(fleet: SqlFleet, other: SqlFleet) -> None:
    """A transaction that began earlier and ends later does not write behind what was sent already."""
    await fleet.admit(move(1), AT)
    slow = Held("m1")
    taking = asyncio.create_task(fleet.take(batch("a", Book(Role.SOURCE, migration=move(1)).accepted()), slow, AT))
    await slow.reached()
    noting = asyncio.create_task(other.note_reach("b", True, later(1)))
    await asyncio.sleep(0)
    assert not noting.done()
    slow.go()
    await asyncio.gather(taking, noting)
    found = await everything(fleet)
    assert [one.type for one in found] == [T.MIGRATION_ACCEPTED, T.HOST_DOWN]
    with pytest.raises(Conflict):
        await fleet.admit(move(3, vm=1), AT)
