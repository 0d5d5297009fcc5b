"""What a controller makes of rules about hosts that are not to be down together, in operations that go on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sterna.adapters.sql.fleet import SqlFleet
from sterna.domain.errors import Refused
from sterna.domain.fleet.course import OperationStatus, Order
from sterna.domain.fleet.rules import Rule, RuleKind
from sterna.domain.fleet.stages import Between, Stage
from tests.unit.controller.operating import OPERATION
from tests.unit.controller.rebooting import Rebooting

S = OperationStatus
BY_HAND = Between(by_hand=True)
QUORUM = Rule(name="quorum", kind=RuleKind.NOT_DOWN_TOGETHER, hosts=("b", "c"))


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Rebooting]:
    living = Rebooting.of(SqlFleet.open(f"sqlite:///{tmp_path}/controller.db"))
    assert isinstance(living, Rebooting)
    await living.controller.fleet.put_rule(QUORUM, replace=False)
    await living.refresh()
    yield living
    await living.controller.stop()


async def go_down(stage: Rebooting, host: str) -> None:
    stage.bus.agents[host].listening = False
    stage.clock.ms += 30_000
    await stage.refresh()


async def test_a_run_takes_no_host_while_its_partner_is_in_maintenance(stage: Rebooting) -> None:
    await stage.controller.registry.set_maintenance("c", True, "by hand")
    await stage.roll("b")
    assert (await stage.run()).status is S.INCOMPLETE
    why = "a rule keeps b and c from being down together, and c is closed: by hand"
    assert (await stage.steps())["b"].reason == why and not stage.reboots


async def test_a_run_takes_no_host_while_its_partner_is_down_or_dead(stage: Rebooting) -> None:
    await go_down(stage, "c")
    await stage.roll("b", "c")
    await stage.controller.deaths.declare("c", fenced=True)
    assert (await stage.run()).status is S.INCOMPLETE
    assert await stage.stages() == {"b": "skipped", "c": "skipped"} and not stage.reboots


async def test_a_host_that_is_empty_is_not_rebooted_while_its_partner_is_down(stage: Rebooting) -> None:
    """It went down when the other one had been closed already."""
    await stage.roll("b")
    await stage.tick()
    await stage.order(Order.PAUSE)
    await stage.until("b", Stage.EMPTY)
    await go_down(stage, "c")
    await stage.order(Order.RESUME)
    for _ in range(5):
        await stage.tick()
    assert await stage.stages() == {"b": "empty"} and not stage.hooks.called
    why = "the rule quorum keeps b, c from being down together; c cannot be used"
    assert (await stage.operation()).standing.hosts == {"b": why}
    stage.bus.agents["c"].listening = True
    assert (await stage.run()).status is S.DONE


async def test_a_host_is_not_closed_where_another_was_since_the_wave_was_planned(stage: Rebooting) -> None:
    """Between the plan and its transaction a person closes the other one."""
    advance = stage.controller.fleet.advance_hosts

    async def late(*more: object, **others: object) -> bool:
        await stage.controller.registry.set_maintenance("c", True, "by hand")
        return await advance(*more, **others)  # type: ignore[arg-type]

    stage.controller.fleet.advance_hosts = late  # type: ignore[method-assign]
    await stage.roll("b")
    await stage.tick()
    assert await stage.stages() == {"b": "waiting"} and await stage.closed() == {"c"}


async def test_a_drain_that_goes_on_closes_no_host_whose_partner_is_away(stage: Rebooting) -> None:
    await stage.begin("b")
    await stage.order(Order.STOP)
    assert (await stage.run()).status is S.STOPPED
    await stage.controller.registry.set_maintenance("b", False)
    await stage.controller.registry.set_maintenance("c", True, "by hand")
    with pytest.raises(Refused, match="from being down together") as raised:
        await stage.order(Order.RESUME)
    assert [one.code for one in raised.value.refusals] == ["hosts-down-together"]
    assert await stage.closed() == {"c"} and (await stage.operation()).status is S.STOPPED
    await stage.controller.registry.set_maintenance("c", False)
    await stage.order(Order.RESUME)
    assert await stage.closed() == {"b"}


async def test_a_drain_goes_on_with_hosts_that_have_stayed_closed(stage: Rebooting) -> None:
    await stage.begin("b")
    await stage.order(Order.PAUSE)
    await stage.controller.registry.set_maintenance("c", True, "by hand")
    await stage.order(Order.RESUME)
    assert await stage.closed() == {"b", "c"}


async def test_one_that_ignores_the_rules_goes_on_ignoring_them(stage: Rebooting) -> None:
    await stage.controller.registry.set_maintenance("c", True, "by hand")
    await stage.begin("b", ignore_host_rules=True)
    await stage.order(Order.STOP)
    assert (await stage.run()).status is S.STOPPED
    await stage.controller.registry.set_maintenance("b", False)
    await stage.order(Order.RESUME)
    assert await stage.closed() == {"b", "c"}


async def test_a_run_may_ignore_the_rules_too(stage: Rebooting) -> None:
    await stage.controller.registry.set_maintenance("c", True, "by hand")
    await stage.roll("b", ignore_host_rules=True)
    assert (await stage.run()).status is S.DONE


async def test_a_host_that_was_opened_while_a_run_was_stopped_waits_for_its_turn_again(stage: Rebooting) -> None:
    await stage.roll("b", between=BY_HAND)
    await stage.until("b", Stage.BETWEEN)
    await stage.order(Order.STOP)
    assert (await stage.run()).status is S.STOPPED
    await stage.controller.registry.set_maintenance("b", False)
    await stage.controller.registry.set_maintenance("c", True, "by hand")
    await stage.order(Order.RESUME)
    await stage.tick()
    assert await stage.stages() == {"b": "waiting"} and await stage.closed() == {"c"}
    await stage.controller.registry.set_maintenance("c", False)
    await stage.until("b", Stage.BETWEEN)
    await stage.controller.operate.host_done(OPERATION, "b", "token:ops")
    assert (await stage.run()).status is S.DONE


async def test_partners_that_were_closed_together_before_the_rule_are_rebooted_one_after_the_other(
    stage: Rebooting,
) -> None:
    await stage.controller.fleet.remove_rule("quorum")
    stage.hooks.ignores.update("bc")
    await stage.roll("b", "c", most_closed=2)
    await stage.tick()
    await stage.order(Order.PAUSE)
    await stage.until("b", Stage.EMPTY)
    assert (await stage.steps())["c"].stage is Stage.EMPTY
    await stage.controller.fleet.put_rule(QUORUM, replace=False)
    await stage.order(Order.RESUME)
    for _ in range(5):
        await stage.tick()
    assert await stage.stages() == {"b": "between", "c": "empty"}
    for host in "bc":
        await stage.until(host, Stage.BETWEEN)
        stage.reboot(host)
    assert (await stage.run()).status is S.DONE
