"""What a controller makes of a rolling operation, on agents without hosts."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sterna.adapters.sql.fleet import SqlFleet
from sterna.controller.intents.operate import OperationRequest
from sterna.controller.intents.request import MigrateRequest
from sterna.domain.errors import Conflict, NotFound, Permanent, Refused, Undelivered, Unreachable
from sterna.domain.fleet.course import OperationKind, OperationStatus, Order
from sterna.domain.fleet.stages import Between, Stage
from sterna.domain.model import GuestState
from tests.unit.controller.operating import OPERATION
from tests.unit.controller.rebooting import HOOK, Rebooting

S = OperationStatus
RESTART, BY_HAND = Between(), Between(by_hand=True)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Rebooting]:
    living = Rebooting.of(SqlFleet.open(f"sqlite:///{tmp_path}/controller.db"))
    assert isinstance(living, Rebooting)
    yield living
    await living.controller.stop()


async def done(stage: Rebooting, host: str, by: str = "token:ops") -> None:
    await stage.controller.operate.host_done(OPERATION, host, by)


async def test_each_host_is_emptied_rebooted_and_opened(stage: Rebooting) -> None:
    begun = await stage.roll()
    assert (begun.closed, await stage.closed()) == ((), set())
    ended = await stage.run()
    assert (ended.status, ended.standing.hosts, ended.standing.waits_for) == (S.DONE, {}, "")
    assert stage.reboots == Counter("abc") and stage.most_closed == 1
    assert await stage.closed() == set()
    steps = await stage.steps()
    assert {step.stage for step in steps.values()} == {Stage.DONE}
    assert sorted(step.wave or 0 for step in steps.values()) == [0, 1, 2]
    assert all(len(keys) == 1 for keys in stage.hooks.keys().values())


async def test_waves_are_as_large_as_is_allowed(stage: Rebooting) -> None:
    await stage.roll(most_closed=2)
    assert (await stage.run()).status is S.DONE
    assert stage.most_closed == 2
    assert max(step.wave or 0 for step in (await stage.steps()).values()) == 1


async def test_done_hosts_take_vms_first(stage: Rebooting) -> None:
    await stage.roll()
    await stage.run()
    moves = Counter(name for name, _, _ in stage.moved)
    assert sum(moves.values()) <= 4


async def test_a_host_whose_agent_restarts_is_back(stage: Rebooting) -> None:
    await stage.roll("a", between=RESTART)
    await stage.until("a", Stage.BETWEEN)
    for _ in range(3):
        await stage.tick()
    assert (await stage.operation()).standing.hosts == {"a": "the agent of a has not restarted yet"}
    stage.reboot("a")
    await stage.tick()
    assert await stage.stages() == {"a": "between"}
    assert (await stage.run()).status is S.DONE
    assert not stage.hooks.called and await stage.closed() == set()


async def test_by_hand_somebody_says_that_a_host_is_done(stage: Rebooting) -> None:
    await stage.roll("a", between=BY_HAND)
    with pytest.raises(Conflict, match="a cannot be done: its turn has not come"):
        await done(stage, "a")
    await stage.tick()
    with pytest.raises(Conflict, match="it is not empty yet"):
        await done(stage, "a")
    await stage.until("a", Stage.BETWEEN)
    stage.clock.ms += 86_400_000
    await stage.tick()
    operation = await stage.operation()
    assert operation.status is S.RUNNING
    assert operation.standing.waits_for == "nobody has said yet that a is done"
    await done(stage, "a", "token:night")
    await done(stage, "a")
    assert (await stage.run()).status is S.DONE
    assert (await stage.steps())["a"].done_by == "token:night"
    await done(stage, "a")
    for host in "bz":
        with pytest.raises(NotFound, match=f"no rolling operation on {host}"):
            await done(stage, host)


async def test_a_host_is_back_once_its_agent_has_the_version(stage: Rebooting) -> None:
    await stage.roll("a", between=Between(agent_version="2.0"))
    await stage.until("a", Stage.BETWEEN)
    stage.reboot("a")
    for _ in range(6):
        await stage.tick()
    why = "the agent of a has version 1.0, and 2.0 is wanted"
    assert (await stage.operation()).standing.hosts == {"a": why}
    stage.bus.agents["a"].version = "2.0"
    assert (await stage.run()).status is S.DONE


async def test_the_command_of_the_settings_is_run_where_nothing_else_is_asked_for(stage: Rebooting) -> None:
    stage.hooks.command = True
    assert (await stage.roll("a", between=Between())).between.command
    assert (await stage.run()).status is S.DONE
    assert [one.host for one in stage.hooks.called] == ["a"] and stage.reboots == Counter("a")


async def test_a_request_that_is_not_accepted_is_made_again_with_the_same_key(stage: Rebooting) -> None:
    stage.hooks.ignores.add("a")
    stage.hooks.faults = [Unreachable("jobs.example is away"), Permanent("it answers with status 500")]
    await stage.roll("a")
    await stage.until("a", Stage.BETWEEN)
    await stage.tick()
    why = "the webhook for a has not accepted yet: jobs.example is away"
    assert (await stage.operation()).standing.hosts == {"a": why}
    for _ in range(15):
        await stage.tick()
    assert len(stage.hooks.called) == 3 and len(stage.hooks.keys()["a"]) == 1
    assert (await stage.steps())["a"].accepted_at
    stage.reboot("a")
    assert (await stage.run()).status is S.DONE


async def test_a_webhook_that_is_not_allowed_is_refused_before_anything_begins(stage: Rebooting) -> None:
    with pytest.raises(Refused, match="is not called: it is not on the list") as raised:
        await stage.roll(between=Between(webhook="https://10.0.0.1/"))
    assert [one.code for one in raised.value.refusals] == ["webhook-not-allowed"]


async def test_a_preview_has_the_waves_and_changes_nothing(stage: Rebooting) -> None:
    await stage.refresh()
    request = OperationRequest(kind=OperationKind.ROLLING, hosts=("a", "b", "c"), most_closed=2)
    found = await stage.controller.operate.preview(request)
    assert [len(wave.hosts) for wave in found.plan.waves] == [2, 1]
    assert found.promised_s >= found.expected_s > 600
    assert await stage.closed() == set() and not await stage.controller.fleet.unfinished_operations()


# ------------------------------------------------------------ what goes wrong


async def test_a_host_that_is_not_back_in_time_stops_the_run_and_not_the_fleet(stage: Rebooting) -> None:
    stage.hooks.ignores.add("a")
    await stage.roll("a", "b", between=Between(webhook=HOOK, back_within_s=60), most_closed=2)
    for _ in range(40):
        await stage.tick()
        stage.complete_all()
    operation = await stage.operation()
    assert operation.status is S.PAUSED and operation.changed_by == ""
    assert operation.paused_because == "not back within 1 min 0 s: the agent of a has not restarted yet"
    assert operation.standing.waits_for == operation.paused_because
    assert await stage.stages() == {"a": "between", "b": "done"} and await stage.closed() == {"a"}
    await stage.order(Order.RESUME)
    await stage.tick()
    operation = await stage.operation()
    assert (operation.status, operation.paused_because) == (S.RUNNING, "")
    stage.reboot("a")
    assert (await stage.run()).status is S.DONE
    assert len(stage.hooks.called) == 2


async def test_one_that_comes_back_late_is_opened_though_the_run_is_stopped(stage: Rebooting) -> None:
    stage.hooks.ignores.add("a")
    await stage.roll("a", between=Between(webhook=HOOK, back_within_s=60))
    for _ in range(50):
        await stage.tick()
        stage.complete_all()
    assert (await stage.operation()).status is S.PAUSED
    stage.reboot("a")
    await stage.until("a", Stage.DONE)
    assert await stage.closed() == set() and (await stage.operation()).status is S.PAUSED
    await stage.order(Order.RESUME)
    assert (await stage.run()).status is S.DONE


async def test_a_host_with_a_vm_that_cannot_move_is_skipped_and_the_others_are_done(stage: Rebooting) -> None:
    stage.set_state("x2", GuestState.PAUSED)
    await stage.roll()
    ended = await stage.run()
    assert ended.status is S.INCOMPLETE and await stage.closed() == set()
    assert await stage.stages() == {"a": "skipped", "b": "done", "c": "done"}
    assert (await stage.steps())["a"].reason == "x2 cannot be migrated: it is paused"
    stage.set_state("x2", GuestState.RUNNING)
    await stage.order(Order.RESUME)
    assert (await stage.run()).status is S.DONE
    assert stage.reboots == Counter("abc")


async def test_a_wave_is_planned_with_what_its_hosts_list_now(stage: Rebooting) -> None:
    await stage.roll("a")
    stage.set_state("x2", GuestState.PAUSED)
    await stage.controller.operations.look()
    assert await stage.closed() == set()
    assert (await stage.operation()).standing.hosts["a"].startswith("its hosts list other VMs than before")
    assert (await stage.run()).status is S.INCOMPLETE
    assert await stage.stages() == {"a": "skipped"} and not stage.moved


async def test_a_host_that_does_not_list_its_vms_is_skipped(stage: Rebooting) -> None:
    await stage.roll("b")
    for _ in range(30):
        stage.bus.faults["list_vms"] = [Undelivered("it hangs")] * 9
        await stage.controller.operations.look()
        stage.clock.ms += 1000
        await stage.bus.beat(stage.controller)
    stage.bus.faults.clear()
    assert (await stage.steps())["b"].stage is Stage.WAITING
    assert (await stage.operation()).standing.waits_for == "b has not listed its VMs: it hangs"
    stage.clock.ms += 3000
    stage.bus.faults["list_vms"] = [Undelivered("it hangs")] * 9
    await stage.bus.beat(stage.controller)
    await stage.controller.operations.look()
    stage.bus.faults.clear()
    assert (await stage.steps())["b"].reason == "b has not listed its VMs: it hangs"
    assert (await stage.run()).status is S.INCOMPLETE and await stage.closed() == set()


async def test_a_host_that_cannot_be_emptied_after_all_is_opened_again(stage: Rebooting) -> None:
    def but_x1() -> None:
        for migration in stage.open():
            stage.fail(migration) if migration.vm_name == "x1" else stage.complete(migration)

    await stage.roll("a")
    ended = await stage.run(but_x1)
    step = (await stage.steps())["a"]
    assert (ended.status, step.stage) == (S.INCOMPLETE, Stage.SKIPPED)
    assert "the link broke" in step.reason and await stage.closed() == set()
    assert not stage.reboots


async def test_a_host_that_is_declared_dead_is_not_waited_for(stage: Rebooting) -> None:
    stage.hooks.ignores.add("b")
    await stage.roll("b", "c")
    await stage.until("b", Stage.BETWEEN)
    stage.bus.agents["b"].listening = False
    stage.clock.ms += 30_000
    await stage.refresh()
    await stage.controller.deaths.declare("b", fenced=True)
    assert (await stage.run()).status is S.INCOMPLETE
    assert (await stage.steps())["b"].reason == "b was declared dead"
    assert (await stage.stages())["c"] == "done"


async def test_a_vm_that_is_started_on_an_empty_host_is_moved_away_before_the_reboot(stage: Rebooting) -> None:
    await stage.roll("b")
    await stage.tick()
    await stage.order(Order.PAUSE)
    await stage.until("b", Stage.EMPTY)
    stage.bus.agents["b"].add_vm("late", 9)
    await stage.refresh()
    await stage.order(Order.RESUME)
    await stage.tick()
    assert await stage.stages() == {"b": "draining"}
    assert (await stage.run()).status is S.DONE
    assert stage.reboots == Counter("b") and stage.places()["late"] != "b"


async def test_a_host_where_a_vm_was_started_is_not_rebooted(stage: Rebooting) -> None:
    stage.hooks.faults = [Unreachable("jobs.example is away")]
    stage.hooks.ignores.add("b")
    await stage.roll("b")
    await stage.until("b", Stage.BETWEEN)
    stage.bus.agents["b"].add_vm("late", 9)
    stage.hooks.ignores.clear()
    for _ in range(10):
        await stage.tick()
    why = "nothing is asked for b: late has been started there"
    assert (await stage.operation()).standing.hosts == {"b": why} and len(stage.hooks.called) == 1
    stage.bus.agents["b"].vms.clear()
    stage.hooks.called.clear()
    assert (await stage.run()).status is S.DONE


async def test_a_person_keeps_a_host_closed(stage: Rebooting) -> None:
    await stage.refresh()
    await stage.controller.registry.set_maintenance("b", True, "by hand")
    await stage.roll()
    assert (await stage.run()).status is S.DONE
    assert await stage.closed() == {"b"} and stage.reboots["b"] == 1


async def test_a_host_is_opened_by_nobody_while_it_is_worked_on(stage: Rebooting) -> None:
    await stage.roll()
    await stage.tick()
    (closed,) = await stage.closed()
    with pytest.raises(Conflict, match=f"is emptying {closed}"):
        await stage.controller.registry.set_maintenance(closed, False)
    other = next(iter({"a", "b", "c"} - {closed}))
    await stage.controller.registry.set_maintenance(other, True, "by hand")
    await stage.controller.registry.set_maintenance(other, False)


async def test_nothing_is_admitted_to_a_host_that_was_closed_since_it_was_looked_at(stage: Rebooting) -> None:
    await stage.roll("b", between=BY_HAND)
    await stage.until("b", Stage.BETWEEN)
    request = MigrateRequest(vm="x1", destination="b")
    record, _ = await stage.controller.migrate(request.model_copy(update={"destination": "c"}))
    late = record.migration.model_copy(update={"id": OPERATION, "destination": "b"})
    stage.complete_all()
    await stage.refresh()
    with pytest.raises(Conflict, match="b takes no VMs: operation bbbbbbbb"):
        await stage.controller.fleet.admit(late, "")


# ------------------------------------------------------------ what operators ask


async def test_while_it_is_paused_nothing_begins(stage: Rebooting) -> None:
    await stage.roll()
    await stage.tick()
    await stage.order(Order.PAUSE)
    for _ in range(10):
        await stage.tick()
        stage.complete_all()
    assert not stage.hooks.called and len(await stage.closed()) == 1
    await stage.order(Order.RESUME)
    assert (await stage.run()).status is S.DONE


async def test_a_stopped_run_leaves_its_hosts_closed_and_goes_on_later(stage: Rebooting) -> None:
    await stage.roll("a")
    await stage.tick()
    await stage.tick()
    await stage.order(Order.STOP)
    assert (await stage.run()).status is S.STOPPED
    assert await stage.closed() == {"a"}
    await stage.controller.registry.set_maintenance("a", False)
    await stage.order(Order.RESUME)
    assert await stage.closed() == {"a"}
    assert (await stage.run()).status is S.DONE
    assert stage.reboots == Counter("a") and await stage.closed() == set()


async def test_a_host_that_took_vms_again_meanwhile_is_emptied_again(stage: Rebooting) -> None:
    stage.hooks.ignores.add("a")
    await stage.roll("a")
    await stage.until("a", Stage.BETWEEN)
    await stage.order(Order.STOP)
    assert (await stage.run()).status is S.STOPPED
    await stage.controller.registry.set_maintenance("a", False)
    await stage.controller.migrate(MigrateRequest(vm="x1", destination="a"))
    stage.complete_all()
    await stage.refresh()
    stage.hooks.ignores.clear()
    await stage.order(Order.RESUME)
    assert await stage.stages() == {"a": "draining"}
    assert (await stage.run()).status is S.DONE
    assert stage.reboots == Counter("a") and len(stage.hooks.keys()["a"]) == 2


async def test_an_undo_brings_back_what_was_moved_and_opens_what_was_closed(stage: Rebooting) -> None:
    await stage.roll()
    assert (await stage.run()).status is S.DONE
    await stage.order(Order.UNDO)
    assert (await stage.run()).status is S.UNDONE
    assert set(stage.places().values()) == {"a"} and await stage.closed() == set()


async def test_an_undo_waits_for_a_host_that_may_be_rebooted_any_moment(stage: Rebooting) -> None:
    stage.hooks.ignores.add("a")
    await stage.roll("a")
    await stage.until("a", Stage.BETWEEN)
    await stage.tick()
    await stage.order(Order.UNDO)
    for _ in range(30):
        await stage.tick()
        stage.complete_all()
    operation = await stage.operation()
    assert operation.status is S.UNDOING and await stage.closed() == {"a"}
    assert operation.standing.waits_for == "the agent of a has not restarted yet"
    stage.reboot("a")
    assert (await stage.run()).status is S.UNDONE
    assert set(stage.places().values()) == {"a"} and await stage.closed() == set()


async def test_an_undo_opens_what_was_not_rebooted_at_once(stage: Rebooting) -> None:
    await stage.roll()
    await stage.tick()
    assert len(await stage.closed()) == 1
    await stage.order(Order.UNDO)
    assert await stage.closed() == set()
    ended = await stage.run()
    assert ended.status is S.UNDONE and not stage.reboots
    assert set(await stage.stages()) == {"a", "b", "c"}
    assert {step.reason for step in (await stage.steps()).values()} == {"the operation was undone before its turn"}
