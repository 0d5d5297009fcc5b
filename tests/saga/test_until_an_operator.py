"""Steps after the switch-over, and of a rollback, are retried until their cause is mended: nothing else ends them.

The journal of their host says which step it is, and why. Whoever mends the cause need not tell Sterna.
"""

from __future__ import annotations

import pytest

from sterna.domain.journal import Kind
from sterna.domain.status import Status
from sterna.migration.flow import DESTINATION, DESTINATION_POST, SOURCE
from tests.saga.fleet import SimAgent, SimFleet
from tests.saga.playing import run

LONG_S = 240
"""Longer than any step's patience before the switch-over, but P12's."""
FAILING_COPY = ("copy", "before", "permanent")
ONWARD = [
    *(("host1", step.name) for step in SOURCE.after_pivot),
    *(("host2", step.name) for step in DESTINATION_POST.after_pivot),
]
BACKWARD = [
    *(("host1", step.name) for step in SOURCE.compensation([s.name for s in SOURCE.until_pivot])),
    *(("host2", step.name) for step in DESTINATION.compensation([s.name for s in DESTINATION.until_pivot])),
]


async def is_retried(fleet: SimFleet, agent: SimAgent, step: str) -> None:
    """As often as ever, with the reason in its journal; then its cause is gone."""
    await fleet.clock.sleep(LONG_S)
    tries = len(agent.applied)
    assert not agent.history(fleet.migration).closed
    failed = [e for e in agent.journal.entries(fleet.migration) if e.kind is Kind.FAILED and e.name == step]
    assert 1 <= len(failed) <= 2, "by R3 and by R7 where it is in both, and not at every try"
    assert f"forced at {step}" in failed[-1].model_dump_json()
    await fleet.clock.sleep(60)
    assert len(agent.applied) >= tries + 5
    agent.rules.clear()


@pytest.mark.parametrize(("host", "step"), ONWARD)
async def test_a_step_after_the_switch_over(host: str, step: str) -> None:
    async def scenario(fleet: SimFleet) -> None:
        agent = fleet.agents[host]
        agent.rules.append((step, "before", "permanent"))
        await fleet.start(vm := fleet.vm())
        await is_retried(fleet, agent, step)
        assert await fleet.ended() is Status.COMPLETED
        assert fleet.world.running(vm) == ["host2"]

    await run(scenario)


@pytest.mark.parametrize(("host", "step"), BACKWARD)
async def test_a_step_of_a_rollback(host: str, step: str) -> None:
    async def scenario(fleet: SimFleet) -> None:
        agent = fleet.agents[host]
        fleet.agents["host1"].rules.append(FAILING_COPY)
        agent.rules.append((step, "before", "permanent"))
        await fleet.start(vm := fleet.vm())
        await is_retried(fleet, agent, step)
        fleet.agents["host1"].rules.clear()
        assert await fleet.ended() is Status.FAILED
        assert fleet.world.running(vm) == ["host1"]

    await run(scenario)
