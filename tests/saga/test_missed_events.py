"""libvirt's event does not come: whoever waits for one looks by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sterna.agent.arrivals import LOOK_ANYWAY_S
from sterna.domain.entries.destination_notes import RanHere
from sterna.domain.status import Status
from sterna.ports.hypervisor import GuestEvent
from sterna.sim.libvirt.hypervisor import SimHypervisor
from sterna.sim.ports.vif import SimVif
from tests.saga.fleet import SimFleet
from tests.saga.losses import KEEP_ALIVE_S, lose_the_answer


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
