"""The controller's records of operations, on SQLite and on PostgreSQL: ports.operations, kept by both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from sterna.adapters.sql.fleet import SqlFleet
from sterna.domain.errors import Conflict, NotFound
from sterna.domain.fleet.attempts import Attempt, AttemptState, Blame
from sterna.domain.fleet.course import OperationStatus, Order
from sterna.domain.fleet.rules import Rule, RuleKind, orders
from sterna.domain.journal import Migration
from sterna.domain.status import Status
from sterna.kit.digests import digest_of
from sterna.ports.operations import OperationPage, OperationRecord, Standing, Tried
from tests.contract.operation_records import FIRST, SECOND, attempt, decision, drain
from tests.contract.records import AT, facts, move, saw, seen, uuid

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


@pytest.fixture
async def other(fleet: SqlFleet, database: str) -> AsyncIterator[SqlFleet]:
    """Another controller's view of the same records."""
    other = SqlFleet.open(database)
    yield other
    await other.close()


async def held(fleet: SqlFleet, holder: str = "one", **more: object) -> OperationRecord:
    added, _ = await fleet.add_operation(drain(**more))  # type: ignore[arg-type]
    taken = await fleet.take_operation(added, holder)
    assert taken is not None
    return taken


def migration_of(attempt: Attempt) -> Migration:
    more = {"source": attempt.source, "destination": attempt.target}
    return move(1).model_copy(update={"id": attempt.migration, "vm_uuid": attempt.vm} | more)


# ------------------------------------------------------------ operations


async def test_an_operation_closes_its_hosts_and_says_why(fleet: SqlFleet) -> None:
    await fleet.set_maintenance("b", True, "by hand")
    added, repeated = await fleet.add_operation(drain(FIRST, "a", "b"))
    assert not repeated and added.closed == ("a",)
    assert await fleet.operation(FIRST) == added
    host = await fleet.host("a")
    assert (host.maintenance, host.closed_by) == (True, FIRST)
    assert host.maintenance_reason == "operation aaaaaaaa of token:ops: new fans"
    assert (await fleet.host("b")).maintenance_reason == "by hand"


async def test_the_same_request_again_changes_nothing(fleet: SqlFleet) -> None:
    added, _ = await fleet.add_operation(drain())
    await fleet.set_maintenance("a", True, "by hand")
    assert await fleet.add_operation(drain(requested_by="token:other")) == (added, True)
    assert (await fleet.host("a")).maintenance_reason == "by hand"
    with pytest.raises(Conflict, match="belongs to another request"):
        await fleet.add_operation(drain(FIRST, "b"))


async def test_a_host_is_worked_on_by_one_operation_at_a_time(fleet: SqlFleet, other: SqlFleet) -> None:
    wanted = [drain(FIRST, "a", "b"), drain(SECOND, "b", "c")]
    answers = await asyncio.gather(
        *(f.add_operation(one) for f, one in zip((fleet, other), wanted, strict=True)), return_exceptions=True
    )
    (refused,) = (answer for answer in answers if isinstance(answer, BaseException))
    assert isinstance(refused, Conflict) and "works on b" in refused.message
    assert len(await fleet.operations(OperationPage())) == 1
    closed = {host.name for host in await fleet.hosts() if host.maintenance}
    assert closed in ({"a", "b"}, {"b", "c"})  # and nothing of the one that was refused


async def test_an_unknown_host_closes_no_other_one(fleet: SqlFleet) -> None:
    with pytest.raises(NotFound, match="no host z"):
        await fleet.add_operation(drain(FIRST, "a", "z"))
    assert not (await fleet.host("a")).maintenance
    for unknown in (fleet.operation(FIRST), fleet.order_operation(FIRST, Order.STOP, "me", AT)):
        with pytest.raises(NotFound, match="no operation"):
            await unknown


async def test_operations_are_listed_newest_first_in_pages(fleet: SqlFleet) -> None:
    for id, host in ((FIRST, "a"), (SECOND, "b")):
        await fleet.add_operation(drain(id, host))
    await fleet.order_operation(FIRST, Order.PAUSE, "me", AT)
    newest, oldest = await fleet.operations(OperationPage())
    assert (newest.id, oldest.id) == (SECOND, FIRST)
    assert await fleet.operations(OperationPage(before=newest.number)) == [oldest]
    assert await fleet.operations(OperationPage(statuses=(S.PAUSED,))) == [oldest]
    assert await fleet.operations(OperationPage(id_prefix=SECOND.upper())) == [newest]
    assert await fleet.operations(OperationPage(limit=1)) == [newest]
    assert await fleet.unfinished_operations() == [oldest, newest]


async def test_an_undo_opens_what_the_operation_has_closed_and_nobody_since(fleet: SqlFleet) -> None:
    await fleet.set_maintenance("b", True, "by hand")
    await fleet.add_operation(drain(FIRST, "a", "b", "c"))
    await fleet.set_maintenance("c", True, "by hand")
    undone = await fleet.order_operation(FIRST, Order.UNDO, "token:ops", LATER)
    assert (undone.status, undone.changed_by) == (S.UNDOING, "token:ops")
    assert {host.name for host in await fleet.hosts() if host.maintenance} == {"b", "c"}
    await fleet.set_maintenance("a", True, "by hand")
    assert await fleet.order_operation(FIRST, Order.UNDO, "token:other", LATER) == undone
    assert (await fleet.host("a")).maintenance


async def test_nobody_opens_a_host_that_is_being_emptied(fleet: SqlFleet) -> None:
    await fleet.add_operation(drain())
    for order in (Order.RESUME, Order.PAUSE):
        await fleet.order_operation(FIRST, order, "me", AT)
        with pytest.raises(Conflict, match=f"operation {FIRST} is emptying a") as refused:
            await fleet.set_maintenance("a", False)
        assert f"sterna operation stop {FIRST}" in refused.value.fix
    assert not (await fleet.set_maintenance("b", False)).maintenance
    await fleet.order_operation(FIRST, Order.STOP, "me", AT)
    assert not (await fleet.set_maintenance("a", False)).maintenance


async def test_what_has_ended_goes_on_and_closes_its_hosts_again(fleet: SqlFleet) -> None:
    first = await held(fleet)
    assert await fleet.decide(decision(first))
    await fleet.settle_attempt(attempt(), first.epoch, AttemptState.REFUSED, reason="", blame=Blame.VM, at=AT)
    assert await fleet.conclude(first, S.INCOMPLETE, Standing(), LATER)
    await fleet.set_maintenance("a", False)
    again = await fleet.order_operation(FIRST, Order.RESUME, "token:night", LATER)
    assert (again.status, again.ended_at, again.closed, again.counts_from) == (S.RUNNING, "", ("a",), 1)
    assert (await fleet.host("a")).closed_by == FIRST
    assert await fleet.unfinished_operations() == [again]


async def test_a_host_that_an_earlier_operation_has_closed_is_opened_by_the_undo_of_the_next(
    fleet: SqlFleet,
) -> None:
    first = await held(fleet)
    assert await fleet.conclude(first, S.DONE, Standing(), LATER)
    second, _ = await fleet.add_operation(drain(SECOND))
    assert second.closed == ("a",)
    await fleet.order_operation(SECOND, Order.UNDO, "me", LATER)
    assert not (await fleet.host("a")).maintenance


async def test_an_undo_waits_for_another_operation_on_its_hosts(fleet: SqlFleet) -> None:
    first = await held(fleet)
    assert await fleet.conclude(first, S.DONE, Standing(), LATER)
    await fleet.add_operation(drain(SECOND))
    with pytest.raises(Conflict, match=f"operation {SECOND} works on a"):
        await fleet.order_operation(FIRST, Order.UNDO, "me", LATER)
    assert (await fleet.host("a")).maintenance and (await fleet.operation(FIRST)).status is S.DONE


# ------------------------------------------------------------ the lease


async def test_of_many_that_want_it_one_holds_it(fleet: SqlFleet, other: SqlFleet) -> None:
    added, _ = await fleet.add_operation(drain())
    both = [fleet, other] * 3
    taken = await asyncio.gather(*(f.take_operation(added, f"holder-{n}") for n, f in enumerate(both)))
    (one,) = (record for record in taken if record is not None)
    assert one == await fleet.operation(FIRST) and one.epoch == 1


async def test_a_holder_that_shows_a_sign_of_life_keeps_it(fleet: SqlFleet, other: SqlFleet) -> None:
    mine = await held(fleet)
    kept = await fleet.keep_operation(FIRST, mine.epoch)
    assert kept is not None and kept.beat == 1
    assert await other.take_operation(mine, "two") is None
    theirs = await other.take_operation(kept, "two")
    assert theirs is not None and (theirs.holder, theirs.epoch) == ("two", 2)
    assert await fleet.keep_operation(FIRST, mine.epoch) is None


async def test_one_that_lost_it_changes_nothing_any_more(fleet: SqlFleet, other: SqlFleet) -> None:
    mine = await held(fleet)
    assert await fleet.decide(decision(mine))
    theirs = await other.take_operation(mine, "two")
    assert theirs is not None
    assert not await fleet.decide(decision(mine, attempt(2, 1)))
    late = fleet.settle_attempt(
        attempt(), mine.epoch, AttemptState.FAILED, reason="late", blame=Blame.HOST, at=LATER
    )
    assert await late is None
    await fleet.stand(FIRST, mine.epoch, Standing(running=7))
    assert not await fleet.conclude(mine, S.DONE, Standing(), LATER)
    await fleet.release_operation(FIRST, mine.epoch)
    assert await other.operation(FIRST) == theirs
    assert await other.attempts(FIRST) == [Tried(attempt=attempt())]
    await other.stand(FIRST, theirs.epoch, Standing(running=7))
    assert (await fleet.operation(FIRST)).standing == Standing(running=7)


async def test_one_that_lets_go_need_not_be_waited_for(fleet: SqlFleet) -> None:
    mine = await held(fleet)
    await fleet.release_operation(FIRST, mine.epoch)
    assert (await fleet.operation(FIRST)).holder == ""
    assert await fleet.keep_operation(FIRST, mine.epoch) is None
    assert not await fleet.decide(decision(mine))


async def test_it_ends_only_in_the_status_that_its_holder_knows(fleet: SqlFleet) -> None:
    mine = await held(fleet)
    await fleet.order_operation(FIRST, Order.UNDO, "me", AT)
    assert not await fleet.conclude(mine, S.DONE, Standing(), LATER)
    kept = await fleet.keep_operation(FIRST, mine.epoch)
    assert kept is not None and await fleet.conclude(kept, S.UNDONE, Standing(running=1), LATER)
    ended = await fleet.operation(FIRST)
    assert (ended.status, ended.ended_at, ended.holder) == (S.UNDONE, LATER, "")
    assert ended.standing == Standing(running=1) and not await fleet.unfinished_operations()


async def test_it_does_not_end_while_an_attempt_goes_on(fleet: SqlFleet) -> None:
    mine = await held(fleet)
    assert await fleet.decide(decision(mine))
    assert not await fleet.conclude(mine, S.DONE, Standing(), LATER)
    await settle(fleet, mine, AttemptState.ARRIVED)
    assert await fleet.conclude(mine, S.DONE, Standing(), LATER)


async def test_it_is_not_done_while_a_host_says_that_it_runs_a_vm(fleet: SqlFleet) -> None:
    mine = await held(fleet)
    await saw(fleet, "c", [seen(1), seen(2)], LATER)  # claims them
    assert {vm.host for vm in await fleet.vms()} == {"c"}
    assert not await fleet.conclude(mine, S.DONE, Standing(), LATER, empty=["a"])
    assert await fleet.conclude(mine, S.DONE, Standing(), LATER, empty=["b"])


# ------------------------------------------------------------ attempts


async def test_what_is_decided_is_kept(fleet: SqlFleet) -> None:
    mine = await held(fleet)
    first, second = attempt(), attempt(2, 1, "c")
    assert await fleet.decide(decision(mine, first, second))
    assert await fleet.attempts(FIRST) == [Tried(attempt=first), Tried(attempt=second)]
    assert sorted(one.vm for one in await fleet.active_attempts()) == [uuid(1), uuid(2)]
    await fleet.admit(migration_of(first), AT)
    assert (await fleet.attempts(FIRST))[0] == Tried(
        attempt=first, status=Status.QUEUED, reason="asking the source"
    )


@pytest.mark.parametrize("order", [Order.PAUSE, Order.STOP, Order.UNDO])
async def test_nothing_is_decided_after_an_order_that_the_holder_has_not_seen(
    fleet: SqlFleet, order: Order
) -> None:
    mine = await held(fleet)
    await fleet.order_operation(FIRST, order, "me", AT)
    assert not await fleet.decide(decision(mine))
    assert await fleet.attempts(FIRST) == []


async def test_nothing_is_decided_of_a_vm_that_is_elsewhere_or_migrates(fleet: SqlFleet) -> None:
    mine = await held(fleet)
    assert not await fleet.decide(decision(mine, attempt(source="c")))
    assert not await fleet.decide(decision(mine, attempt(9)))
    busy = move(7, vm=1, source="a", to="c")
    await fleet.admit(busy, AT)
    assert not await fleet.decide(decision(mine, seen=frozenset({busy.id})))
    assert await fleet.attempts(FIRST) == []


async def test_what_is_out_of_date_of_one_vm_keeps_no_other_one(fleet: SqlFleet) -> None:
    mine = await held(fleet)
    busy = move(7, vm=1, source="a", to="c")
    await fleet.admit(busy, AT)
    first, second = attempt(), attempt(2, 1, "c")
    assert await fleet.decide(decision(mine, first, second, seen=frozenset({busy.id}))) == (second,)
    assert await fleet.attempts(FIRST) == [Tried(attempt=second)]
    await settle(fleet, mine, AttemptState.FAILED, second)
    await fleet.order_operation(FIRST, Order.STOP, "me", AT)
    kept = await fleet.keep_operation(FIRST, mine.epoch)
    assert kept is not None and await fleet.conclude(kept, S.STOPPED, Standing(), LATER)
    again = await fleet.order_operation(FIRST, Order.RESUME, "me", AT)
    assert again.counts_from == 2, "or the failure would count still"


async def test_a_migration_that_was_not_seen_takes_what_was_counted_on(fleet: SqlFleet) -> None:
    mine = await held(fleet)
    other = move(7, vm=2, source="a", to="c")
    await fleet.admit(other, AT)
    assert not await fleet.decide(decision(mine))  # from the same host
    assert await fleet.decide(decision(mine, seen=frozenset({other.id})))


async def test_one_between_other_hosts_keeps_nothing(fleet: SqlFleet) -> None:
    await saw(fleet, "c", [seen(3)], AT)
    await fleet.save_host(facts("d", 9), "life-1", AT)
    mine = await held(fleet)
    await fleet.admit(move(7, vm=3, source="c", to="d"), AT)
    assert await fleet.decide(decision(mine))


async def test_what_another_operation_has_decided_counts_before_it_begins(fleet: SqlFleet) -> None:
    mine = await held(fleet)
    assert await fleet.decide(decision(mine))
    await saw(fleet, "c", [seen(3)], AT)
    added, _ = await fleet.add_operation(drain(SECOND, "c"))
    second = await fleet.take_operation(added, "one")
    assert second is not None
    into_b = attempt(3, source="c").model_copy(update={"operation": SECOND, "migration": "other"})
    assert not await fleet.decide(decision(second, into_b))
    assert await fleet.decide(decision(second, into_b, seen=frozenset({attempt().migration})))


async def settle(
    fleet: SqlFleet, held: OperationRecord, state: AttemptState, which: Attempt | None = None
) -> Tried:
    now = await fleet.settle_attempt(
        which or attempt(), held.epoch, state, reason="because", blame=Blame.VM, at=LATER
    )
    (found,) = await fleet.attempts(held.id)
    assert found.attempt == now
    return found


async def test_an_attempt_ends_once(fleet: SqlFleet) -> None:
    mine = await held(fleet)
    assert await fleet.decide(decision(mine))
    started = await settle(fleet, mine, AttemptState.STARTED)
    assert (started.attempt.state, started.attempt.ended_at) == (AttemptState.STARTED, "")
    refused = await settle(fleet, mine, AttemptState.REFUSED)
    ended = refused.attempt
    assert (ended.reason, ended.blame, ended.ended_at) == ("because", Blame.VM, LATER)
    assert await settle(fleet, mine, AttemptState.ARRIVED) == refused
    assert await fleet.active_attempts() == []


async def test_an_attempt_whose_migration_runs_is_not_given_up(fleet: SqlFleet) -> None:
    mine = await held(fleet)
    assert await fleet.decide(decision(mine))
    await fleet.admit(migration_of(attempt()), AT)
    for state in (AttemptState.CANCELLED, AttemptState.REFUSED, AttemptState.FAILED):
        assert (await settle(fleet, mine, state)).attempt.state is AttemptState.DECIDED
    await fleet.settle(attempt().migration, Status.FAILED, "never accepted", LATER)
    assert (await settle(fleet, mine, AttemptState.FAILED)).attempt.state is AttemptState.FAILED


async def test_an_attempt_that_was_given_up_never_begins(fleet: SqlFleet) -> None:
    mine = await held(fleet)
    assert await fleet.decide(decision(mine))
    await settle(fleet, mine, AttemptState.CANCELLED)
    with pytest.raises(Conflict, match="has given up this migration of vm1"):
        await fleet.admit(migration_of(attempt()), AT)
    assert [vm.migration_id for vm in await fleet.vms()] == [None, None]


async def test_an_attempt_begins_only_by_the_rules_by_which_it_was_decided(fleet: SqlFleet) -> None:
    mine = await held(fleet)
    await fleet.put_rule(Rule(name="new", kind=RuleKind.NEVER_MOVE, vms=("vm9",)), replace=False)
    rules = tuple(await fleet.rules())
    decided = decision(mine, attempt().model_copy(update={"rules": digest_of(orders(rules))}))
    assert await fleet.decide(decided.model_copy(update={"rules": rules}))
    await fleet.remove_rule("new")
    with pytest.raises(Conflict, match="placement rules have changed since operation"):
        await fleet.admit(migration_of(attempt()), AT)
    await fleet.put_rule(rules[0], replace=False)
    assert (await fleet.admit(migration_of(attempt()), AT))[1] is False


async def test_an_attempt_begins_only_where_its_vm_was(fleet: SqlFleet) -> None:
    mine = await held(fleet)
    assert await fleet.decide(decision(mine))
    moved = migration_of(attempt()).model_copy(update={"source": "c"})
    with pytest.raises(Conflict, match="wants vm1 moved from a, and it is on c now"):
        await fleet.admit(moved, AT)
    assert (await fleet.admit(migration_of(attempt()), AT))[1] is False
