"""The network learns where a guest is: when it is paused, when it runs there, and again after that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest

from sterna.agent.destination import IncomingMigrations
from sterna.domain.journal import Entry
from sterna.domain.model import Nic
from sterna.domain.status import Status
from sterna.rpc.client import RpcClient
from sterna.sim.ports.network import SimNetwork
from sterna.sim.ports.vif import SimVif
from sterna.sim.world.things import Change
from tests.saga.fleet import SimFleet
from tests.saga.losses import lost


def pause_of(fleet: SimFleet) -> asyncio.Event:
    """Set when the guest stops on its source for the switch-over."""
    stands = asyncio.Event()

    def look(change: Change) -> None:
        if (change.what, change.detail, change.host) == ("domain", "paused (migration)", "host1"):
            stands.set()

    fleet.world.watch(look)
    return stands


async def test_frames_are_called_to_the_new_host_while_the_guest_pausing() -> None:
    """They wait in its port there; at the old one they are lost."""
    fleet = SimFleet()
    fleet.world.pace.switch_ms = 200

    async def scenario() -> None:
        async with fleet:
            stands, vm = pause_of(fleet), fleet.vm()
            await fleet.start(vm)
            await stands.wait()
            assert fleet.world.learnt == {}
            await fleet.clock.sleep(0.1)
            assert fleet.world.running(vm) == []
            assert set(fleet.world.learnt.values()) == {"host2"}
            assert await fleet.ended() is Status.COMPLETED

    await fleet.clock.run(scenario())


async def test_the_network_service_is_asked_before_the_pause_is_journaled() -> None:
    fleet = SimFleet()
    order = []

    async def scenario() -> None:
        async with fleet:
            journal, switch = fleet.agents["host1"].journal, SimNetwork.switch
            append = journal.append

            def appended(*args: Any, name: str = "", **more: Any) -> Entry:
                if name == "saw-suspended-migrated":
                    order.append("journal")
                return append(*args, name=name, **more)

            async def switched(network: SimNetwork, *args: Any) -> None:
                order.append("asked")
                await switch(network, *args)

            journal.append = appended  # type: ignore[method-assign]
            with patch.object(SimNetwork, "switch", switched):
                await fleet.start(fleet.vm())
                assert await fleet.ended() is Status.COMPLETED

    await fleet.clock.run(scenario())
    assert order[:2] == ["asked", "journal"]


@pytest.mark.parametrize("killed", [False, True], ids=["agent lives", "agent dies meanwhile"])
async def test_frames_that_were_called_away_are_called_back_where_the_guest_stays(killed: bool) -> None:
    fleet = SimFleet()
    fleet.world.pace.switch_ms = 200

    async def scenario() -> None:
        async with fleet:
            stands, vm = pause_of(fleet), fleet.vm()
            await fleet.start(vm)
            await stands.wait()
            await fleet.clock.sleep(0.1)
            assert set(fleet.world.learnt.values()) == {"host2"}
            if killed:
                await fleet.agents["host1"].kill()
            fleet.world.cut("host1", "host2", kinds=("stream",))
            if killed:
                await fleet.clock.sleep(1)
                await fleet.agents["host1"].start()
            assert await fleet.ended() is Status.FAILED
            assert fleet.world.running(vm) == ["host1"]
            assert set(fleet.world.learnt.values()) == {"host1"}

    await fleet.clock.run(scenario())


async def test_only_the_source_says_that_a_guest_leaves() -> None:
    fleet, heard = SimFleet(("host1", "host2", "host3")), list[str]()

    async def keep(_desk: IncomingMigrations, migration_id: str) -> None:
        heard.append(migration_id)

    async def scenario() -> None:
        async with fleet:
            with patch.object(IncomingMigrations, "guest_leaves", keep):
                await fleet.start(fleet.vm())
                other = RpcClient(fleet.broker.bus("host3", "host3"), "host3", fleet.clock)
                await other.announce(f"leaving.host3.{fleet.migration}", {})
                await fleet.clock.sleep(0.1)
                assert heard == []
                assert await fleet.ended() is Status.COMPLETED
            assert heard == [fleet.migration]

    await fleet.clock.run(scenario())


async def test_a_hint_of_a_pause_that_comes_too_late_calls_nothing_away() -> None:
    fleet, late = SimFleet(), []

    async def keep(desk: IncomingMigrations, migration_id: str) -> None:
        late.append((desk, migration_id))

    hear = IncomingMigrations.guest_leaves

    async def scenario() -> None:
        async with fleet:
            fleet.world.pace.switch_ms = 200
            stands, vm = pause_of(fleet), fleet.vm()
            with patch.object(IncomingMigrations, "guest_leaves", keep):
                await fleet.start(vm)
                await stands.wait()
                await fleet.clock.sleep(0.1)
                fleet.world.cut("host1", "host2", kinds=("stream",))
                assert await fleet.ended() is Status.FAILED
            assert late
            for desk, migration_id in late:
                await hear(desk, migration_id)
            assert set(fleet.world.learnt.values()) == {"host1"}

    await fleet.clock.run(scenario())


async def test_the_network_is_told_as_soon_as_the_guest_runs_there_where_it_was_not_before() -> None:
    fleet = SimFleet()

    async def scenario() -> None:
        async with fleet:
            vm = fleet.vm()
            await fleet.start(vm)
            assert fleet.world.learnt == {}
            while fleet.world.running(vm) != ["host2"]:
                await fleet.clock.sleep(0.01)
            await fleet.clock.sleep(0.005)
            assert set(fleet.world.learnt.values()) == {"host2"}
            assert await fleet.ended() is Status.COMPLETED

    with patch.object(IncomingMigrations, "guest_leaves", lost):
        await fleet.clock.run(scenario())


async def test_the_frame_that_announces_a_guest_is_on_its_way_before_the_disk_is_waited_for() -> None:
    """An fsync takes several times as long as the frame, and the guest is silent meanwhile."""
    fleet = SimFleet()
    order = []

    async def scenario() -> None:
        async with fleet:
            journal, announce = fleet.agents["host2"].journal, SimVif.announce
            append = journal.append

            def appended(*args: Any, name: str = "", **more: Any) -> Entry:
                if name == "guest-ran-here":
                    order.append("journal")
                return append(*args, name=name, **more)

            async def announced(vif: SimVif, nic: Nic) -> None:
                order.append("frame")
                await announce(vif, nic)

            journal.append = appended  # type: ignore[method-assign]
            with (
                patch.object(SimVif, "announce", announced),
                patch.object(IncomingMigrations, "guest_leaves", lost),
            ):
                await fleet.start(fleet.vm())
                assert await fleet.ended() is Status.COMPLETED

    await fleet.clock.run(scenario())
    assert order[:2] == ["frame", "journal"]


async def announcements(and_then: Callable[[SimFleet, str], None]) -> list[float]:
    """Seconds after the first at which the network was told of a guest that moved; `and_then` comes at its end."""
    fleet, times = SimFleet(), []
    announce = SimVif.announce

    async def announced(vif: SimVif, nic: Nic) -> None:
        times.append(fleet.clock.monotonic_ms() / 1000)
        await announce(vif, nic)

    async def scenario() -> None:
        async with fleet:
            with (
                patch.object(SimVif, "announce", announced),
                patch.object(IncomingMigrations, "guest_leaves", lost),
            ):
                vm = fleet.vm()
                await fleet.start(vm)
                assert await fleet.ended() is Status.COMPLETED
                and_then(fleet, vm)
                await fleet.clock.sleep(5)

    await fleet.clock.run(scenario())
    return [round(at - times[0], 1) for at in times]


async def test_the_network_is_told_again_after_the_migration_is_over() -> None:
    assert await announcements(lambda fleet, vm: None) == [0.0, 0.1, 0.5, 2.0]


async def test_a_guest_that_has_moved_on_is_not_called_back() -> None:
    def move_on(fleet: SimFleet, vm: str) -> None:
        fleet.world.hosts["host2"].domains.pop(vm)

    assert await announcements(move_on) == [0.0, 0.1, 0.5]
