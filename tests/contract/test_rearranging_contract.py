"""The controller's records of a rebalance and a bring-back, on SQLite and on PostgreSQL: neither closes a host."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sterna.adapters.sql.fleet import SqlFleet
from sterna.domain.errors import Conflict, NotFound
from sterna.domain.fleet.attempts import AttemptState, Blame
from sterna.domain.fleet.course import OperationKind, OperationStatus, Order
from sterna.domain.fleet.operations import Return
from sterna.ports.operations import OperationRecord, Standing
from tests.contract.operation_records import FIRST, SECOND, attempt, decision, drain
from tests.contract.records import AT, facts, saw, seen, uuid

REBALANCE, BACK = OperationKind.REBALANCE, OperationKind.BRING_BACK
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


def operation(id: str, kind: OperationKind, *hosts: str, **more: object) -> OperationRecord:
    return drain(id, "a", kind=kind, **more).model_copy(update={"hosts": hosts})


async def is_closed(fleet: SqlFleet, host: str = "a") -> bool:
    return (await fleet.host(host)).maintenance


@pytest.mark.parametrize("kind", [REBALANCE, BACK])
async def test_neither_closes_a_host_nor_keeps_a_person_from_it(fleet: SqlFleet, kind: OperationKind) -> None:
    added, _ = await fleet.add_operation(operation(FIRST, kind, "a"), up=frozenset("abc"))
    assert added.closed == () and not await is_closed(fleet)
    await fleet.set_maintenance("a", True)
    await fleet.set_maintenance("a", False)
    held = await fleet.take_operation(added, "one")
    assert held is not None
    await fleet.order_operation(FIRST, Order.STOP, "token:ops", AT)
    stopping = await fleet.keep_operation(FIRST, held.epoch)
    assert stopping is not None and await fleet.conclude(stopping, S.STOPPED, Standing(), AT)
    resumed = await fleet.order_operation(FIRST, Order.RESUME, "token:ops", AT, up=frozenset("abc"))
    assert (resumed.status, resumed.closed) == (S.RUNNING, ()) and not await is_closed(fleet)
    undone = await fleet.order_operation(FIRST, Order.UNDO, "token:ops", AT)
    assert undone.status is S.UNDOING and not await is_closed(fleet)


async def test_a_rebalance_minds_other_rebalances_only_and_nobody_minds_it(fleet: SqlFleet) -> None:
    await fleet.add_operation(operation(FIRST, REBALANCE, "a", "b"))
    for hosts, words in ((("b", "c"), "works on b"), ((), "works on all hosts")):
        with pytest.raises(Conflict, match=words):
            await fleet.add_operation(operation(SECOND, REBALANCE, *hosts))
    await fleet.add_operation(drain(SECOND, "a"))
    assert await is_closed(fleet)


async def test_a_host_is_not_emptied_while_vms_are_brought_back_to_it(fleet: SqlFleet) -> None:
    await fleet.add_operation(operation(FIRST, BACK, "a"))
    with pytest.raises(Conflict, match="works on a"):
        await fleet.add_operation(drain(SECOND, "a"))
    with pytest.raises(NotFound):
        await fleet.add_operation(operation(SECOND, BACK, "z"))


async def test_what_is_asked_for_is_kept(fleet: SqlFleet) -> None:
    returns = (Return(vm=uuid(1), origin="a", put_on="b"),)
    added, _ = await fleet.add_operation(operation(FIRST, BACK, "a", returns=returns))
    assert (await fleet.operation(FIRST)) == added and added.returns == returns
    again = operation(FIRST, BACK, "a", returns=())
    assert await fleet.add_operation(again) == (added, True), "what has been brought back since is no other request"
    await fleet.add_operation(operation(SECOND, REBALANCE, "b", threshold=0.3))
    with pytest.raises(Conflict, match="belongs to another request"):
        await fleet.add_operation(operation(SECOND, REBALANCE, "b", threshold=0.4))


async def test_vms_that_were_moved_away_are_known_with_their_origins(fleet: SqlFleet) -> None:
    added, _ = await fleet.add_operation(drain())
    held = await fleet.take_operation(added, "one")
    assert held is not None and await fleet.decide(decision(held, attempt(1), attempt(2, 1)))
    assert await fleet.moved_away("a") == ()
    for one, state in ((attempt(1), AttemptState.ARRIVED), (attempt(2, 1), AttemptState.FAILED)):
        await fleet.settle_attempt(one, held.epoch, state, reason="", blame=Blame.NOBODY, at=AT)
    assert await fleet.moved_away(["a", "c"]) == (Return(vm=uuid(1), origin="a", put_on="b"),)
    assert await fleet.moved_away("bc") == ()
