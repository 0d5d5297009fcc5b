"""Operations that move VMs and close no host: a rebalance, and the return of VMs that drains have moved away."""

from __future__ import annotations

import pytest

from sterna.controller.intents.operate import OperationRequest
from sterna.controller.intents.request import MigrateRequest
from sterna.domain.errors import Conflict, NotFound, Refused
from sterna.domain.fleet.attempts import AttemptState
from sterna.domain.fleet.course import OperationKind, OperationStatus, Order
from sterna.domain.fleet.plans import Purpose
from sterna.ports.operations import Decision, OperationRecord
from tests.unit.controller.operating import OPERATION, Stage, X

S = OperationStatus
REBALANCE, BACK = OperationKind.REBALANCE, OperationKind.BRING_BACK
SECOND, THIRD = (f"bbbbbbbb-0000-4000-8000-00000000000{number}" for number in (2, 3))


async def rebalance(stage: Stage, *hosts: str, id: str = OPERATION, threshold: float = 0.1) -> OperationRecord:
    stage.controller.operate.may_rebalance = True
    await stage.refresh()
    asked = OperationRequest(id=id, kind=REBALANCE, hosts=hosts, threshold=threshold, requested_by="token:ops")
    return (await stage.controller.operate.begin(asked))[0]


async def drained(stage: Stage, *hosts: str, id: str = OPERATION) -> None:
    await stage.begin(*hosts, id=id)
    assert (await stage.run(id=id)).status is S.DONE


async def opened(stage: Stage, *hosts: str) -> None:
    for host in hosts:
        await stage.controller.registry.set_maintenance(host, False)


async def bring_back(stage: Stage, *hosts: str, id: str = THIRD) -> OperationRecord:
    asked = OperationRequest(id=id, kind=BACK, hosts=hosts, requested_by="token:ops")
    return (await stage.controller.operate.begin(asked))[0]


# ------------------------------------------------------------ rebalance


async def test_a_rebalance_is_off_until_somebody_switches_it_on(stage: Stage) -> None:
    await stage.refresh()
    asked = OperationRequest(kind=REBALANCE, hosts=(), threshold=0.1)
    with pytest.raises(Refused) as refused:
        await stage.controller.operate.begin(asked)
    assert [one.code for one in refused.value.refusals] == ["rebalance-off"]
    assert len((await stage.controller.operate.preview(asked)).plan.moves) == 2
    assert await stage.controller.fleet.unfinished_operations() == []


async def test_vms_move_to_emptier_hosts_and_a_second_rebalance_moves_nothing(stage: Stage) -> None:
    await rebalance(stage)
    ended = await stage.run()
    assert (ended.status, ended.standing.left, ended.closed) == (S.DONE, (), ())
    assert sorted(stage.places().values()) == ["a", "b", "c"] and len(stage.moved) == 2
    assert not any(host.maintenance for host in await stage.controller.registry.hosts())
    tried = await stage.controller.fleet.attempts(OPERATION)
    assert {one.attempt.purpose for one in tried} == {Purpose.BALANCE}
    await rebalance(stage, id=SECOND)
    assert (await stage.run(id=SECOND, ticks=1)).status is S.DONE
    assert len(stage.moved) == 2


async def test_hosts_that_differ_little_are_left_alone(stage: Stage) -> None:
    await rebalance(stage, threshold=0.2)
    assert (await stage.run(ticks=1)).status is S.DONE
    assert stage.moved == []


async def test_only_the_named_hosts_are_rebalanced(stage: Stage) -> None:
    await rebalance(stage, "a", "b")
    await stage.run()
    assert "c" not in stage.places().values() and len(stage.moved) == 1


async def test_closed_hosts_take_and_give_nothing(stage: Stage) -> None:
    await stage.refresh()
    await stage.controller.registry.set_maintenance("b", True)
    await rebalance(stage)
    await stage.run()
    assert "b" not in stage.places().values() and len(stage.moved) == 1


async def test_the_undo_of_a_rebalance_moves_its_vms_back(stage: Stage) -> None:
    await rebalance(stage)
    await stage.run()
    await stage.controller.operate.order(OPERATION, Order.UNDO, "token:ops")
    assert (await stage.run()).status is S.UNDONE
    assert set(stage.places().values()) == {"a"}


async def test_one_that_is_stopped_goes_on_when_it_is_resumed_and_closes_no_host(stage: Stage) -> None:
    await rebalance(stage, "a", "b", "c")
    await stage.controller.operate.order(OPERATION, Order.STOP, "token:ops")
    assert (await stage.run()).status is S.STOPPED
    await stage.controller.operate.order(OPERATION, Order.RESUME, "token:ops")
    assert (await stage.run()).status is S.DONE
    assert len(stage.moved) == 2
    assert not any(host.maintenance for host in await stage.controller.registry.hosts())


async def test_two_do_not_rebalance_the_same_hosts_and_a_drain_does_not_wait_for_either(stage: Stage) -> None:
    await rebalance(stage, "a", "b")
    with pytest.raises(Conflict, match="works on b"):
        await rebalance(stage, "b", "c", id=SECOND)
    with pytest.raises(Conflict, match="works on all hosts"):
        await rebalance(stage, id=SECOND)
    await stage.begin("a", id=THIRD)
    assert (await stage.run(id=THIRD)).status is S.DONE
    assert "a" not in stage.places().values()
    assert (await stage.run()).status is S.DONE


async def test_its_hosts_may_be_put_into_maintenance_and_out_of_it(stage: Stage) -> None:
    await rebalance(stage, "a", "b")
    await stage.controller.registry.set_maintenance("b", True)
    assert not (await stage.controller.registry.set_maintenance("b", False)).maintenance


# ------------------------------------------------------------ bring back


async def test_vms_return_to_the_host_that_a_drain_has_emptied(stage: Stage) -> None:
    await drained(stage, "a")
    await opened(stage, "a")
    record = await bring_back(stage, "a")
    assert (len(record.returns), record.closed) == (3, ())
    ended = await stage.run(id=THIRD)
    assert (ended.status, ended.standing.left) == (S.DONE, ())
    assert set(stage.places().values()) == {"a"}
    assert {one.attempt.purpose for one in await stage.controller.fleet.attempts(THIRD)} == {Purpose.HOME}
    with pytest.raises(Refused) as refused:
        await bring_back(stage, "a", id=SECOND)
    assert [one.code for one in refused.value.refusals] == ["nothing-to-bring-back"]


async def test_they_return_to_where_the_first_of_several_drains_has_found_them(stage: Stage) -> None:
    await drained(stage, "a")
    await drained(stage, "b", id=SECOND)
    await opened(stage, "a", "b")
    await bring_back(stage, "a")
    assert (await stage.run(id=THIRD)).status is S.DONE
    assert set(stage.places().values()) == {"a"}


async def test_the_preview_is_what_is_done(stage: Stage) -> None:
    await drained(stage, "a")
    await opened(stage, "a")
    preview = await stage.controller.operate.preview(OperationRequest(kind=BACK, hosts=("a",)))
    planned = {(move.name, move.source, move.target) for move in preview.plan.moves}
    await bring_back(stage, "a")
    stage.moved.clear()
    await stage.run(id=THIRD)
    assert set(stage.moved) == planned and len(planned) == 3


async def test_one_that_somebody_has_moved_since_stays_with_its_reason(stage: Stage) -> None:
    await drained(stage, "a")
    await opened(stage, "a")
    at = stage.places()["x1"]
    other = {"b": "c", "c": "b"}[at]
    await stage.controller.migrate(MigrateRequest(vm="x1", destination=other))
    stage.complete_all()
    await stage.refresh()
    await bring_back(stage, "a")
    ended = await stage.run(id=THIRD)
    assert ended.status is S.INCOMPLETE
    assert [one.reason for one in ended.standing.left] == [f"x1 has since been migrated from {at} to {other}"]
    assert stage.places() == {"x1": other, "x2": "a", "x3": "a"}


async def test_vms_stay_while_their_host_is_closed_and_return_when_it_is_resumed(stage: Stage) -> None:
    await drained(stage, "a")
    await bring_back(stage, "a")
    ended = await stage.run(id=THIRD)
    assert ended.status is S.INCOMPLETE
    assert all("cannot go back: a is closed: " in one.reason for one in ended.standing.left)
    await opened(stage, "a")
    await stage.controller.operate.order(THIRD, Order.RESUME, "token:ops")
    assert (await stage.run(id=THIRD)).status is S.DONE
    assert set(stage.places().values()) == {"a"}


async def test_a_failed_return_is_tried_again_on_the_same_host(stage: Stage) -> None:
    await drained(stage, "a")
    await opened(stage, "a")
    await bring_back(stage, "a")
    await stage.tick()
    failed = stage.open()[0]
    stage.fail(failed)
    assert (await stage.run(id=THIRD)).status is S.DONE
    assert set(stage.places().values()) == {"a"}


async def test_the_undo_of_a_return_moves_them_away_again(stage: Stage) -> None:
    await drained(stage, "a")
    went = stage.places()
    await opened(stage, "a")
    await bring_back(stage, "a")
    await stage.run(id=THIRD)
    await stage.controller.operate.order(THIRD, Order.UNDO, "token:ops")
    assert (await stage.run(id=THIRD)).status is S.UNDONE
    assert stage.places() == went


async def test_a_vm_that_an_undo_parks_is_not_aborted(stage: Stage) -> None:
    await drained(stage, "a")
    where = stage.places()["x1"]
    other = {"b": "c", "c": "b"}[where]
    await stage.controller.operate.order(OPERATION, Order.UNDO, "token:ops")
    record = await stage.controller.fleet.take_operation(await stage.operation(), "planner")
    assert record is not None
    parked = (await stage.controller.fleet.attempts(OPERATION))[0].attempt.model_copy(
        update={
            "migration": "cccccccc-0000-4000-8000-000000000001",
            "number": record.counts_from,
            "vm": X["x1"],
            "name": "x1",
            "source": where,
            "target": other,
            "purpose": Purpose.PARK,
            "state": AttemptState.DECIDED,
            "ended_at": "",
        }
    )
    decision = Decision(
        operation=OPERATION, epoch=record.epoch, status=record.status, attempts=(parked,), seen=frozenset()
    )
    assert await stage.controller.fleet.decide(decision) == (parked,)
    await stage.controller.fleet.release_operation(OPERATION, record.epoch)
    assert (await stage.run()).status is S.UNDONE
    assert ("x1", where, other) in stage.moved and stage.moved[-1] == ("x1", other, "a")
    assert set(stage.places().values()) == {"a"}


async def test_what_a_rebalance_has_moved_is_not_brought_back(stage: Stage) -> None:
    await rebalance(stage)
    await stage.run()
    with pytest.raises(Refused, match="has moved a VM away from a"):
        await bring_back(stage, "a")


async def test_hosts_that_there_are_not_or_no_more_are_named(stage: Stage) -> None:
    await drained(stage, "a")
    with pytest.raises(NotFound, match="no host z"):
        await bring_back(stage, "z")
    stage.bus.agents["a"].listening = False
    stage.clock.ms += 30_000
    await stage.refresh()
    await stage.controller.deaths.declare("a", fenced=True)
    with pytest.raises(Refused, match="a was declared dead: nothing can be brought back to it"):
        await bring_back(stage, "a")


async def test_the_same_request_again_is_the_same_operation(stage: Stage) -> None:
    await drained(stage, "a")
    await opened(stage, "a")
    first = await bring_back(stage, "a")
    await stage.run(id=THIRD)
    again = await bring_back(stage, "a")
    assert (again.number, again.status) == (first.number, S.DONE)
    with pytest.raises(Conflict, match="belongs to another request"):
        await bring_back(stage, "a", "b")
