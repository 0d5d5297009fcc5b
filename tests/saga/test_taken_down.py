"""libvirt takes a guest down and does not say how it ended: nothing is decided, and the reason says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from sterna.domain.model import GuestState, Observation
from sterna.domain.status import Status
from sterna.sim.libvirt.hypervisor import SimHypervisor
from tests.saga.fleet import SimFleet
from tests.saga.playing import PERMITTED, run, status, when

SAID = "libvirt takes the guest down, and does not say yet how it ended"
MINUTES_S = 1_800


@contextmanager
def taken_down(*hosts: str) -> Iterator[None]:
    """The libvirt of these hosts says so of every guest, for as long as this lasts."""
    real = SimHypervisor.observe

    async def observe(self: SimHypervisor, uuid: str) -> Observation:
        if self._host.name in hosts:
            return Observation(state=GuestState.UNKNOWN, reason=SAID)
        return await real(self, uuid)

    with patch.object(SimHypervisor, "observe", observe):
        yield


def said(fleet: SimFleet, host: str = "host1") -> bool:
    """Does its journal have it?"""
    return any(SAID in entry.model_dump_json() for entry in fleet.agents[host].journal.entries(fleet.migration))


async def test_a_copy_that_has_failed_waits_and_says_for_what() -> None:
    async def scenario(fleet: SimFleet) -> None:
        await fleet.start(vm := fleet.vm(), asked=PERMITTED)
        await status(fleet, Status.MIGRATING)
        await fleet.clock.sleep(5)
        with taken_down("host1"):
            fleet.world.cut("host1", "host2")
            await fleet.clock.sleep(MINUTES_S)
            assert said(fleet) and not fleet.agents["host1"].history(fleet.migration).closed
        fleet.world.mend("host1", "host2")
        assert await fleet.ended() is Status.FAILED
        assert fleet.world.running(vm) == ["host1"]

    await run(scenario)


async def test_a_rollback_waits_and_says_for_what() -> None:
    async def scenario(fleet: SimFleet) -> None:
        down, agent = taken_down("host1"), fleet.agents["host1"]
        when(agent, "set-migrating", lambda: (down.__enter__(), fleet.abort())[1])
        await fleet.start(vm := fleet.vm())
        await fleet.clock.sleep(MINUTES_S)
        assert said(fleet) and not agent.history(fleet.migration).closed
        down.__exit__(None, None, None)
        assert await fleet.ended() is Status.CANCELLED
        assert fleet.world.running(vm) == ["host1"]

    await run(scenario)


async def test_the_end_on_the_destination_waits_and_says_for_what() -> None:
    """F8 reads the guest's state there."""

    async def scenario(fleet: SimFleet) -> None:
        down, agent = taken_down("host2"), fleet.agents["host2"]
        when(agent, "update-vm", down.__enter__)
        await fleet.start(vm := fleet.vm())
        await fleet.clock.sleep(MINUTES_S)
        assert said(fleet, "host2") and not agent.history(fleet.migration).closed
        down.__exit__(None, None, None)
        assert await fleet.ended() is Status.COMPLETED
        assert fleet.world.running(vm) == ["host2"]

    await run(scenario)
