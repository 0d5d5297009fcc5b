"""An abort while the destination prepares, or waits for its network, is not put off until it is ready."""

from __future__ import annotations

import pytest

from sterna.domain.status import Status
from tests.saga.fleet import SimFleet
from tests.saga.playing import run


async def test_an_abort_does_not_wait_for_a_destination_that_takes_its_time() -> None:
    fleet = SimFleet()
    destination = fleet.agents["host2"]
    strike = destination._strike

    async def slow(name: str, row: str, moment: str) -> None:
        if (name, moment) == ("connect-volumes", "before"):
            await fleet.clock.sleep(400)
        await strike(name, row, moment)

    destination._strike = slow  # type: ignore[method-assign]

    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm()
        before = fleet.snapshots()
        await fleet.start(vm)
        await fleet.clock.sleep(5)
        await fleet.abort()
        await fleet.clock.sleep(70)  # R3 asks for a minute, then leaves it to R4's cast
        assert fleet.agents["host1"].journal.holder(vm) is None  # R8: it may migrate again
        assert await fleet.ended() is Status.CANCELLED
        assert fleet.snapshots() == before

    await run(scenario, fleet)


@pytest.mark.parametrize("after_s", [1, 100])
async def test_nor_for_its_network(after_s: int) -> None:
    fleet = SimFleet()
    fleet.agents["host2"].settings["vif_plugging_timeout_s"] = 300.0

    async def scenario(fleet: SimFleet) -> None:
        await fleet.start(fleet.vm(vlan=None))  # no agent gives its ports a tag
        await fleet.clock.sleep(after_s)
        await fleet.abort()
        assert await fleet.ended(limit_s=20) is Status.CANCELLED

    await run(scenario, fleet)
