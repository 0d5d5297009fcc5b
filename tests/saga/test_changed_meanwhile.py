"""Somebody changes the VM while its migration is open: what is not Sterna's doing is told, and holds nothing up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sterna.domain.status import Status
from tests.narrowing import not_none
from tests.saga.fleet import SimFleet
from tests.saga.playing import one, run, when


def without(fleet: SimFleet, host: str, vm: str, **gone: str) -> None:
    """As `virsh detach-disk` or `detach-interface` leaves a running guest."""
    domain = fleet.world.hosts[host].domains[vm]
    kept: dict[str, Any] = {
        what: tuple(
            one for one in getattr(domain.live, what) if (one.target if what == "disks" else one.mac) != name
        )
        for what, name in gone.items()
    }
    domain.live = replace(not_none(domain.live), **kept)


@pytest.fixture
def fleet() -> SimFleet:
    return SimFleet()


async def test_a_disk_that_was_detached_meanwhile_does_not_hold_a_rollback_up(fleet: SimFleet) -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm()
        fleet.agents["host2"].rules.append(("connect-volumes", "after", "permanent"))
        await fleet.start(vm)
        assert await fleet.ended(limit_s=60) is Status.FAILED
        history = fleet.agents["host1"].history(fleet.migration)
        assert history.notes["changed-meanwhile"]["what"] == ["disk vda is not what it was before"]
        fleet.agents["host2"].rules.clear()
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED

    when(fleet.agents["host2"], "connect-volumes", lambda: without(fleet, "host1", one(fleet), disks="vda"))
    await run(scenario, fleet)


async def test_a_nic_that_was_detached_meanwhile_does_not_hold_a_rollback_up(fleet: SimFleet) -> None:
    async def scenario(fleet: SimFleet) -> None:
        fleet.agents["host2"].rules.append(("connect-volumes", "after", "permanent"))
        await fleet.start(fleet.vm())
        assert await fleet.ended(limit_s=60) is Status.FAILED
        assert "NIC" in fleet.agents["host1"].history(fleet.migration).notes["changed-meanwhile"]["what"][0]

    when(fleet.agents["host2"], "connect-volumes", lambda: detach_nic(fleet, "host1"))
    await run(scenario, fleet)


async def test_a_nic_that_was_detached_after_the_arrival_does_not_hold_the_end_up(fleet: SimFleet) -> None:
    async def scenario(fleet: SimFleet) -> None:
        await fleet.start(fleet.vm())
        assert await fleet.ended(limit_s=60) is Status.COMPLETED

    when(fleet.agents["host2"], "activate-bindings", lambda: detach_nic(fleet, "host2"))
    await run(scenario, fleet)


def detach_nic(fleet: SimFleet, host: str) -> None:
    """`virsh detach-interface` of the only VM's first NIC: its port goes with it."""
    vm = one(fleet)
    live = not_none(fleet.world.hosts[host].domains[vm].live)
    without(fleet, host, vm, nics=live.nics[0].mac)
    for device in list(fleet.world.hosts[host].ports):
        fleet.world.remove_port(host, device)


@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize("end", ["completed", "failed"])
async def test_autostart_that_was_changed_while_the_destination_prepared_stays_changed(
    fleet: SimFleet, written: bool, end: str
) -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm(autostart=not written)
        if end == "failed":
            fleet.agents["host1"].rules.append(("make-way", "after", "permanent"))
        await fleet.start(vm)
        assert await fleet.ended(limit_s=60) is Status(end)
        (host,) = fleet.world.running(vm)
        assert fleet.world.hosts[host].domains[vm].autostart is written

    def change() -> None:
        fleet.world.hosts["host1"].domains[one(fleet)].autostart = written

    when(fleet.agents["host2"], "connect-volumes", change)
    await run(scenario, fleet)
