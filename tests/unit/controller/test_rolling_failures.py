"""What a controller makes of a rolling operation in which something goes wrong, on agents without hosts."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import pytest

from sterna.adapters.sql.fleet import SqlFleet
from sterna.controller.intents.request import MigrateRequest
from sterna.controller.operations.observing import Observer
from sterna.domain.errors import Conflict, Undelivered, Unreachable
from sterna.domain.fleet.course import OperationStatus, Order
from sterna.domain.fleet.stages import Between, Stage
from sterna.domain.model import GuestState
from tests.unit.controller.operating import OPERATION
from tests.unit.controller.rebooting import HOOK, Rebooting

S = OperationStatus
BY_HAND = Between(by_hand=True)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Rebooting]:
    living = Rebooting.of(SqlFleet.open(f"sqlite:///{tmp_path}/controller.db"))
    assert isinstance(living, Rebooting)
    yield living
    await living.controller.stop()


async def done(stage: Rebooting, host: str, by: str = "token:ops") -> None:
    await stage.controller.operate.host_done(OPERATION, host, by)


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
    why = "b was declared dead during its maintenance: it stays closed"
    assert (await stage.steps())["b"].reason == why
    assert (await stage.stages())["c"] == "done"


async def test_a_host_that_dies_while_something_is_done_to_it_stays_closed(stage: Rebooting) -> None:
    """Its state is unknown when it answers again."""
    stage.hooks.ignores.add("b")
    await stage.roll("b", "c")
    await stage.until("b", Stage.BETWEEN)
    stage.bus.agents["b"].listening = False
    stage.clock.ms += 30_000
    await stage.refresh()
    await stage.controller.deaths.declare("b", fenced=True)
    assert (await stage.run()).status is S.INCOMPLETE
    assert await stage.closed() == {"b"}
    stage.bus.agents["b"].listening = True
    await stage.order(Order.UNDO)
    assert (await stage.run()).status is S.UNDONE and await stage.closed() == {"b"}
    await stage.controller.registry.set_maintenance("b", False)
    assert await stage.closed() == set()


async def test_a_host_that_dies_while_it_is_emptied_is_opened(stage: Rebooting) -> None:
    """Nothing has been done to it."""
    await stage.roll("a")
    await stage.until("a", Stage.DRAINING)
    stage.bus.agents["a"].listening = False
    stage.clock.ms += 30_000
    await stage.refresh()
    await stage.controller.deaths.declare("a", fenced=True)
    assert (await stage.run()).status is S.INCOMPLETE and await stage.closed() == set()


async def test_one_that_was_left_closed_is_opened_by_a_run_that_succeeds(stage: Rebooting) -> None:
    stage.hooks.ignores.add("b")
    await stage.roll("b")
    await stage.until("b", Stage.BETWEEN)
    stage.bus.agents["b"].listening = False
    stage.clock.ms += 30_000
    await stage.refresh()
    await stage.controller.deaths.declare("b", fenced=True)
    assert (await stage.run()).status is S.INCOMPLETE and await stage.closed() == {"b"}
    stage.bus.agents["b"].listening = True
    stage.hooks.ignores.clear()
    await stage.order(Order.RESUME)
    assert (await stage.run()).status is S.DONE and await stage.closed() == set()


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


async def test_nothing_is_asked_for_a_host_that_is_silent(stage: Rebooting) -> None:
    await stage.roll("b")
    await stage.tick()
    await stage.order(Order.PAUSE)
    await stage.until("b", Stage.EMPTY)
    stage.bus.agents["b"].listening = False
    stage.clock.ms += 10_000
    await stage.order(Order.RESUME)
    for _ in range(5):
        await stage.tick()
    assert await stage.stages() == {"b": "empty"} and not stage.hooks.called
    assert (await stage.operation()).standing.waits_for.startswith("nothing is asked for b, which cannot be used: ")
    stage.bus.agents["b"].listening = True
    assert (await stage.run()).status is S.DONE


async def test_an_agent_that_restarts_while_its_host_is_looked_at_is_not_the_restart_that_is_waited_for(
    stage: Rebooting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its host would be opened, and rebooted then."""
    stage.hooks.ignores.add("b")
    ask = Observer.ask

    async def restarts_meanwhile(self: Observer, hosts: Collection[str]) -> dict[str, str]:
        if (await stage.steps())["b"].stage is Stage.DRAINING:
            stage.bus.agents["b"].boot = "life-of-another-reason"
            await stage.bus.beat(stage.controller)
        return await ask(self, hosts)

    monkeypatch.setattr(Observer, "ask", restarts_meanwhile)
    await stage.roll("b")
    await stage.until("b", Stage.BETWEEN)
    assert (await stage.steps())["b"].boot == "life-of-another-reason"
    for _ in range(5):
        await stage.tick()
    assert await stage.stages() == {"b": "between"} and await stage.closed() == {"b"}
    stage.reboot("b")
    assert (await stage.run()).status is S.DONE


async def test_an_undo_of_what_was_never_asked_for_goes_on_once_somebody_says_so(stage: Rebooting) -> None:
    stage.hooks.faults = [Unreachable("jobs.example is away")] * 9
    stage.hooks.ignores.add("a")
    await stage.roll("a")
    await stage.until("a", Stage.BETWEEN)
    await stage.order(Order.UNDO)
    for _ in range(3):
        await stage.tick()
    assert (await stage.operation()).status is S.UNDOING and await stage.closed() == {"a"}
    await done(stage, "a")
    assert (await stage.run()).status is S.UNDONE
    assert set(stage.places().values()) == {"a"} and await stage.closed() == set()


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
    with pytest.raises(Conflict, match="b is closed: operation bbbbbbbb"):
        await stage.controller.fleet.admit(late, "")
