"""A host dies for good in the middle of post-copy: half of the guest's memory is lost with either (ADR 7, ADR 8).

Nothing is started; the definition and the disks of the side where the guest last ran are kept.
"""

from __future__ import annotations

from sterna.domain.model import GuestState
from sterna.domain.status import Status
from sterna.sim.libvirt import guests
from tests.narrowing import not_none
from tests.saga.fleet import SimFleet
from tests.saga.losses import closed, declare, domain, last_status, power_cut
from tests.saga.playing import in_postcopy, run


async def test_the_destination_dies_with_the_guest() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = await in_postcopy(fleet, autostart=True)
        await power_cut(fleet, "host2")
        await fleet.clock.sleep(60)
        assert not fleet.agents["host1"].history(fleet.migration).closed
        (planned,) = await declare(fleet, "host2", "host1")
        assert planned["will"].startswith("end it as completed, starting nothing")
        await closed(fleet, "host1")
        status, reason = last_status(fleet.agents["host1"], fleet.migration)
        assert status == Status.COMPLETED and "when that host died" in reason
        kept = not_none(domain(fleet, "host1", vm))
        assert kept.state is GuestState.SHUTOFF and not kept.autostart
        guests.power_on(fleet.world, "host2")
        await fleet.agents["host2"].start()
        assert await fleet.ended() is Status.COMPLETED
        assert fleet.world.running(vm) == []

    await run(scenario)


async def test_the_source_dies_with_half_of_the_memory() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = await in_postcopy(fleet)
        await power_cut(fleet, "host1")
        await fleet.clock.sleep(60)
        (planned,) = await declare(fleet, "host1", "host2")
        await closed(fleet, "host2")
        status, reason = last_status(fleet.agents["host2"], fleet.migration)
        assert status == Status.COMPLETED, (planned, reason)
        assert "host1 was declared dead" in reason
        assert domain(fleet, "host2", vm) is not None
        guests.power_on(fleet.world, "host1")
        await fleet.agents["host1"].start()
        assert await fleet.ended() is Status.COMPLETED
        assert domain(fleet, "host1", vm) is None
        assert len(fleet.world.running(vm)) <= 1

    await run(scenario)
