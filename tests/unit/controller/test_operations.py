"""What a controller makes of an operation, on agents without hosts."""

from __future__ import annotations

from uuid import UUID

import pytest

from sterna.controller.intents.operate import OperationRequest
from sterna.controller.intents.request import MigrateRequest
from sterna.controller.operations.looking import migration_id
from sterna.domain.errors import Conflict, NotFound, Refused, Undelivered, Unknown
from sterna.domain.fleet.attempts import Attempt, AttemptState
from sterna.domain.fleet.course import OperationStatus, Order
from sterna.domain.model import GuestState, Refusal
from sterna.domain.status import Status
from sterna.ports.operations import OperationRecord
from tests.unit.controller.fakes import FakeAgent
from tests.unit.controller.operating import OPERATION, Stage, X

S = OperationStatus


async def order(stage: Stage, what: Order) -> None:
    await stage.controller.operate.order(OPERATION, what, "token:ops")


async def test_a_drain_empties_its_host_and_ends(stage: Stage) -> None:
    await stage.begin()
    host = await stage.controller.registry.host("a")
    assert host.maintenance and host.maintenance_reason == "operation bbbbbbbb of token:ops: new fans"
    ended = await stage.run()
    assert (ended.status, ended.standing.left) == (S.DONE, ())
    assert sorted(name for name, _, _ in stage.moved) == ["x1", "x2", "x3"]
    assert "a" not in stage.places().values()
    assert {m.requested_by for agent in stage.bus.agents.values() for m in agent.migrations.values()} == {
        "token:ops"
    }


async def test_an_empty_host_is_done_at_once(stage: Stage) -> None:
    await stage.begin("b")
    assert (await stage.run(ticks=1)).status is S.DONE
    assert (await stage.controller.registry.host("b")).maintenance


async def test_a_host_is_not_empty_because_the_records_know_of_no_vm_there(stage: Stage) -> None:
    await stage.bus.beat(stage.controller)
    await stage.controller.operate.begin(OperationRequest(id=OPERATION, hosts=("a",)))
    assert await stage.controller.fleet.vms() == []
    await stage.controller.operations.look()
    assert (await stage.operation()).status is S.RUNNING
    assert (await stage.run()).status is S.DONE
    assert sorted(name for name, _, _ in stage.moved) == ["x1", "x2", "x3"]


async def test_a_host_that_cannot_list_its_vms_is_not_known_to_be_empty(stage: Stage) -> None:
    await stage.begin("b")
    stage.bus.faults["list_vms"] = [Undelivered("lost")] * 3
    await stage.controller.operations.look()
    assert (await stage.operation()).status is S.RUNNING
    stage.bus.faults.clear()
    assert (await stage.run()).status is S.DONE


async def test_a_host_that_is_switched_off_once_it_is_empty_holds_up_nothing(stage: Stage) -> None:
    for agent in stage.bus.agents.values():
        agent.counts = True
    await stage.begin("a", "b")
    await stage.tick()
    await stage.tick()
    stage.bus.agents["b"].listening = False
    assert (await stage.run()).status is S.DONE
    assert {to for _, _, to in stage.moved} == {"c"} and len(stage.moved) == 3


async def test_the_same_request_again_is_the_same_operation(stage: Stage) -> None:
    first = await stage.begin()
    second = await stage.begin()
    assert (first.id, first.number) == (second.id, second.number)
    with pytest.raises(NotFound, match="no host z"):
        await stage.begin("z", id="bbbbbbbb-0000-4000-8000-000000000002")
    with pytest.raises(Conflict, match="works on a"):
        await stage.begin("a", id="bbbbbbbb-0000-4000-8000-000000000002")


async def test_what_waits_says_why(stage: Stage) -> None:
    for number in range(4, 12):
        stage.bus.agents["a"].add_vm(f"x{number}", number)
    await stage.begin()
    await stage.tick()
    running = [one.vm_name for one in stage.open()]
    assert 0 < len(running) < 11
    await stage.tick()
    reasons = await stage.reasons()
    assert reasons.keys() == {f"x{n}" for n in range(1, 12)} - set(running)
    assert all(" already " in reason for reason in reasons.values())
    assert (await stage.operation()).standing.running == len(running)
    await stage.run()
    assert len(stage.moved) == 11


async def test_a_single_migration_takes_a_slot_and_is_not_held_back(stage: Stage) -> None:
    await stage.begin()
    await stage.controller.operate.order(OPERATION, Order.PAUSE, "token:ops")
    for name in ("x1", "x2"):
        await stage.controller.migrate(MigrateRequest(vm=name, destination="b"))
    await order(stage, Order.RESUME)
    await stage.tick()
    assert [one.vm_name for one in stage.open()] == ["x1", "x2"]
    await stage.tick()
    assert list(await stage.reasons()) == ["x3"]
    ended = await stage.run()
    assert ended.status is S.DONE
    assert [one.attempt.name for one in await stage.controller.fleet.attempts(OPERATION)] == ["x3"]


def test_the_same_attempt_is_the_same_migration_and_another_one_is_not() -> None:
    ids = [migration_id(operation, vm, n) for operation in (OPERATION, X["x1"]) for vm in X for n in range(3)]
    assert len(set(ids)) == len(ids) == 18 and all(str(UUID(id)) == id for id in ids)
    assert migration_id(OPERATION, "x1", 0) == ids[0]


# ------------------------------------------------------------ what goes wrong


async def test_a_failed_migration_is_tried_elsewhere_after_a_while(stage: Stage) -> None:
    await stage.begin()
    await stage.tick()
    failed = stage.open()[0]
    stage.fail(failed)
    await stage.tick()
    await stage.tick()
    reason = (await stage.reasons())[failed.vm_name]
    assert reason.startswith(f"{failed.vm_name} did not get to {failed.destination}: the link broke; it is tried")
    assert (await stage.run()).status is S.DONE
    other = {"b": "c", "c": "b"}[failed.destination]
    assert (failed.vm_name, "a", other) in stage.moved


async def test_a_vm_that_fails_everywhere_stays_and_blocks_nobody_else(stage: Stage) -> None:
    def but_x1() -> None:
        for migration in stage.open():
            stage.fail(migration) if migration.vm_name == "x1" else stage.complete(migration)

    await stage.begin()
    ended = await stage.run(but_x1)
    assert ended.status is S.INCOMPLETE
    (left,) = ended.standing.left
    assert left.name == "x1" and "the link broke" in left.reason
    assert sorted(stage.places().values()).count("a") == 1


async def test_a_host_that_refuses_is_not_asked_again_and_costs_no_time(stage: Stage) -> None:
    stage.bus.agents["b"].against = [Refusal(code="memory-short", message="b is full")]
    await stage.begin()
    await stage.run()
    assert {to for _, _, to in stage.moved} == {"c"}
    tried = [one.attempt for one in await stage.controller.fleet.attempts(OPERATION)]
    assert all(one.target == "c" or one.state is AttemptState.REFUSED for one in tried)


async def test_a_vm_that_is_off_stays_and_the_operation_says_so(stage: Stage) -> None:
    stage.set_state("x2", GuestState.SHUTOFF)
    await stage.begin()
    ended = await stage.run()
    assert ended.status is S.INCOMPLETE
    assert [(one.name, one.reason) for one in ended.standing.left] == [
        ("x2", "x2 cannot be migrated: it is off, and only running VMs are migrated")
    ]
    assert sorted(name for name, _, _ in stage.moved) == ["x1", "x3"]


async def test_one_that_is_started_meanwhile_is_moved_after_all(stage: Stage) -> None:
    stage.set_state("x2", GuestState.SHUTOFF)
    await stage.begin()
    for _ in range(5):
        await stage.tick()
        stage.complete_all()
    stage.set_state("x2", GuestState.RUNNING)
    assert (await stage.run()).status is S.DONE


async def test_an_operation_waits_for_a_host_that_is_silent(stage: Stage) -> None:
    await stage.begin()
    stage.bus.agents["a"].listening = False
    for _ in range(40):
        await stage.tick()
    operation = await stage.operation()
    assert operation.status is S.RUNNING
    assert all("cannot leave a" in reason for reason in (await stage.reasons()).values())
    stage.bus.agents["a"].listening = True
    assert (await stage.run()).status is S.DONE


async def test_lost_answers_double_nothing(stage: Stage) -> None:
    await stage.begin()
    stage.bus.faults["start_migration"] = [Unknown("lost"), Undelivered("lost"), None, Unknown("lost")]
    assert (await stage.run()).status is S.DONE
    assert sorted(name for name, _, _ in stage.moved) == ["x1", "x2", "x3"]


# ------------------------------------------------------------ what operators ask


async def test_a_paused_operation_starts_nothing_and_what_runs_goes_on(stage: Stage) -> None:
    for number in range(4, 9):
        stage.bus.agents["a"].add_vm(f"x{number}", number)
    await stage.begin()
    await stage.tick()
    begun = len(stage.open())
    await order(stage, Order.PAUSE)
    stage.complete_all()
    for _ in range(5):
        await stage.tick()
    assert len(stage.moved) == begun and not stage.open() and not stage.asked_to_abort()
    assert set((await stage.reasons()).values()) == {"the operation is paused"}
    await order(stage, Order.RESUME)
    assert (await stage.run()).status is S.DONE


async def test_a_stopped_operation_aborts_what_may_be_aborted(stage: Stage) -> None:
    await stage.begin()
    await stage.tick()
    late, early = stage.open()[:2]
    stage.set_status(late, Status.POST_MIGRATING)
    stage.set_status(early, Status.MIGRATING)
    await order(stage, Order.STOP)
    await stage.tick()
    assert early.vm_name in stage.asked_to_abort() and late.vm_name not in stage.asked_to_abort()
    assert (await stage.operation()).status is S.STOPPING
    for migration in stage.open():
        stage.complete(migration) if migration.id == late.id else stage.fail(migration, "", Status.CANCELLED)
    ended = await stage.run()
    assert ended.status is S.STOPPED and [name for name, _, _ in stage.moved] == [late.vm_name]
    assert (await stage.controller.registry.host("a")).maintenance


async def test_what_had_not_begun_when_it_was_stopped_never_begins(stage: Stage) -> None:
    await stage.begin()

    async def unreachable(operation: OperationRecord, attempt: Attempt) -> object:
        raise Undelivered("nobody answers for a")

    stage.controller.operations.acting._ask = unreachable
    await stage.tick()
    await stage.tick()
    assert "nobody answers for a" in (await stage.reasons()).values()
    await order(stage, Order.STOP)
    assert (await stage.run(ticks=3)).status is S.STOPPED
    tried = await stage.controller.fleet.attempts(OPERATION)
    assert tried and {one.attempt.state for one in tried} == {AttemptState.CANCELLED}
    first = tried[0].attempt
    with pytest.raises(Conflict, match="has given up"):
        await stage.controller.migrate(MigrateRequest(id=first.migration, vm=first.vm, destination=first.target))
    assert not stage.open()


async def test_an_undo_brings_back_what_was_moved_and_opens_the_host(stage: Stage) -> None:
    stage.bus.agents["b"].add_vm("y", 9)
    await stage.begin()
    await stage.run()
    went = {name: to for name, _, to in stage.moved}
    await order(stage, Order.UNDO)
    assert not (await stage.controller.registry.host("a")).maintenance
    ended = await stage.run()
    assert (ended.status, ended.standing.left) == (S.UNDONE, ())
    assert sorted(stage.moved[3:]) == sorted((name, to, "a") for name, to in went.items())
    assert stage.places()["y"] == "b"
    await order(stage, Order.UNDO)
    assert (await stage.operation()) == ended


async def test_an_undo_in_the_middle_aborts_what_runs_and_leaves_what_stayed(stage: Stage) -> None:
    await stage.begin()
    await stage.tick()
    first, second = stage.open()[:2]
    stage.complete(first)
    await order(stage, Order.UNDO)
    await stage.tick()
    assert second.vm_name in stage.asked_to_abort()
    for migration in stage.open():
        if migration.destination != "a":
            stage.fail(migration, "", Status.CANCELLED)
    ended = await stage.run()
    assert ended.status is S.UNDONE and set(stage.places().values()) == {"a"}
    assert stage.moved[1:] == [(first.vm_name, first.destination, "a")]


async def test_a_vm_that_somebody_has_moved_since_is_left_where_it_is(stage: Stage) -> None:
    await stage.begin()
    await stage.run()
    name, _, to = stage.moved[0]
    other = {"b": "c", "c": "b"}[to]
    await stage.controller.migrate(MigrateRequest(vm=name, destination=other))
    stage.complete_all()
    await stage.refresh()
    await order(stage, Order.UNDO)
    ended = await stage.run()
    assert ended.status is S.UNDONE
    assert [one.reason for one in ended.standing.left] == [f"{name} has since been migrated from {to} to {other}"]
    assert stage.places()[name] == other and list(stage.places().values()).count("a") == 2


# ------------------------------------------------------------ what comes in


async def test_a_migration_into_a_host_that_closes_is_aborted(stage: Stage) -> None:
    stage.bus.agents["b"].add_vm("y", 9)
    await stage.refresh()
    record, _ = await stage.controller.migrate(MigrateRequest(vm="y", destination="a"))
    await stage.begin()
    await stage.tick()
    assert stage.asked_to_abort() == {"y"}
    (coming,) = (one for one in stage.open() if one.id == record.id)
    stage.fail(coming, "", Status.CANCELLED)
    assert (await stage.run()).status is S.DONE
    assert stage.places()["y"] == "b"


async def test_one_that_cannot_be_aborted_any_more_is_moved_on(stage: Stage) -> None:
    stage.bus.agents["b"].add_vm("y", 9)
    await stage.refresh()
    record, _ = await stage.controller.migrate(MigrateRequest(vm="y", destination="a"))
    (coming,) = (one for one in stage.open() if one.id == record.id)
    stage.set_status(coming, Status.POST_MIGRATING)
    await stage.begin()
    await stage.tick()
    assert not stage.asked_to_abort()
    assert (await stage.run()).status is S.DONE
    assert stage.places()["y"] != "a"


# ------------------------------------------------------------ before it begins


async def test_a_preview_changes_nothing(stage: Stage) -> None:
    await stage.refresh()
    found = await stage.controller.operate.preview(OperationRequest(hosts=("a",)))
    assert {move.vm for move in found.plan.moves} == set(X.values())
    assert 0 < found.expected_s <= found.promised_s and found.late_s is None
    assert not (await stage.controller.registry.host("a")).maintenance
    assert not await stage.controller.fleet.unfinished_operations()


async def test_a_deadline_that_cannot_be_met_is_said_before_and_by_how_much(stage: Stage) -> None:
    with pytest.raises(Refused, match=r"it will probably take .* more than allowed") as raised:
        await stage.begin(finish_within_s=1.0)
    (refusal,) = raised.value.refusals
    assert refusal.code == "deadline-missed" and "--even-if-late" in refusal.fix
    assert not (await stage.controller.registry.host("a")).maintenance
    await stage.begin(finish_within_s=1.0, even_if_late=True)
    await stage.tick()
    await stage.tick()
    late_s = (await stage.operation()).standing.late_s
    assert late_s is not None and late_s > 0
    assert (await stage.run()).status is S.DONE


async def test_one_that_can_be_met_is_not_spoken_of(stage: Stage) -> None:
    await stage.begin(finish_within_s=3600.0)
    await stage.tick()
    assert (await stage.operation()).standing.late_s is None


async def test_hosts_without_room_are_seen_before(stage: Stage) -> None:
    for number, name in ((2, "b"), (3, "c")):
        stage.bus.agents[name] = FakeAgent(name, number)
        for n in range(16):
            stage.bus.agents[name].add_vm(f"{name}{n}", 100 * number + n)
    await stage.refresh()
    found = await stage.controller.operate.preview(OperationRequest(hosts=("a",)))
    assert len(found.plan.left) == 3 and not found.plan.moves
    assert all("without enough memory" in one.reason for one in found.plan.left)
