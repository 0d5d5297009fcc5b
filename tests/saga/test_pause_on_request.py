"""A guest that somebody lets stand still until the rest of its memory is copied, on simulated hosts."""

from __future__ import annotations

import pytest

from sterna.domain.errors import Conflict, NotFound, Temporary
from sterna.domain.model import Data
from sterna.domain.objective import LONGEST_DOWNTIME_MS, Asked
from sterna.domain.status import Status
from sterna.sim.libvirt.hypervisor import SimHypervisor
from sterna.sim.world.things import MIB
from tests.saga.playing import SLOW, begin, raising, run

from .fleet import SimFleet

HOPELESS = Asked(policy="gentle", bandwidth_bytes_s=SLOW)
"""Of a guest that writes faster than that: nothing may be done to it, and the copy would be given up."""


def busy(fleet: SimFleet) -> str:
    return fleet.vm(memory_bytes=512 * MIB, dirty_bytes_per_s=80 * MIB)


async def pause_guest(fleet: SimFleet) -> Data:
    return await fleet.client.call("host1", "pause_guest", {"id": fleet.migration})


async def test_without_it_the_copy_is_given_up() -> None:
    async def scenario(fleet: SimFleet) -> None:
        await begin(fleet, busy(fleet), HOPELESS)
        assert await fleet.ended(limit_s=900) is Status.FAILED

    await run(scenario)


@pytest.mark.parametrize("times", [1, 2])
async def test_a_guest_that_pausing_arrives(times: int) -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = busy(fleet)
        await begin(fleet, vm, HOPELESS)
        for _ in range(times):
            assert await pause_guest(fleet) == {"accepted": True}
        assert await fleet.ended(limit_s=900) is Status.COMPLETED
        assert fleet.world.running(vm) == ["host2"]
        names = [e.name for e in fleet.agents["host1"].journal.entries(fleet.migration)]
        assert names.count("pause-asked") == 1

    await run(scenario)


async def test_what_libvirt_refuses_is_tried_again_with_the_next_sample() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = busy(fleet)
        await begin(fleet, vm, HOPELESS)
        with raising(SimHypervisor, "set_max_downtime", Temporary("busy"), Temporary("busy")) as left:
            await pause_guest(fleet)
            assert await fleet.ended(limit_s=900) is Status.COMPLETED
            assert left == []

    await run(scenario)


async def test_an_agent_that_was_restarted_goes_on_with_it() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = busy(fleet)
        await begin(fleet, vm, HOPELESS)
        await pause_guest(fleet)
        await fleet.agents["host1"].kill()
        await fleet.agents["host1"].start()
        assert await fleet.ended(limit_s=900) is Status.COMPLETED
        assert fleet.world.running(vm) == ["host2"]

    await run(scenario)


async def test_it_is_for_a_copy_alone() -> None:
    async def scenario(fleet: SimFleet) -> None:
        fleet.migration = "none"
        with pytest.raises(NotFound):
            await pause_guest(fleet)
        await begin(fleet, busy(fleet), HOPELESS)
        await fleet.abort()
        with pytest.raises(Conflict, match="rolled back"):
            await pause_guest(fleet)
        assert await fleet.ended() is Status.CANCELLED
        assert LONGEST_DOWNTIME_MS not in {d.max_downtime_ms for d in fleet.world.hosts["host1"].domains.values()}

    await run(scenario)
