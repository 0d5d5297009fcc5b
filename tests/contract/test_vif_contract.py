"""What every `ports.vif.Vif` does."""

import pytest
from two_hosts import TwoHosts, contract_lab, hosts

from sterna.domain.errors import Conflict, NotFound
from sterna.domain.model import Nic

__all__ = ["contract_lab", "hosts"]
NIC = Nic(
    mac="52:54:00:00:00:aa",
    plug="ovs",
    port_id="7d1c64c4-0000-4000-8000-0000000000aa",
    bridge="br-int",
    vlan=7,
    mtu=1400,
)


async def test_plug_describe_unplug_each_repeatable(hosts: TwoHosts) -> None:
    vif = hosts.b.vif
    assert await vif.describe(NIC) is None
    try:
        first = await vif.plug(NIC, vm_uuid="vm-1", device="taptest0")
        assert (first.device, first.managed, first.vlan) == ("taptest0", False, 7)
        assert (await vif.plug(NIC, vm_uuid="vm-1", device="taptest0")) == first
        assert await vif.wired("taptest0")
        found = await vif.describe(NIC)
        assert found is not None
        assert (found.device, found.bridge, found.vlan, found.mtu) == ("taptest0", "br-int", 7, 1400)
        assert found.external_ids == {
            "iface-id": NIC.port_id,
            "iface-status": "active",
            "attached-mac": NIC.mac,
            "vm-uuid": "vm-1",
            "made-by": "sterna",
        }
        (made,) = await vif.made_ahead()
        assert (made.device, made.bridge, made.port_id) == ("taptest0", "br-int", NIC.port_id)
        assert made.external_ids["vm-uuid"] == "vm-1"
    finally:
        removed = await vif.unplug("taptest0", bridge="br-int")
    assert removed
    assert await vif.made_ahead() == []
    assert not await vif.unplug("taptest0", bridge="br-int")
    assert await vif.describe(NIC) is None
    assert not await vif.wired("taptest0")


async def test_the_network_is_told_where_a_guest_is(hosts: TwoHosts) -> None:
    vif = hosts.b.vif
    await vif.plug(NIC.model_copy(update={"vlan": 100}), vm_uuid="vm-1", device="taptest3")  # what uplinks carry
    try:
        assert not hosts.knows_behind_link(hosts.a, NIC.mac)
        await vif.announce("taptest3", bridge="br-int", mac=NIC.mac)
        assert any(hosts.knows_behind_link(hosts.a, NIC.mac) for _ in range(100)), "the frame never got there"
        for device, bridge in (("taptest4", "br-int"), ("taptest3", "br-none")):
            with pytest.raises(NotFound):
                await vif.announce(device, bridge=bridge, mac=NIC.mac)
    finally:
        await vif.unplug("taptest3", bridge="br-int")


async def test_a_device_of_something_else_is_a_conflict(hosts: TwoHosts) -> None:
    vif = hosts.b.vif
    await vif.plug(NIC, vm_uuid="vm-1", device="taptest1")
    try:
        with pytest.raises(Conflict):
            await vif.plug(NIC, vm_uuid="vm-2", device="taptest1")
        with pytest.raises(Conflict):
            await vif.plug(NIC.model_copy(update={"port_id": "another"}), vm_uuid="vm-1", device="taptest1")
    finally:
        await vif.unplug("taptest1", bridge="br-int")


async def test_bridges(hosts: TwoHosts) -> None:
    assert await hosts.b.vif.bridge_exists("br-int")
    assert not await hosts.b.vif.bridge_exists("br-none")
    with pytest.raises(NotFound):
        await hosts.b.vif.plug(NIC.model_copy(update={"bridge": "br-none"}), vm_uuid="v", device="taptest2")
    assert await hosts.b.vif.describe(NIC) is None


async def test_a_guests_own_port(hosts: TwoHosts) -> None:
    vm = await hosts.vm("shared")
    port = await hosts.a.vif.describe(vm.nics[0])
    assert port is not None
    assert (port.mac, port.bridge, port.vlan, port.port_id) == (vm.nics[0].mac, "br-int", 100, vm.nics[0].port_id)
    by_id = await hosts.a.vif.describe(vm.nics[0].model_copy(update={"device": None}))
    assert by_id is not None
    assert by_id.device == port.device
