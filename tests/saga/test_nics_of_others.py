"""NICs that are not what P2 or P10 saw: another VM's with the same MAC, one of a guest that was started again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sterna.domain.model import Nic
from sterna.domain.plugs import BRIDGE, MACVTAP, OVS
from sterna.domain.status import Status
from sterna.sim.libvirt.guests import add_vm
from sterna.sim.world.things import SimPort
from tests.narrowing import not_none
from tests.saga.fleet import SimFleet
from tests.saga.playing import run, when


def only_nic(fleet: SimFleet, host: str, vm: str) -> Nic:
    (nic,) = not_none(fleet.world.hosts[host].domains[vm].live).nics
    return nic


def put_nic(fleet: SimFleet, host: str, vm: str, nic: Nic) -> None:
    domain = fleet.world.hosts[host].domains[vm]
    domain.live = replace(not_none(domain.live), nics=(nic,))


@pytest.mark.parametrize("plug, elsewhere", [(BRIDGE, "br-other"), (MACVTAP, "phys1")])
async def test_the_device_of_a_vm_with_the_same_mac_stays(plug: str, elsewhere: str) -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = add_vm(fleet.world, "host1", "web1", plugs=(plug,))
        mac = only_nic(fleet, "host1", vm).mac
        clones = SimPort("vnet5", elsewhere, plug=plug, mac=mac, mode="bridge" if plug == MACVTAP else None)
        fleet.world.add_port("host1", clones)
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        here = fleet.world.hosts["host1"]
        assert here.ports == {"vnet5": clones} and "vnet5" in here.taps

    await run(scenario)


@pytest.mark.parametrize("plug", [OVS, BRIDGE])
async def test_a_guest_that_was_started_again_on_the_destination_is_not_waited_for(plug: str) -> None:
    """Its cold form has no name for its tap: libvirt gives it another one."""

    async def scenario(fleet: SimFleet) -> None:
        vm = add_vm(fleet.world, "host1", "web1", plugs=(plug,))

        def started_again() -> None:
            nic, here = only_nic(fleet, "host2", vm), fleet.world.hosts["host2"]
            port = here.ports[not_none(nic.device)]
            fleet.world.add_port("host2", replace(port, device="vnet7"))
            put_nic(fleet, "host2", vm, nic.model_copy(update={"device": "vnet7"}))
            fleet.world.remove_port("host2", port.device)

        when(fleet.agents["host2"], "activate-bindings", started_again)
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED

    await run(scenario)


async def test_a_nic_that_is_plugged_otherwise_meanwhile_does_not_hold_a_rollback_up() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = add_vm(fleet.world, "host1", "web1", plugs=(BRIDGE,))

        def plugged_otherwise() -> None:
            nic, here = only_nic(fleet, "host1", vm), fleet.world.hosts["host1"]
            former = list(here.ports)
            tap = SimPort("macvtap0", "phys0", plug=MACVTAP, mac=nic.mac, mode="bridge")
            fleet.world.add_port("host1", tap)
            other = {"plug": MACVTAP, "bridge": None, "parent": "phys0", "mode": "bridge", "device": "macvtap0"}
            put_nic(fleet, "host1", vm, nic.model_copy(update=other))
            for device in former:
                fleet.world.remove_port("host1", device)

        when(fleet.agents["host2"], "connect-volumes", plugged_otherwise)
        await fleet.start(vm)
        assert await fleet.ended(limit_s=60) is Status.FAILED

    await run(scenario)
