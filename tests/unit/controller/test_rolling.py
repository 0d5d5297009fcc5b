"""What a controller makes of a rolling operation, on agents without hosts."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sterna.adapters.sql.fleet import SqlFleet
from sterna.controller.intents.operate import OperationRequest
from sterna.controller.intents.request import MigrateRequest
from sterna.domain.errors import Conflict, NotFound, Permanent, Refused, Unreachable
from sterna.domain.fleet.course import OperationKind, OperationStatus, Order
from sterna.domain.fleet.stages import Between, Stage
from tests.unit.controller.operating import OPERATION
from tests.unit.controller.rebooting import Rebooting

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
    assert operation.standing.waits_for == "nobody has reported yet that a is done"
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
    why = "the agent of a has version 1.0, but needs 2.0"
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


OTHER = "bbbbbbbb-0000-4000-8000-000000000002"


async def test_a_host_that_a_drain_keeps_closed_stays_closed(stage: Rebooting) -> None:
    await stage.begin("a", id=OTHER)
    assert (await stage.run(id=OTHER)).status is S.DONE
    before = await stage.controller.fleet.host("a")
    await stage.roll("a", "b")
    assert (await stage.run()).status is S.DONE and stage.reboots == Counter("ab")
    assert await stage.closed() == {"a"}
    after = await stage.controller.fleet.host("a")
    assert (after.closed_by, after.maintenance_reason) == (OTHER, before.maintenance_reason)
    await stage.controller.operate.order(OTHER, Order.UNDO, "token:ops")
    assert (await stage.run(id=OTHER)).status is S.UNDONE and await stage.closed() == set()


async def test_a_host_that_a_run_left_closed_is_opened_by_the_next_one(stage: Rebooting) -> None:
    await stage.roll("a", id=OTHER, between=BY_HAND)
    await stage.tick()
    await stage.controller.operate.order(OTHER, Order.STOP, "token:ops")
    assert (await stage.run(id=OTHER)).status is S.STOPPED and await stage.closed() == {"a"}
    await stage.roll("a")
    assert (await stage.run()).status is S.DONE and await stage.closed() == set()


async def test_a_drain_takes_over_hosts_that_another_one_keeps_closed(stage: Rebooting) -> None:
    await stage.begin("a", id=OTHER)
    assert (await stage.run(id=OTHER)).status is S.DONE
    assert (await stage.begin("a")).closed == ("a",)


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
    await stage.tick()
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
    assert await stage.stages() == {"a": "waiting"}
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
    assert operation.standing.waits_for.startswith("the agent of a has not restarted yet; where nothing will")
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
