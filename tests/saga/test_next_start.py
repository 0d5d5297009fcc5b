"""A running guest's persistent definition was changed: `virsh attach-interface --config`, `virsh edit`.

The guest moves with what it has. What its next start needs must be on the destination as well, or the plan says so.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sterna.domain.model import Nic
from sterna.domain.plugs import BRIDGE, OVS
from sterna.domain.status import Status
from sterna.sim.libvirt.guests import add_vm
from tests.asking import to_check
from tests.narrowing import not_none
from tests.saga.fleet import SimFleet

LATER = Nic(mac="52:54:00:00:0f:01", plug=BRIDGE, bridge="br-new", device="vnet9")


def changed(fleet: SimFleet, **more: Any) -> str:
    """A VM whose persistent definition has this, and whose guest has not."""
    vm = add_vm(fleet.world, "host1", "tern", disks=("shared",))
    domain = fleet.world.hosts["host1"].domains[vm]
    assert domain.inactive is not None
    if nic := more.pop("nic", None):
        more["nics"] = (*domain.inactive.nics, nic)
    domain.inactive = replace(domain.inactive, **more)
    return vm


async def refusals(fleet: SimFleet, vm: str) -> list[tuple[str, str]]:
    answer = await fleet.client.call("host1", "check_migration", to_check(vm, "host2"))
    assert all(r["fix"] for r in answer["refusals"])
    return [(r["code"], r["message"]) for r in answer["refusals"]]


async def test_a_nic_of_the_next_start_needs_its_bridge_there() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = changed(fleet, nic=LATER)
        fleet.world.hosts["host1"].linux_bridges.add("br-new")
        ((code, message),) = await refusals(fleet, vm)
        assert code == "bridge-missing"
        assert "br-new" in message and "only the persistent definition" in message
        fleet.world.hosts["host2"].linux_bridges.add("br-new")
        assert await refusals(fleet, vm) == []


async def test_one_that_cannot_be_plugged_here_either_is_not_made_worse() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        assert await refusals(fleet, changed(fleet, nic=LATER)) == []


async def test_one_that_nothing_is_known_of_keeps_no_guest() -> None:
    """A definition does not say all that a running guest's does: a switch's port, a network's bridge."""
    for nic in (LATER.model_copy(update={"plug": OVS}), LATER.model_copy(update={"plug": "network other"})):
        async with SimFleet() as fleet, fleet.clock.auto():
            assert await refusals(fleet, changed(fleet, nic=nic)) == []


async def test_a_device_of_the_host_is_another_one_there() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = changed(fleet, immovable=("hostdev 0000:03:00.0",))
        ((code, message),) = await refusals(fleet, vm)
        assert code == "device-only-persistent"
        assert "0000:03:00.0" in message


async def test_a_nic_that_is_on_another_bridge_at_the_next_start_needs_that_one() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=("shared",), plugs=(BRIDGE,))
        domain = fleet.world.hosts["host1"].domains[vm]
        assert domain.inactive is not None and await refusals(fleet, vm) == []
        (nic,) = domain.inactive.nics
        domain.inactive = replace(domain.inactive, nics=(nic.model_copy(update={"bridge": "br-new"}),))
        fleet.world.hosts["host1"].linux_bridges.add("br-new")
        ((code, message),) = await refusals(fleet, vm)
        assert code == "bridge-missing" and "br-new" in message


async def test_the_secret_of_a_disk_that_only_the_next_start_has_is_brought_as_well() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = add_vm(fleet.world, "host1", "tern", disks=("luks", "chap"))
        hosts = fleet.world.hosts
        live = not_none(hosts["host1"].domains[vm].live)
        (luks,) = (disk for disk in live.disks if any(ref.kind == "volume" for ref in disk.secrets))
        kept = tuple(disk for disk in live.disks if disk is not luks)
        hosts["host1"].domains[vm].live = replace(live, disks=kept)
        own = set(hosts["host1"].secrets)
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        assert set(hosts["host2"].secrets) == own
