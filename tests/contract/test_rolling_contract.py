"""The controller's records of rolling operations, on SQLite and on PostgreSQL: ports.operations, kept by both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from sterna.adapters.sql.fleet import SqlFleet
from sterna.domain.errors import Conflict, NotFound, Refused
from sterna.domain.fleet.course import OperationKind, OperationStatus, Order
from sterna.domain.fleet.rules import Rule, RuleKind
from sterna.domain.fleet.stages import Change, HostStep, Stage
from sterna.ports.operations import OperationRecord, Seen, Standing
from tests.contract.operation_records import FIRST, SECOND, attempt, decision, drain
from tests.contract.records import AT, facts, move, saw, seen

LATER = "2026-01-01T00:00:05+00:00"
S = OperationStatus


@pytest.fixture
async def fleet(database: str) -> AsyncIterator[SqlFleet]:
    """Three hosts, and two VMs on the first."""
    fleet = SqlFleet.open(database)
    for number, name in enumerate("abc"):
        await fleet.save_host(facts(name, number), "life-1", AT)
    await saw(fleet, "a", [seen(1), seen(2)], AT)
    yield fleet
    await fleet.close()


def rolling(id: str = FIRST, *hosts: str) -> OperationRecord:
    return drain(id, *(hosts or ("a", "b")), kind=OperationKind.ROLLING)


async def held(fleet: SqlFleet, *hosts: str) -> OperationRecord:
    added, _ = await fleet.add_operation(rolling(FIRST, *hosts))
    taken = await fleet.take_operation(added, "one")
    assert taken is not None
    return taken


async def steps(fleet: SqlFleet) -> dict[str, HostStep]:
    return {step.host: step for step in await fleet.host_steps(FIRST)}


async def go(fleet: SqlFleet, known: OperationRecord, host: str, *stages: Stage) -> bool:
    for stage in stages:
        was = (await steps(fleet))[host]
        if not await fleet.advance_hosts(known, [Change(was=was, now=was.model_copy(update={"stage": stage}))]):
            return False
    return True


async def closed(fleet: SqlFleet) -> set[str]:
    return {host.name for host in await fleet.hosts() if host.maintenance}


async def test_it_closes_nothing_before_a_hosts_turn_and_opens_it_after(fleet: SqlFleet) -> None:
    known = await held(fleet)
    assert await fleet.host_steps(FIRST) == [HostStep(host="a"), HostStep(host="b")]
    assert await closed(fleet) == set() and known.closed == ()
    assert await go(fleet, known, "b", Stage.DRAINING)
    assert await closed(fleet) == {"b"} and (await fleet.operation(FIRST)).closed == ("b",)
    host = await fleet.host("b")
    assert (host.closed_by, host.maintenance_reason) == (FIRST, "operation aaaaaaaa of token:ops: new fans")
    assert await go(fleet, known, "b", Stage.EMPTY, Stage.BETWEEN, Stage.BACK)
    assert await closed(fleet) == {"b"}
    assert await go(fleet, known, "b", Stage.DONE)
    assert await closed(fleet) == set()


async def test_a_host_that_a_person_has_closed_stays_closed(fleet: SqlFleet) -> None:
    known = await held(fleet)
    await fleet.set_maintenance("b", True, "by hand")
    assert await go(fleet, known, "b", Stage.DRAINING, Stage.EMPTY, Stage.SKIPPED)
    assert await closed(fleet) == {"b"} and (await fleet.operation(FIRST)).closed == ()


async def test_a_host_with_a_vm_is_not_empty_whatever_is_said(fleet: SqlFleet) -> None:
    known = await held(fleet)
    assert await go(fleet, known, "a", Stage.DRAINING)
    assert not await go(fleet, known, "a", Stage.EMPTY)
    assert await go(fleet, known, "b", Stage.DRAINING)
    assert await fleet.decide(decision(known, attempt(to="b")))
    assert not await go(fleet, known, "b", Stage.EMPTY)
    assert (await steps(fleet))["b"].stage is Stage.DRAINING


async def test_nor_is_one_that_says_that_it_runs_a_vm_of_another_host(fleet: SqlFleet) -> None:
    """The other one has said so later, and it has not been asked again. It may be the other one that lies."""
    known = await held(fleet, "a", "b")
    await saw(fleet, "c", [seen(1), seen(2)], LATER)
    assert {vm.host for vm in await fleet.vms()} == {"c"}
    assert await go(fleet, known, "a", Stage.DRAINING)
    assert not await go(fleet, known, "a", Stage.EMPTY)
    await fleet.set_dead("a", LATER)  # it will not say anything any more
    assert await go(fleet, known, "a", Stage.EMPTY)


async def test_a_migration_on_its_way_keeps_a_host_from_being_empty(fleet: SqlFleet) -> None:
    known = await held(fleet, "b")
    await fleet.admit(move(7, vm=1, source="a", to="b"), AT)
    assert await go(fleet, known, "b", Stage.DRAINING)
    assert not await go(fleet, known, "b", Stage.EMPTY)


async def test_nothing_is_admitted_to_a_host_that_it_has_closed(fleet: SqlFleet) -> None:
    known = await held(fleet)
    assert await go(fleet, known, "b", Stage.DRAINING)
    with pytest.raises(Conflict, match="b is closed: operation aaaaaaaa"):
        await fleet.admit(move(7, vm=1, source="a", to="b"), AT)
    assert [vm.migration_id for vm in await fleet.vms()] == [None, None]
    assert await go(fleet, known, "b", Stage.EMPTY, Stage.DONE)
    await fleet.admit(move(7, vm=1, source="a", to="b"), AT)


async def test_what_is_out_of_date_is_not_written(fleet: SqlFleet) -> None:
    known = await held(fleet)
    before = (await steps(fleet))["b"]
    assert await go(fleet, known, "b", Stage.DRAINING)
    change = Change(was=before, now=before.model_copy(update={"stage": Stage.SKIPPED}))
    assert not await fleet.advance_hosts(known, [change])
    other = await fleet.take_operation(known, "two")
    assert other is not None and not await go(fleet, known, "b", Stage.EMPTY)
    answers = await asyncio.gather(*(go(fleet, other, "b", Stage.EMPTY) for _ in range(4)))
    assert (await steps(fleet))["b"].stage is Stage.EMPTY and any(answers)


async def test_nothing_begins_after_an_order_that_was_not_seen_and_what_ends_is_written(fleet: SqlFleet) -> None:
    known = await held(fleet)
    assert await go(fleet, known, "b", Stage.DRAINING, Stage.EMPTY)
    await fleet.order_operation(FIRST, Order.PAUSE, "me", AT)
    assert not await go(fleet, known, "a", Stage.DRAINING)
    assert not await go(fleet, known, "b", Stage.BETWEEN)
    assert not await fleet.advance_hosts(known, [], "late")
    assert await go(fleet, known, "b", Stage.DONE) and await closed(fleet) == set()


QUORUM = Rule(name="quorum", kind=RuleKind.NOT_DOWN_TOGETHER, hosts=("b", "c"))
ALL = frozenset("abc")


async def test_no_host_is_closed_or_handed_over_while_its_partner_is_away(fleet: SqlFleet) -> None:
    known = await held(fleet, "b")
    await fleet.put_rule(QUORUM, replace=False)
    for stage in (Stage.DRAINING, Stage.BETWEEN):
        was = (await steps(fleet))["b"]
        begin = [Change(was=was, now=was.model_copy(update={"stage": stage}))]
        with pytest.raises(Refused, match="from being down together; c cannot be used"):
            await fleet.advance_hosts(known, begin, seen=Seen(usable=ALL - {"c"}))
        assert (await steps(fleet))["b"] == was
        assert await fleet.advance_hosts(known, begin, seen=Seen(usable=ALL))
        assert stage is Stage.BETWEEN or await go(fleet, known, "b", Stage.EMPTY)


async def test_no_host_is_closed_where_another_was_closed_since(fleet: SqlFleet) -> None:
    known = await held(fleet, "b")
    await fleet.set_maintenance("c", True, "by hand")
    was = (await steps(fleet))["b"]
    begin = [Change(was=was, now=was.model_copy(update={"stage": Stage.DRAINING}))]
    assert not await fleet.advance_hosts(known, begin, seen=Seen(usable=ALL))
    assert await closed(fleet) == {"c"}
    assert await fleet.advance_hosts(known, begin, seen=Seen(usable=ALL, closed=frozenset("c")))


async def test_it_pauses_by_itself_and_says_why(fleet: SqlFleet) -> None:
    known = await held(fleet)
    assert await fleet.advance_hosts(known, [], "b is late")
    paused = await fleet.operation(FIRST)
    assert (paused.status, paused.paused_because, paused.changed_by) == (S.PAUSED, "b is late", "")
    again = await fleet.order_operation(FIRST, Order.RESUME, "me", LATER)
    assert (again.status, again.paused_because) == (S.RUNNING, "")


async def test_a_person_opens_only_hosts_that_it_does_not_work_on(fleet: SqlFleet) -> None:
    known = await held(fleet)
    assert await go(fleet, known, "b", Stage.DRAINING)
    with pytest.raises(Conflict, match="is emptying b"):
        await fleet.set_maintenance("b", False)
    await fleet.set_maintenance("a", True, "by hand")
    await fleet.set_maintenance("a", False)
    assert await go(fleet, known, "b", Stage.SKIPPED)
    await fleet.set_maintenance("b", True, "by hand")
    await fleet.set_maintenance("b", False)


async def test_who_says_that_a_host_is_done(fleet: SqlFleet) -> None:
    known = await held(fleet)
    for stage, why in (
        (Stage.DRAINING, "its turn has not come"),
        (Stage.EMPTY, "not empty"),
        (Stage.BETWEEN, "begun"),
    ):
        with pytest.raises(Conflict, match=why):
            await fleet.host_done(FIRST, "b", "token:ops", AT)
        assert await go(fleet, known, "b", stage)
    await fleet.host_done(FIRST, "b", "token:ops", AT)
    await fleet.host_done(FIRST, "b", "token:other", LATER)
    step = (await steps(fleet))["b"]
    assert (step.done_at, step.done_by) == (AT, "token:ops")
    for id, host in ((FIRST, "c"), (SECOND, "b")):
        with pytest.raises(NotFound):
            await fleet.host_done(id, host, "token:ops", AT)


async def test_an_undo_opens_hosts_but_not_one_that_may_be_rebooted(fleet: SqlFleet) -> None:
    known = await held(fleet, "b", "c")
    assert await go(fleet, known, "b", Stage.DRAINING, Stage.EMPTY, Stage.BETWEEN)
    assert await go(fleet, known, "c", Stage.DRAINING)
    await fleet.order_operation(FIRST, Order.UNDO, "me", LATER)
    assert await closed(fleet) == {"b"}
    now = await steps(fleet)
    assert (now["b"].stage, now["c"].stage) == (Stage.BETWEEN, Stage.SKIPPED)
    kept = await fleet.keep_operation(FIRST, known.epoch)
    assert kept is not None and await go(fleet, kept, "b", Stage.BACK, Stage.DONE)
    assert await closed(fleet) == set()


async def test_what_was_stopped_takes_hosts_that_are_open_in_their_turn(fleet: SqlFleet) -> None:
    known = await held(fleet, "b", "c")
    assert await go(fleet, known, "b", Stage.DRAINING, Stage.EMPTY, Stage.BETWEEN)
    assert await go(fleet, known, "c", Stage.DRAINING, Stage.SKIPPED)
    await fleet.order_operation(FIRST, Order.STOP, "me", AT)
    kept = await fleet.keep_operation(FIRST, known.epoch)
    assert kept is not None and await fleet.conclude(kept, S.STOPPED, Standing(), LATER)
    await fleet.set_maintenance("b", False)
    await fleet.order_operation(FIRST, Order.RESUME, "me", LATER)
    now = await steps(fleet)
    assert (now["b"].stage, now["c"].stage) == (Stage.WAITING, Stage.WAITING)
    assert await closed(fleet) == set()


async def test_one_that_is_late_has_its_time_again(fleet: SqlFleet) -> None:
    known = await held(fleet, "b")
    assert await go(fleet, known, "b", Stage.DRAINING, Stage.EMPTY, Stage.BETWEEN)
    assert await fleet.advance_hosts(known, [], "b is late")
    await fleet.order_operation(FIRST, Order.RESUME, "me", LATER)
    assert (await steps(fleet))["b"].since == LATER


async def test_its_hosts_are_removed_with_it(fleet: SqlFleet) -> None:
    known = await held(fleet, "b")
    assert await go(fleet, known, "b", Stage.DRAINING, Stage.EMPTY, Stage.DONE)
    assert await fleet.conclude(known, S.DONE, Standing(), AT)
    assert await fleet.prune_operation(FIRST, LATER)
    assert await fleet.host_steps(FIRST) == []


async def test_one_with_an_unknown_host_leaves_nothing(fleet: SqlFleet) -> None:
    with pytest.raises(NotFound, match="no host z"):
        await fleet.add_operation(rolling(SECOND, "a", "z"))
    assert await fleet.host_steps(SECOND) == []


async def test_another_request_of_the_same_id_is_refused(fleet: SqlFleet) -> None:
    first, _ = await fleet.add_operation(rolling())
    assert await fleet.add_operation(rolling()) == (first, True)
    for other in (drain(FIRST, "a", "b"), rolling().model_copy(update={"most_closed": 2})):
        with pytest.raises(Conflict, match="belongs to another request"):
            await fleet.add_operation(other)
