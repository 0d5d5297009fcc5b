"""Settings copied from one host to another: the second agent of a name must not serve (ports of the sim fleet)."""

from __future__ import annotations

import asyncio
from unittest.mock import patch

import pytest

from sterna.agent.duplicate_name import ANSWER_S, OtherAgents, refuse_duplicate_name
from sterna.domain.errors import Conflict
from sterna.domain.hosts import HostFacts
from sterna.domain.model import Data
from sterna.rpc.client import RpcClient
from sterna.rpc.presence import Beacon
from sterna.rpc.subjects import host_topic
from sterna.sim.libvirt.hypervisor import SimHypervisor
from tests.saga.fleet import SimFleet


async def test_the_second_host_of_a_name_is_refused_and_told_which_the_first_is() -> None:
    fleet = SimFleet()

    async def scenario() -> None:
        async with fleet:
            cloned = RpcClient(fleet.broker.bus("clone", "host1"), "host1", fleet.clock)
            with pytest.raises(Conflict, match=fleet.world.hosts["host1"].host_uuid) as caught:
                await refuse_duplicate_name(cloned, "host1", fleet.agents["host2"].ports().hypervisor)
            assert fleet.world.hosts["host2"].host_uuid in caught.value.fix

    await fleet.clock.run(scenario())


@pytest.mark.parametrize("away", ["nobody is there", "it is the same host", "it has just died"])
async def test_what_proves_nothing_keeps_no_agent_from_starting(away: str) -> None:
    fleet = SimFleet()

    async def scenario() -> None:
        async with fleet:
            here = fleet.agents["host1" if away == "it is the same host" else "host2"].ports().hypervisor
            if away == "nobody is there":
                await fleet.agents["host1"].kill()
            if away == "it has just died":  # the bus does not know yet
                fleet.broker.loses = lambda packet: packet.is_reply
            began = fleet.clock.monotonic_ms()
            await refuse_duplicate_name(
                RpcClient(fleet.broker.bus("new", "host1"), "host1", fleet.clock), "host1", here
            )
            assert fleet.clock.monotonic_ms() - began <= ANSWER_S * 1000

    await fleet.clock.run(scenario())


@pytest.mark.parametrize("hung", ["host1", "host2"])
async def test_nor_while_a_libvirtd_hangs_which_is_said_soon(hung: str) -> None:
    """systemd gives a service 90 s to start."""
    fleet = SimFleet()
    real = SimHypervisor.host

    async def host(hypervisor: SimHypervisor) -> HostFacts:
        if hypervisor._host.name == hung:
            await asyncio.Event().wait()
        return await real(hypervisor)

    async def scenario() -> None:
        with patch.object(SimHypervisor, "host", host):
            async with fleet:
                cloned = RpcClient(fleet.broker.bus("clone", "host1"), "host1", fleet.clock)
                began = fleet.clock.monotonic_ms()
                with pytest.raises(Conflict, match="another agent answers as host1") as caught:
                    await refuse_duplicate_name(cloned, "host1", fleet.agents["host2"].ports().hypervisor)
                assert fleet.clock.monotonic_ms() - began < 60_000
                assert "libvirtd runs on both hosts" in caught.value.fix

    await fleet.clock.run(scenario())


@pytest.mark.parametrize("away", ["host1", "host2"])
async def test_nor_does_one_start_while_a_libvirtd_is_away_and_somebody_answers(away: str) -> None:
    fleet = SimFleet()

    async def scenario() -> None:
        async with fleet:
            fleet.world.hosts[away].libvirtd_up = False
            cloned = RpcClient(fleet.broker.bus("clone", "host1"), "host1", fleet.clock)
            with pytest.raises(Conflict, match="another agent answers as host1") as caught:
                await refuse_duplicate_name(cloned, "host1", fleet.agents["host2"].ports().hypervisor)
            assert "libvirt-sock" in caught.value.message and "libvirtd runs on both hosts" in caught.value.fix

    await fleet.clock.run(scenario())


async def serving(fleet: SimFleet, host: str, boot: str) -> OtherAgents:
    """What an agent of the name `host1` on this host does once it has asked: it sends beacons, and listens."""
    client = RpcClient(fleet.broker.bus(boot, "host1"), "host1", fleet.clock)
    hypervisor = fleet.agents[host].ports().hypervisor
    others = OtherAgents(client, "host1", boot)

    async def facts() -> Data:
        described = fleet.world.hosts[host].libvirtd_up
        since = client.bus_state().since.isoformat()
        facts = (await hypervisor.host()).model_dump(mode="json") if described else None
        return {"boot": boot, "host": facts, "bus_since": since}

    await others.start()
    await Beacon(client, host_topic("host1"), facts).start()
    await refuse_duplicate_name(client, "host1", hypervisor)
    return others


@pytest.mark.parametrize("away", ["the newcomer's bus", "both's, after a power cut"])
async def test_two_that_could_not_be_asked_are_found_once_both_are_on_the_bus(away: str) -> None:
    """The one that joined it later ends. Neither is asked: an answer might be one's own."""
    fleet = SimFleet()

    async def scenario() -> None:
        if away == "the newcomer's bus":
            fleet.broker.cut("b")
        else:
            fleet.broker.stop()
        first, second = await serving(fleet, "host1", "a"), await serving(fleet, "host2", "b")
        await fleet.clock.sleep(60)
        assert not first.found.is_set() and not second.found.is_set()
        fleet.broker.start()
        fleet.broker.heal("b")
        await fleet.clock.sleep(5)
        assert second.found.is_set() and not first.found.is_set()
        assert second.conflict is not None and fleet.world.hosts["host1"].host_uuid in second.conflict.message
        assert fleet.world.hosts["host2"].host_uuid in second.conflict.fix

    await fleet.clock.run(scenario())


@pytest.mark.parametrize("undescribed", ["host1", "host2"])
async def test_one_whose_libvirtd_is_away_is_found_as_soon_as_it_is_described(undescribed: str) -> None:
    fleet = SimFleet()

    async def scenario() -> None:
        fleet.broker.cut("b")
        fleet.world.hosts[undescribed].libvirtd_up = False
        _, second = await serving(fleet, "host1", "a"), await serving(fleet, "host2", "b")
        fleet.broker.heal("b")
        await fleet.clock.sleep(30)
        assert not second.found.is_set()
        fleet.world.hosts[undescribed].libvirtd_up = True
        await fleet.clock.sleep(5)
        assert second.found.is_set()

    await fleet.clock.run(scenario())


async def test_an_earlier_life_of_its_own_is_no_other_agent() -> None:
    fleet = SimFleet()

    async def scenario() -> None:
        before, now = await serving(fleet, "host1", "a"), await serving(fleet, "host1", "b")
        await fleet.clock.sleep(30)
        assert not before.found.is_set() and not now.found.is_set()

    await fleet.clock.run(scenario())
