"""A tap's name says nothing about whose it is: another guest may have it by now."""

from dataclasses import replace

import pytest

from sterna.domain.errors import Refused
from sterna.domain.model import Nic
from sterna.domain.plugs import BRIDGE, OVS, tap_name
from sterna.domain.status import Status
from sterna.sim.libvirt.guests import add_vm
from sterna.sim.world.things import Definition, SimPort
from tests.narrowing import not_none
from tests.saga.fleet import SimFleet
from tests.saga.playing import run


def name_tap(fleet: SimFleet, vm: str, device: str) -> Nic:
    """The operator has given the first NIC's tap a name (`<target dev='...'/>`). The NIC as it is then."""
    here = fleet.world.hosts["host1"]
    domain = here.domains[vm]
    assert isinstance(domain.live, Definition)
    nic = domain.live.nics[0].model_copy(update={"device": device})
    (port,) = [p for p in here.ports.values() if p.guest_mac == nic.mac.lower()]
    fleet.world.add_port("host1", replace(port, device=device))
    domain.live = replace(domain.live, nics=(nic, *domain.live.nics[1:]))
    fleet.world.remove_port("host1", port.device)
    return nic


async def test_under_a_network_service_the_name_of_the_port_counts_and_no_operators() -> None:
    """A binding knows no `web0`: P10 calls the tap after the port."""

    async def scenario(fleet: SimFleet) -> None:
        vm = add_vm(fleet.world, "host1", "vm1", plugs=(OVS,))
        nic = name_tap(fleet, vm, "web0")
        theirs = {"iface-id": "other", "attached-mac": "52:54:00:00:00:77", "vm-uuid": "another"}
        fleet.world.put_port("host2", SimPort("web0", "br-int", external_ids=theirs))
        fleet.world.put_port("host2", SimPort(tap_name(nic), "br-int", external_ids=theirs))
        with pytest.raises(Refused) as refused:
            await fleet.start(vm)
        (refusal,) = refused.value.refusals
        assert (refusal.code, tap_name(nic) in refusal.message) == ("device-name-taken", True)
        fleet.world.remove_port("host2", tap_name(nic))
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        live = fleet.world.hosts["host2"].domains[vm].live
        assert live is not None and [n.device for n in live.nics] == [tap_name(nic)]

    await run(scenario)


@pytest.mark.parametrize("bridge", ["br-int", "br-lan"])
@pytest.mark.parametrize("plug", [OVS, BRIDGE])
async def test_a_name_that_another_guest_took_after_the_switch_over_stays_its_own(plug: str, bridge: str) -> None:
    """libvirt deleted the tap `web0` with the guest; another guest's tap has that name by F4, wherever it is."""

    async def scenario(fleet: SimFleet) -> None:
        vm = add_vm(fleet.world, "host1", "vm1", plugs=(plug,))
        name_tap(fleet, vm, "web0")
        theirs = {"iface-id": "other", "attached-mac": "52:54:00:00:00:77", "vm-id": "another"}
        port = SimPort("web0", bridge, external_ids=theirs, plug=plug, mac="52:54:00:00:00:77")
        take = ("remove-vifs-at-source", "before", lambda: fleet.world.add_port("host1", port))
        fleet.agents["host1"].rules = [take]
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        here = fleet.world.hosts["host1"]
        assert (here.ports, here.taps) == ({"web0": port}, {"web0"})

    await run(scenario)


async def test_a_rollback_leaves_a_name_that_another_guest_took() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = add_vm(fleet.world, "host1", "vm1", plugs=(OVS,))
        there = fleet.world.hosts["host2"]
        theirs = {"iface-id": "other", "attached-mac": "52:54:00:00:00:77", "vm-id": "another"}
        (nic,) = not_none(fleet.world.hosts["host1"].domains[vm].live).nics
        port = SimPort(tap_name(nic), "br-int", external_ids=theirs, mac="52:54:00:00:00:77")

        def take() -> None:
            fleet.world.remove_port("host2", port.device)
            fleet.world.add_port("host2", port)

        fleet.agents["host2"].rules = [("remove-vifs", "before", take)]
        fleet.agents["host1"].rules = [("copy", "before", "permanent")]
        await fleet.start(vm)
        assert await fleet.ended() is Status.FAILED
        assert (there.ports, there.taps) == ({port.device: port}, {port.device})

    await run(scenario)
