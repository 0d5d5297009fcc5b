"""libvirt's event does not come: whoever waits for one looks by itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sterna.agent.arrivals import LOOK_AGAIN_S, LOOK_ANYWAY_S
from sterna.domain.copying import CopyPlan, JobSample
from sterna.domain.entries.destination_notes import RanHere
from sterna.domain.errors import SternaError, Unknown, Unreachable
from sterna.domain.model import Vm
from sterna.domain.status import Status
from sterna.migration.source.postcopy import STALLED_S
from sterna.ports.hypervisor import GuestEvent
from sterna.sim.libvirt import guests
from sterna.sim.libvirt.hypervisor import SimHypervisor
from sterna.sim.ports.network import SimNetwork
from sterna.sim.ports.vif import SimVif
from sterna.sim.world.things import Change
from tests.saga.fleet import SimFleet
from tests.saga.losses import KEEP_ALIVE_S, lose_the_answer
from tests.saga.playing import in_postcopy, run, status


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Hosts whose subscriptions open, and tell nothing."""
    hosts: set[str] = set()
    subscribed = SimHypervisor._subscribed

    @asynccontextmanager
    async def silent(self: SimHypervisor, uuid: str) -> AsyncIterator[AsyncIterator[GuestEvent]]:
        async with subscribed(self, uuid) as feed:
            yield never() if self._host.name in hosts else feed

    async def never() -> AsyncIterator[GuestEvent]:
        await asyncio.Event().wait()
        yield GuestEvent(kind="never")

    monkeypatch.setattr(SimHypervisor, "_subscribed", silent)
    return hosts


async def test_without_any_event_a_migration_completes(deaf: set[str]) -> None:
    fleet = SimFleet()
    deaf |= {"host1", "host2"}

    async def scenario() -> None:
        async with fleet:
            vm = fleet.vm()
            await fleet.start(vm)
            assert await fleet.ended() is Status.COMPLETED
            assert fleet.world.running(vm) == ["host2"]
            assert not fleet.world.violations

    await fleet.clock.run(scenario())


async def test_a_guest_that_runs_here_without_an_event_is_noticed_and_announced(
    deaf: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = SimFleet()
    deaf.add("host2")
    announced = []

    async def announce(self: SimVif, nic: object) -> None:
        announced.append(self._host.name)

    monkeypatch.setattr(SimVif, "announce", announce)

    async def scenario() -> None:
        async with fleet:
            vm = fleet.vm()
            await fleet.start(vm)
            while fleet.world.running(vm) != ["host2"]:
                await fleet.clock.sleep(0.001)
            await fleet.agents["host1"].kill()  # nobody asks this host
            announced.clear()
            await fleet.clock.sleep(LOOK_ANYWAY_S + 5)
            assert RanHere.entry in fleet.agents["host2"].history(fleet.migration).notes
            assert announced.count("host2") > 1  # and again, as after an event
            await fleet.agents["host1"].start()
            assert await fleet.ended() is Status.COMPLETED

    await fleet.clock.run(scenario())


async def test_a_guest_that_runs_here_is_noticed_by_an_agent_that_cannot_subscribe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """libvirt's event loop hangs in the destination's agent; libvirt's calls work."""
    fleet = SimFleet()
    announced, subscribed = [], SimHypervisor._subscribed

    @asynccontextmanager
    async def hangs(self: SimHypervisor, uuid: str) -> AsyncIterator[AsyncIterator[GuestEvent]]:
        if self._host.name == "host2":
            raise Unreachable("libvirt's event loop hangs")
        async with subscribed(self, uuid) as feed:
            yield feed

    async def announce(self: SimVif, nic: object) -> None:
        announced.append(self._host.name)

    monkeypatch.setattr(SimHypervisor, "_subscribed", hangs)
    monkeypatch.setattr(SimVif, "announce", announce)

    async def scenario() -> None:
        async with fleet:
            vm = fleet.vm()
            await fleet.start(vm)
            while fleet.world.running(vm) != ["host2"]:
                await fleet.clock.sleep(0.001)
            await fleet.agents["host1"].kill()  # nobody asks this host
            announced.clear()
            await fleet.clock.sleep(LOOK_AGAIN_S + 5)
            assert RanHere.entry in fleet.agents["host2"].history(fleet.migration).notes
            assert announced.count("host2") > 1
            await fleet.agents["host1"].start()
            assert await fleet.ended() is Status.COMPLETED

    await fleet.clock.run(scenario())


async def test_a_hand_over_that_libvirt_does_not_finish_is_seen_without_an_event(deaf: set[str]) -> None:
    fleet = SimFleet()
    deaf.add("host1")

    async def scenario() -> None:
        async with fleet:
            lose_the_answer(fleet)
            vm = fleet.vm()
            await fleet.start(vm)
            await fleet.clock.sleep(KEEP_ALIVE_S)
            assert "hand-over-late" in fleet.agents["host1"].history(fleet.migration).notes
            assert await fleet.ended() is Status.COMPLETED
            await fleet.clock.sleep(3 * KEEP_ALIVE_S)
            assert fleet.world.running(vm) == ["host2"]
            assert not fleet.world.violations

    await fleet.clock.run(scenario())


async def test_without_an_event_a_guest_that_left_is_not_taken_for_one_that_stayed(
    deaf: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its old QEMU dies, and libvirt's call fails. Who heard nothing does not know when that was."""
    fleet = SimFleet()
    deaf.add("host1")
    copied = SimHypervisor.migrate

    async def fails(self: SimHypervisor, uuid: str, plan: CopyPlan) -> None:
        await copied(self, uuid, plan)
        raise Unknown("the connection to libvirtd was lost")

    def dies(change: Change) -> None:
        if (change.what, change.detail) == ("job", "finished"):
            guests.kill_qemu(fleet.world, "host1", change.subject)

    monkeypatch.setattr(SimHypervisor, "migrate", fails)
    fleet.world.watch(dies)

    async def scenario() -> None:
        async with fleet:
            vm = fleet.vm()
            await fleet.start(vm)
            assert await fleet.ended() is Status.COMPLETED
            assert fleet.world.running(vm) == ["host2"]

    await fleet.clock.run(scenario())


@pytest.mark.parametrize("arrives", [True, False], ids=["arrived", "stayed"])
async def test_the_call_for_the_copy_does_not_return(monkeypatch: pytest.MonkeyPatch, arrives: bool) -> None:
    """libvirt has done with the guest, and its answer never comes: both hosts show what became of it."""
    fleet = SimFleet()
    copied = SimHypervisor.migrate

    async def swallowed(self: SimHypervisor, uuid: str, plan: CopyPlan) -> None:
        with contextlib.suppress(SternaError):
            await copied(self, uuid, plan)
        await asyncio.Event().wait()

    monkeypatch.setattr(SimHypervisor, "migrate", swallowed)

    def breaks(change: Change) -> None:
        if (change.what, change.detail) == ("job", "iteration 1"):
            fleet.world.cut("host1", "host2", kinds=("stream",))
            fleet.world.mend("host1", "host2")

    async def scenario() -> None:
        async with fleet:
            vm = fleet.vm()
            if not arrives:
                fleet.world.watch(breaks)
            await fleet.start(vm)
            assert await fleet.ended() is (Status.COMPLETED if arrives else Status.FAILED)
            assert fleet.world.running(vm) == ["host2" if arrives else "host1"]
            assert not fleet.world.violations

    await fleet.clock.run(scenario())


async def test_the_network_service_does_not_answer_at_the_switch_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked again once the guest runs there: the copy that succeeded waits a little, and no longer."""
    fleet, asked = SimFleet(), []

    async def hangs(self: SimNetwork, vm: Vm, source: str, destination: str) -> None:
        asked.append(source)
        await asyncio.Event().wait()

    monkeypatch.setattr(SimNetwork, "switch", hangs)

    async def scenario() -> None:
        async with fleet:
            vm = fleet.vm()
            await fleet.start(vm)
            assert await fleet.ended(limit_s=60) is Status.COMPLETED
            assert asked
            assert fleet.world.running(vm) == ["host2"]

    await fleet.clock.run(scenario())


async def test_pages_that_do_not_come_are_missed_without_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """In post-copy, over a link that drops packets: neither QEMU reports anything for a quarter of an hour."""
    frozen: list[JobSample | None] = []
    looked = SimHypervisor.sample

    async def sample(self: SimHypervisor, uuid: str) -> JobSample | None:
        return frozen[0] if frozen else await looked(self, uuid)

    async def scenario(fleet: SimFleet) -> None:
        vm = await in_postcopy(fleet)
        frozen.append(await looked(SimHypervisor(fleet.world, "host1"), vm))
        await status(fleet, Status.RECOVERING, limit_s=STALLED_S + 3)
        frozen.clear()
        assert await fleet.ended() is Status.COMPLETED
        assert fleet.world.running(vm) == ["host2"]

    monkeypatch.setattr(SimHypervisor, "sample", sample)
    await run(scenario)
