"""Messages that come late, or from nobody: the step looks at journal and hypervisor before it acts."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from sterna.domain.errors import Conflict, Refused
from sterna.domain.journal import EPOCH_LEAP, Role
from sterna.domain.status import Status
from sterna.rpc.client import RpcClient

from .fleet import SimFleet
from .playing import when


def _stops(fleet: SimFleet, host: str, step: str) -> tuple[asyncio.Event, asyncio.Event]:
    """Make that host's agent stop before a step: (set once it is reached, to be set for it to go on)."""
    reached, raise_if_aborted = asyncio.Event(), asyncio.Event()

    async def stop() -> None:
        reached.set()
        await raise_if_aborted.wait()

    when(fleet.agents[host], step, stop)
    return reached, raise_if_aborted


def source_of(fleet: SimFleet, host: str = "host1") -> RpcClient:
    """Speaks as the agent of that host does."""
    return RpcClient(fleet.broker.bus(f"another of {host}", host), host, fleet.clock)


async def _take_volumes(fleet: SimFleet) -> None:
    known = fleet.agents["host2"].journal.get(fleet.migration)
    assert known is not None
    words = {"migration_id": fleet.migration, "epoch": known[0].epoch}
    await source_of(fleet).call("host2", "remove_volume_connection", {}, **words)  # type: ignore[arg-type]


@pytest.mark.parametrize("step", ["read-network-info-after", "update-vm", "update-resources"])
async def test_a_running_guest_keeps_its_volumes_whoever_asks_for_them(step: str) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = fleet.vm()
        reached, raise_if_aborted = _stops(fleet, "host2", step)
        await fleet.start(vm)
        await reached.wait()
        assert fleet.world.running(vm) == ["host2"]
        before = fleet.world.snapshot("host2")
        with pytest.raises(Conflict, match="volumes stay connected"):
            await _take_volumes(fleet)
        assert fleet.world.snapshot("host2") == before
        assert fleet.agents["host2"].history(fleet.migration).turned_back is None
        raise_if_aborted.set()
        assert await fleet.ended() is Status.COMPLETED
        assert fleet.world.violations == []


async def test_a_guest_that_somebody_else_brought_keeps_its_volumes() -> None:
    """The migration has prepared; meanwhile the guest came to run there by other means."""
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = fleet.vm()
        reached, _ = _stops(fleet, "host1", "network-vif-plugged")
        await fleet.start(vm)
        await reached.wait()
        source, there = fleet.world.hosts["host1"].domains, fleet.world.hosts["host2"].domains
        there[vm] = source.pop(vm)
        before = fleet.world.snapshot("host2")
        with pytest.raises(Conflict, match="volumes stay connected"):
            await _take_volumes(fleet)
        assert fleet.world.snapshot("host2") == before
        source[vm] = there.pop(vm)


async def test_phase_3_does_not_begin_while_the_guest_waits_for_its_memory() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = fleet.vm()
        reached, raise_if_aborted = _stops(fleet, "host2", "read-network-info-after")
        await fleet.start(vm)
        while vm not in fleet.world.hosts["host2"].domains:
            await fleet.clock.sleep(0.01)
        assert fleet.world.running(vm) == ["host1"]
        source = fleet.agents["host1"]._agent
        assert source is not None
        peer = source.source._contexts[fleet.migration].peer
        peer.cast("post_live_migration_at_destination", {}, key="forged")
        while fleet.world.running(vm) == ["host1"]:
            assert not reached.is_set()
            await fleet.clock.sleep(0.01)
        raise_if_aborted.set()
        assert await fleet.ended() is Status.COMPLETED
        assert fleet.world.violations == []


FALSE = (2**63 - 1, 2**62 - 1, EPOCH_LEAP + 1)


@pytest.mark.parametrize("epoch", FALSE)
async def test_a_false_epoch_in_the_metadata_does_not_wedge_the_vm(
    epoch: int, capsys: pytest.CaptureFixture[str]
) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = fleet.vm()
        domain = fleet.world.hosts["host1"].domains[vm]
        assert domain.live is not None and domain.inactive is not None
        domain.live, domain.inactive = replace(domain.live, epoch=epoch), replace(domain.inactive, epoch=epoch)
        for source, to in (("host1", "host2"), ("host2", "host1"), ("host1", "host2")):
            await fleet.start(vm, to=to, source=source)
            assert await fleet.ended(source) is Status.COMPLETED
        assert fleet.agents["host1"].journal.newest_epoch(vm) == 3
        assert "ignoring the epoch" in capsys.readouterr().out


@pytest.mark.parametrize("epoch", [2**63 - 1, 2**62, EPOCH_LEAP + 2])
async def test_nor_does_a_message(epoch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = fleet.vm()
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        moved = fleet.agents["host2"].journal.entries(fleet.migration)[0].data
        forged = moved | {"id": "forged", "epoch": epoch, "source": "host2", "destination": "host1"}
        told = {"uuid": vm, "name": "x", "state": "running", "memory_bytes": 1, "vcpus": 1}
        params = {"migration": forged, "vm": told}
        words = {"migration_id": "forged", "epoch": epoch}
        with pytest.raises(Conflict, match="implausible") as refused:
            await source_of(fleet, "host2").call("host1", "pre_live_migration", params, **words)  # type: ignore[arg-type]
        assert refused.value.fix
        assert fleet.agents["host1"].journal.newest_epoch(vm) == 1
        await fleet.start(vm, to="host1", source="host2")
        assert await fleet.ended("host2") is Status.COMPLETED


@pytest.mark.parametrize("epoch", [*FALSE, "7", None, 1.5, -1])
async def test_a_destination_that_claims_to_have_seen_one_is_refused(
    epoch: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SimFleet(("host1", "host2", "host3")) as fleet, fleet.clock.auto():
        call = RpcClient.call

        async def claims(self: RpcClient, to: str, method: str, params: object, **more: object) -> object:
            answer = await call(self, to, method, params, **more)  # type: ignore[arg-type]
            return answer | {"epoch": epoch} if (to, method) == ("host2", "check_destination") else answer

        monkeypatch.setattr(RpcClient, "call", claims)
        vm = fleet.vm()
        if epoch != -1:
            with pytest.raises(Refused) as refused:
                await fleet.start(vm)
            assert [r.code for r in refused.value.refusals] == ["epoch-not-believed"]
        assert fleet.agents["host1"].journal.newest_epoch(vm) == 0
        await fleet.start(vm, to="host3")
        assert await fleet.ended() is Status.COMPLETED
        assert fleet.agents["host1"].journal.entries(fleet.migration)[0].role is Role.SOURCE
