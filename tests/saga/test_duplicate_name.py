"""Settings copied from one host to another: the second agent of a name must not serve (ports of the sim fleet)."""

from __future__ import annotations

import asyncio
from unittest.mock import patch

import pytest

from sterna.agent.duplicate_name import ANSWER_S, refuse_duplicate_name
from sterna.domain.errors import Conflict
from sterna.domain.hosts import HostFacts
from sterna.rpc.client import RpcClient
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
