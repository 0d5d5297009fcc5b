"""What an operation makes of refusals, failures and hosts that are gone."""

from __future__ import annotations

import pytest

from sterna.domain.errors import BadRequest
from sterna.domain.fleet.attempts import Attempt
from sterna.domain.fleet.course import OperationStatus
from sterna.domain.model import Refusal
from sterna.domain.refusals import Code
from sterna.ports.operations import OperationRecord
from tests.unit.controller.operating import OPERATION, Stage

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
