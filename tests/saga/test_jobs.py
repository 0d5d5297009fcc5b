"""A job of libvirt that begins while a migration prepares: nothing is copied, and everything is undone."""

from __future__ import annotations

import pytest

from sterna.domain.jobs import disk_job_refusal, job_refusal
from sterna.domain.model import Refusal
from sterna.domain.status import Status
from tests.saga.fleet import SimFleet
from tests.saga.playing import run, when


@pytest.fixture
def fleet() -> SimFleet:
    return SimFleet()


def begin(fleet: SimFleet, refusal: Refusal) -> None:
    (domain,) = fleet.world.hosts["host1"].domains.values()
    domain.against = (refusal,)


@pytest.mark.parametrize("step", ["snapshot-volumes", "pre-live-migration", "take-ownership", "copy"])
@pytest.mark.parametrize(
    "refusal", [job_refusal("tern", "backup"), disk_job_refusal("tern", "vda", "pull", ready=False)]
)
async def test_a_job_that_begins_meanwhile_is_named_and_nothing_is_copied(
    fleet: SimFleet, step: str, refusal: Refusal
) -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm()
        await fleet.start(vm)
        assert await fleet.ended(limit_s=60) is Status.FAILED
        history = fleet.agents["host1"].history(fleet.migration)
        assert "copy-started" not in history.notes
        assert history.turned_back is not None
        (said,) = history.turned_back["error"]["refusals"]
        assert (said["code"], said["fix"]) == (refusal.code, refusal.fix)
        (domain,) = fleet.world.hosts["host1"].domains.values()
        domain.against = ()
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED

    when(fleet.agents["host1"], step, lambda: begin(fleet, refusal))
    await run(scenario, fleet)
