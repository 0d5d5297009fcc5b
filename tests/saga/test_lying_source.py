"""A source that describes another guest's NIC as its own: the other guest keeps its port on the destination."""

from __future__ import annotations

import pytest

from sterna.adapters.network.native import NativeNetwork
from sterna.domain.calls import MakeWayThere
from sterna.domain.errors import SternaError
from sterna.domain.model import Data, Nic
from sterna.domain.plugs import BRIDGE, HYBRID, OVS, hybrid_names, tap_name
from sterna.domain.status import Status
from sterna.sim.libvirt.guests import add_vm
from sterna.sim.world.things import SimPort
from tests.narrowing import not_none
from tests.saga.fleet import SimFleet
from tests.saga.lying import change_call
from tests.saga.playing import run, when

VICTIM = "00000000-0000-4000-8000-00000000beef"
PORT_ID = "0fa10000-0000-4000-8000-000000000001"
MAC = "52:54:00:00:be:ef"


def victims_port(plug: str, *, marked: bool) -> SimPort:
    """As a network service's agent and Nova have made it. `marked`: it says whose it is."""
    bridge = "br-lan" if plug == BRIDGE else "br-int"
    nic = Nic(mac=MAC, plug=plug, port_id=PORT_ID, bridge=bridge)
    device = hybrid_names(PORT_ID)[2] if plug == HYBRID else tap_name(nic)
    ids = {"iface-id": PORT_ID, "attached-mac": MAC} | ({"vm-uuid": VICTIM} if marked else {})
    return SimPort(device, bridge, external_ids=ids, plug=plug, mac=MAC)


def claims(port: SimPort, external_ids: Data) -> Data:
    """What the source says of its NIC."""
    bridge = port.bridge
    return {"mac": MAC, "port_id": PORT_ID, "bridge": bridge, "device": None, "external_ids": external_ids}


@pytest.mark.parametrize("named", [{}, {"vm-uuid": VICTIM}, {"vm-id": VICTIM}], ids=["nobody", "victim", "vm-id"])
@pytest.mark.parametrize("marked", [True, False], ids=["marked", "unmarked"])
@pytest.mark.parametrize("late", [False, True], ids=["there before", "plugged before P10"])
@pytest.mark.parametrize("plug", [OVS, BRIDGE, HYBRID])
async def test_another_guests_port_stays(
    plug: str, late: bool, marked: bool, named: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = SimFleet()
    for agent in fleet.agents.values():
        agent.settings["network"] = NativeNetwork()
    port = victims_port(plug, marked=marked)

    async def scenario(fleet: SimFleet) -> None:
        vm = add_vm(fleet.world, "host1", "vm1", plugs=(plug,))

        def change(params: Data) -> Data:
            (nic,) = params["vm"]["nics"]
            return params | {"vm": params["vm"] | {"nics": [nic | claims(port, named)]}}

        if not late:
            fleet.world.add_port("host2", port)
        change_call(monkeypatch, "pre_live_migration", change)
        await fleet.start(vm)
        assert await fleet.ended() is Status.FAILED
        there = fleet.world.hosts["host2"]
        assert there.ports.get(port.device) == port
        assert port.device in there.taps

    if late:
        when(fleet.agents["host2"], "plug-vifs", lambda: fleet.world.add_port("host2", port))
    await run(scenario, fleet)


async def test_no_tap_makes_way_that_was_not_made_here() -> None:
    """The source asks for it although P10 has failed."""
    fleet = SimFleet()

    async def scenario(fleet: SimFleet) -> None:
        vm = add_vm(fleet.world, "host1", "vm1", plugs=(OVS,))
        await fleet.start(vm)
        assert await fleet.ended() is Status.FAILED
        assert answered == ["conflict"]

    answered = []

    async def ask() -> None:
        client = not_none(fleet.agents["host1"]._agent)._client
        try:
            await client.call("host2", MakeWayThere.method, {}, migration_id=fleet.migration, epoch=1)
        except SternaError as error:
            answered.append(error.code)

    fleet.agents["host2"].rules.append(("plug-vifs", "before", "permanent"))
    when(fleet.agents["host1"], "ask-both-hypervisors", ask)
    await run(scenario, fleet)
