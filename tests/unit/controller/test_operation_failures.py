"""What an operation makes of refusals, failures and hosts that are gone."""

from __future__ import annotations

import pytest

from sterna.controller.intents.request import MigrateRequest
from sterna.controller.operations.observing import Capacity
from sterna.domain.errors import BadRequest, Conflict, Temporary, Undelivered
from sterna.domain.fleet.attempts import Attempt, AttemptState
from sterna.domain.fleet.course import OperationStatus, Order
from sterna.domain.fleet.rules import Rule, RuleKind
from sterna.domain.model import Data, Refusal
from sterna.domain.refusals import Code
from sterna.domain.status import Status
from sterna.ports.bus import BusState
from sterna.ports.operations import OperationRecord
from tests.unit.controller.fakes import FakeAgent
from tests.unit.controller.operating import OPERATION, Stage, X

S = OperationStatus


@pytest.mark.parametrize("code", ["destination-down", "check-failed", "peer-unreachable", "network-agent-dead"])
async def test_one_host_that_takes_nothing_does_not_hold_up_a_drain(stage: Stage, code: Code) -> None:
    stage.bus.agents["b"].against = [Refusal(code=code, message="b is broken")]
    await stage.begin()
    assert (await stage.run()).status is S.DONE
    assert {to for _, _, to in stage.moved} == {"c"}


@pytest.mark.parametrize("code", ["vm-job-active", "disk-job-active", "network-service"])
async def test_what_ends_by_itself_is_waited_for_however_often_it_is_refused(stage: Stage, code: Code) -> None:
    for name in "bc":
        stage.bus.agents[name].against = [Refusal(code=code, message="x1 is being backed up")]
    await stage.begin()
    for _ in range(150):
        await stage.tick()
    assert (await stage.operation()).status is S.RUNNING
    assert all("being backed up; it is tried again at" in reason for reason in (await stage.reasons()).values())
    assert len(await stage.controller.fleet.attempts(OPERATION)) < 25
    for name in "bc":
        stage.bus.agents[name].against = []
    assert (await stage.run(ticks=400)).status is S.DONE


async def test_an_error_that_nobody_can_classify_is_tried_elsewhere_and_counts(stage: Stage) -> None:
    async def misunderstood(operation: OperationRecord, attempt: Attempt) -> object:
        raise BadRequest("the agent of a does not understand")

    stage.controller.operations.acting._ask = misunderstood
    await stage.begin()
    ended = await stage.run()
    assert ended.status is S.INCOMPLETE
    assert all("the agent of a does not understand" in one.reason for one in ended.standing.left)


# ------------------------------------------------------------ undo


async def asked(stage: Stage, what: Order, by: str = "token:night") -> None:
    await stage.controller.operate.order(OPERATION, what, by)


async def test_an_undo_tries_again_where_the_origin_has_refused_or_a_migration_has_failed(stage: Stage) -> None:
    failed: set[str] = set()

    def fails_once() -> None:
        for migration in stage.open():
            if migration.vm_uuid in failed:
                stage.complete(migration)
            else:
                failed.add(migration.vm_uuid)
                stage.fail(migration)

    await stage.begin()
    await stage.run()
    stage.bus.agents["a"].against = [Refusal(code="memory-short", message="a is full at this moment")]
    await asked(stage, Order.UNDO)
    await stage.tick()
    await stage.tick()
    assert all("a is full at this moment; it is tried" in reason for reason in (await stage.reasons()).values())
    stage.bus.agents["a"].against = []
    ended = await stage.run(fails_once)
    assert (ended.status, ended.standing.left) == (S.UNDONE, ())
    assert set(stage.places().values()) == {"a"}


async def test_an_undo_that_has_left_vms_can_be_repeated(stage: Stage) -> None:
    await stage.refresh()
    await stage.controller.registry.set_maintenance("a", True, "by hand")
    await stage.begin()
    await stage.run()
    await asked(stage, Order.UNDO)
    ended = await stage.run()
    assert ended.status is S.UNDONE
    assert {one.reason for one in ended.standing.left} == {
        f"{name} cannot go back: a is closed: by hand" for name in X
    }
    await stage.controller.registry.set_maintenance("a", False)
    await asked(stage, Order.UNDO)
    ended = await stage.run()
    assert (ended.status, ended.standing.left) == (S.UNDONE, ())
    assert set(stage.places().values()) == {"a"}


async def test_who_asked_for_the_undo_is_who_asked_for_its_migrations(stage: Stage) -> None:
    await stage.begin()
    await stage.run()
    await asked(stage, Order.UNDO)
    await stage.run()
    by = {m.requested_by for agent in stage.bus.agents.values() for m in agent.migrations.values()}
    assert by == {"token:ops", "token:night"}


# ------------------------------------------------------------ resume


async def test_a_drain_that_has_left_a_vm_goes_on_and_tries_it_again(stage: Stage) -> None:
    def but_x1() -> None:
        for migration in stage.open():
            stage.fail(migration) if migration.vm_name == "x1" else stage.complete(migration)

    await stage.begin()
    assert (await stage.run(but_x1)).status is S.INCOMPLETE
    await asked(stage, Order.RESUME)
    assert (await stage.run()).status is S.DONE
    await asked(stage, Order.UNDO)
    assert (await stage.run()).status is S.UNDONE
    assert set(stage.places().values()) == {"a"}


async def test_a_drain_that_was_stopped_goes_on_though_its_host_was_opened(stage: Stage) -> None:
    await stage.begin()
    await asked(stage, Order.STOP)
    assert (await stage.run()).status is S.STOPPED
    await stage.controller.registry.set_maintenance("a", False)
    await asked(stage, Order.RESUME)
    assert (await stage.controller.registry.host("a")).maintenance
    assert (await stage.run()).status is S.DONE


async def test_a_stopped_undo_goes_on_as_an_undo_and_not_as_a_drain(stage: Stage) -> None:
    await stage.begin()
    await stage.run()
    await asked(stage, Order.UNDO)
    await asked(stage, Order.STOP)
    assert (await stage.run()).status is S.STOPPED
    with pytest.raises(Conflict, match="the undo of this operation was stopped"):
        await asked(stage, Order.RESUME)
    await asked(stage, Order.UNDO)
    assert (await stage.run()).status is S.UNDONE
    assert set(stage.places().values()) == {"a"}


# ------------------------------------------------------------ hosts that are gone, and a bus that is


async def silenced(stage: Stage, name: str) -> None:
    stage.bus.agents[name].listening = False
    stage.clock.ms += 30_000
    await stage.refresh()


async def test_a_drain_ends_without_a_host_that_was_declared_dead(stage: Stage) -> None:
    await stage.begin()
    await silenced(stage, "a")
    await stage.tick()
    assert (await stage.operation()).standing.waits_for.startswith("a cannot be reached: nothing received")
    await stage.controller.deaths.declare("a", fenced=True)
    ended = await stage.run()
    assert ended.status is S.INCOMPLETE
    assert {one.reason for one in ended.standing.left} == {
        f"{name} cannot leave a: it was declared dead" for name in X
    }


async def test_an_undo_waits_for_no_host_whose_vms_are_gone_or_were_moved_since(stage: Stage) -> None:
    await stage.begin()
    await stage.run()
    for name, _, to in list(stage.moved):
        if to == "c":
            await stage.controller.migrate(MigrateRequest(vm=name, destination="b"))
    stage.complete_all()
    await stage.refresh()
    await silenced(stage, "c")
    await asked(stage, Order.UNDO)
    assert (await stage.run()).status is S.UNDONE


async def test_an_undo_waits_for_a_silent_host_until_it_is_declared_dead(stage: Stage) -> None:
    await stage.begin()
    await stage.run()
    await silenced(stage, "c")
    await asked(stage, Order.UNDO)
    for _ in range(40):
        await stage.tick()
        stage.complete_all()
    operation = await stage.operation()
    assert operation.status is S.UNDOING and "c cannot be reached" in operation.standing.waits_for
    await stage.controller.deaths.declare("c", fenced=True)
    ended = await stage.run()
    assert ended.status is S.UNDONE
    assert all("it was declared dead" in one.reason for one in ended.standing.left) and ended.standing.left


async def test_a_controller_without_the_bus_leaves_its_operations_to_others(stage: Stage) -> None:
    await stage.begin()
    await stage.tick()
    assert (await stage.operation()).holder
    stage.bus.bus = BusState(connected=False, since=stage.clock.now(), why="connection refused")
    await stage.controller.operations.look()
    operation = await stage.operation()
    assert not operation.holder and operation.status is S.RUNNING
    assert "has lost the message bus" in operation.standing.waits_for
    await stage.controller.operations.look()
    assert (await stage.operation()).epoch == operation.epoch
    stage.bus.bus = BusState(connected=True, since=stage.clock.now())
    assert (await stage.run()).status is S.DONE


async def test_what_keeps_an_empty_host_from_being_done_is_said(stage: Stage) -> None:
    await stage.begin("b")
    stage.bus.faults["list_vms"] = [Undelivered("lost")] * 3
    await stage.controller.operations.look()
    assert (await stage.operation()).standing.waits_for.startswith("b has not listed its VMs: ")
    stage.bus.faults.clear()
    ended = await stage.run()
    assert (ended.status, ended.standing.waits_for) == (S.DONE, "")


async def test_somebody_elses_migration_that_is_waited_for_is_named(stage: Stage) -> None:
    stage.bus.agents["b"].add_vm("y", 9)
    await stage.refresh()
    await stage.controller.migrate(MigrateRequest(vm="y", destination="a"))
    (coming,) = stage.open()
    stage.set_status(coming, Status.POST_MIGRATING)
    await stage.begin()
    await stage.tick()
    await stage.tick()
    assert (await stage.operation()).standing.waits_for == "the migration of y from b to a"


async def test_a_stop_says_which_host_it_cannot_ask(stage: Stage) -> None:
    await stage.begin()
    await stage.tick()
    await silenced(stage, "a")
    await asked(stage, Order.STOP)
    await stage.tick()
    standing = (await stage.operation()).standing
    assert standing.waits_for == "a cannot be asked how its migrations have ended"


async def turned_away(stage: Stage, name: str, why: str = "too many requests") -> list[str]:
    """The source has no time for that VM. The migrations that it was asked for."""
    start, asked = stage.bus._start_migration, list[str]()

    def busy(agent: FakeAgent, params: Data) -> Data:
        if agent.vms[params["vm"]].name == name:
            asked.append(params["id"])
            raise Temporary(why)
        return start(agent, params)

    stage.bus._start_migration = busy  # type: ignore[method-assign]
    return asked


async def test_what_can_never_begin_keeps_no_slot_and_is_planned_again(stage: Stage) -> None:
    stage.controller.fill_hosts(Capacity(preparing=1))
    asked = await turned_away(stage, "x1")
    await stage.begin()
    for _ in range(40):
        await stage.tick()
        stage.complete_all()
    assert {name for name, _, _ in stage.moved} == {"x2", "x3"}
    assert (await stage.operation()).status is S.RUNNING
    reason = (await stage.reasons())["x1"]
    assert "too many requests" in reason and "it is tried again at" in reason
    assert len(asked) < 20 and len(set(asked)) > 1
    del stage.bus._start_migration
    assert (await stage.run()).status is S.DONE


async def test_what_is_turned_away_for_a_moment_begins_as_it_was_decided(stage: Stage) -> None:
    asked = await turned_away(stage, "x1")
    await stage.begin()
    for _ in range(3):
        await stage.tick()
    del stage.bus._start_migration
    assert (await stage.run()).status is S.DONE
    assert len(asked) == 3 and len(set(asked)) == 1
    assert len(await stage.controller.fleet.attempts(OPERATION)) == 3


NEVER = Rule(name="stays", kind=RuleKind.NEVER_MOVE, vms=("x1",))
PRIORITY = Rule(name="first", kind=RuleKind.PRIORITY, vms=("x1",), priority=3)


async def test_what_was_decided_before_a_rule_was_written_does_not_begin_after_it(stage: Stage) -> None:
    await turned_away(stage, "x1")
    await stage.begin()
    await stage.tick()
    await asked(stage, Order.PAUSE)
    stage.complete_all()
    stage.clock.ms += 86_400_000
    await stage.tick()
    await stage.controller.fleet.put_rule(NEVER, replace=False)
    del stage.bus._start_migration
    await asked(stage, Order.RESUME)
    assert (await stage.run()).status is S.INCOMPLETE
    assert stage.places()["x1"] == "a" and {name for name, _, _ in stage.moved} == {"x2", "x3"}
    tried = [one.attempt for one in await stage.controller.fleet.attempts(OPERATION) if one.attempt.name == "x1"]
    assert [one.state for one in tried] == [AttemptState.REFUSED]
    assert "placement rules have changed since operation bbbbbbbb" in tried[0].reason


async def test_a_rule_that_says_nothing_of_places_changes_no_decision(stage: Stage) -> None:
    await turned_away(stage, "x1")
    await stage.begin()
    await stage.tick()
    await stage.controller.fleet.put_rule(PRIORITY, replace=False)
    del stage.bus._start_migration
    assert (await stage.run()).status is S.DONE
    assert len(await stage.controller.fleet.attempts(OPERATION)) == 3
