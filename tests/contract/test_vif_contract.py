"""What every `ports.vif.Vif` does, for each plug type."""

import pytest

from sterna.domain.errors import Conflict, NotFound, Permanent
from sterna.domain.model import Nic
from sterna.domain.plugs import (
    BRIDGE,
    HYBRID,
    MACVTAP,
    OVN_INSTALLED,
    OVS,
    VHOSTUSER,
    hybrid_names,
    is_wired_by_agent,
)
from tests.contract.two_hosts import TwoHosts

PORT = "7d1c64c4-0000-4000-8000-0000000000aa"
MAC = "52:54:00:00:00:aa"
NICS = {
    OVS: Nic(mac=MAC, plug=OVS, port_id=PORT, bridge="br-int", vlan=7, mtu=1400),
    HYBRID: Nic(mac=MAC, plug=HYBRID, port_id=PORT, bridge="br-int", vlan=7, mtu=1400),
    BRIDGE: Nic(mac=MAC, plug=BRIDGE, bridge="br-lan", mtu=1400),
}
PARENT = Nic(mac=MAC, plug=MACVTAP, parent="phys0", mode="bridge")
MADE_AHEAD = pytest.mark.parametrize("plug", list(NICS))


def on(nic: Nic, device: str) -> Nic:
    return nic.model_copy(update={"device": device})


@MADE_AHEAD
async def test_plug_describe_unplug_each_repeatable(hosts: TwoHosts, plug: str) -> None:
    vif, nic = hosts.b.vif, NICS[plug]
    assert await vif.describe(nic) is None
    assert await vif.check(nic) == []
    try:
        first = await vif.plug(nic, vm_uuid="vm-1", device="taptest0")
        assert (first.device, first.managed, first.vlan) == ("taptest0", False, nic.vlan)
        assert (await vif.plug(nic, vm_uuid="vm-1", device="taptest0")) == first
        assert await vif.wired(first)
        for known in (nic, on(nic, "taptest0"), on(nic, "vnet77")):
            found = await vif.describe(known)
            assert found is not None
            assert (found.device, found.bridge, found.vlan, found.mtu) == ("taptest0", nic.bridge, nic.vlan, 1400)
        marks = {"attached-mac": MAC, "vm-uuid": "vm-1", "made-by": "sterna"}
        marks |= {} if plug == BRIDGE else {"iface-id": PORT, "iface-status": "active"}
        assert found.external_ids == marks
        (made,) = await vif.made_ahead()
        assert (made.plug, made.device, made.bridge, made.port_id) == (plug, "taptest0", nic.bridge, nic.port_id)
        assert made.external_ids["vm-uuid"] == "vm-1"
    finally:
        removed = await vif.unplug(on(nic, "taptest0"))
    assert removed
    assert await vif.made_ahead() == []
    assert not await vif.unplug(on(nic, "taptest0"))
    assert await vif.describe(nic) is None
    assert not await vif.wired(on(nic, "taptest0"))


@pytest.mark.parametrize("plug", [OVS, HYBRID])
async def test_what_its_agent_says_of_a_port_stays_on_its_host(hosts: TwoHosts, plug: str) -> None:
    theirs = {"ovn-installed": "true", "ovn-installed-ts": "1732550400", "owner": "somebody"}
    vif, nic = hosts.b.vif, NICS[plug].model_copy(update={"external_ids": theirs})
    plugged = await vif.plug(nic, vm_uuid="vm-1", device="taptest4")
    try:
        seen = await vif.describe(plugged)
        assert seen is not None and seen.external_ids == plugged.external_ids
        assert seen.external_ids["owner"] == "somebody" and not is_wired_by_agent(seen, OVN_INSTALLED)
        hosts.say_installed(hosts.b, hybrid_names(PORT)[2] if plug == HYBRID else "taptest4")
        assert is_wired_by_agent(await vif.describe(plugged), OVN_INSTALLED)
    finally:
        await vif.unplug(plugged)


@MADE_AHEAD
async def test_the_network_is_told_where_a_guest_is(hosts: TwoHosts, plug: str) -> None:
    vlan = None if plug == BRIDGE else 100  # what uplinks carry
    mac = f"52:54:00:00:01:{list(NICS).index(plug):02x}"  # switches remember the one before
    vif, nic = hosts.b.vif, NICS[plug].model_copy(update={"vlan": vlan, "mac": mac})
    plugged = await vif.plug(nic, vm_uuid="vm-1", device="taptest3")
    try:
        if plug == BRIDGE:
            hosts.open_tap(hosts.b, "taptest3")  # as QEMU has it: the bridge learns nothing of a dead port
        assert not hosts.knows_behind_link(hosts.a, nic)
        await vif.announce(plugged)
        assert any(hosts.knows_behind_link(hosts.a, nic) for _ in range(100)), "the frame never got there"
        with pytest.raises(NotFound):
            await vif.announce(plugged.model_copy(update={"bridge": "br-none"}))
    finally:
        hosts.close_taps()
        await vif.unplug(plugged)
    with pytest.raises(NotFound):
        await vif.announce(plugged)


@MADE_AHEAD
async def test_a_device_of_something_else_is_a_conflict(hosts: TwoHosts, plug: str) -> None:
    vif, nic = hosts.b.vif, NICS[plug]
    plugged = await vif.plug(nic, vm_uuid="vm-1", device="taptest1")
    try:
        with pytest.raises(Conflict):
            await vif.plug(nic, vm_uuid="vm-2", device="taptest1")
        other = nic.model_copy(update={"port_id": f"{PORT[:-1]}b"})
        with pytest.raises(Conflict):
            await vif.plug(other, vm_uuid="vm-1", device="taptest1")
        with pytest.raises(Conflict):
            await vif.unplug(plugged.model_copy(update={"bridge": "br-other"}))
        assert await vif.describe(nic) == plugged.model_copy(update={"managed": True})
    finally:
        await vif.unplug(plugged)


@pytest.mark.parametrize("bridge", ["own", "br-other"])
@pytest.mark.parametrize("plug", [OVS, BRIDGE])
async def test_a_name_that_became_another_guests_is_left_alone(hosts: TwoHosts, plug: str, bridge: str) -> None:
    """`unplug` knows the device by its name only. Nothing of this NIC is there: nothing is wrong."""
    vif, port_id = hosts.b.vif, NICS[plug].port_id and "8e2d75d5-0000-4000-8000-0000000000ac"
    theirs = NICS[plug].model_copy(update={"port_id": port_id, "mac": "52:54:00:00:00:ac"})
    plugged = await vif.plug(theirs, vm_uuid="vm-2", device="taptest7")
    try:
        ours = on(NICS[plug], "taptest7")
        assert not await vif.unplug(ours if bridge == "own" else ours.model_copy(update={"bridge": bridge}))
        assert await vif.describe(plugged) == plugged
        assert await vif.wired(plugged)
    finally:
        assert await vif.unplug(plugged)


@MADE_AHEAD
async def test_a_name_that_is_taken_is_said_beforehand(hosts: TwoHosts, plug: str) -> None:
    """An operator's name (`<target dev='...'/>`) goes along, and may be another guest's over there."""
    vif, nic = hosts.b.vif, on(NICS[plug], "taptest5")
    assert await vif.check(nic) == []
    port_id = NICS[plug].port_id and "8e2d75d5-0000-4000-8000-0000000000ac"
    theirs = NICS[plug].model_copy(update={"port_id": port_id, "mac": "52:54:00:00:00:ac"})
    plugged = await vif.plug(theirs, vm_uuid="vm-2", device="taptest5")
    try:
        (refusal,) = await vif.check(nic)
        assert (refusal.code, "taptest5" in refusal.message) == ("device-name-taken", True)
        assert "taptest5" in refusal.fix
        assert await vif.check(on(NICS[plug], "taptest6")) == []
    finally:
        await vif.unplug(plugged)
    assert await vif.check(nic) == []


@MADE_AHEAD
async def test_ones_own_name_is_not_taken(hosts: TwoHosts, plug: str) -> None:
    vif, nic = hosts.b.vif, on(NICS[plug], "taptest7")
    plugged = await vif.plug(nic, vm_uuid="vm-1", device="taptest7")
    try:
        assert await vif.check(nic) == []
    finally:
        await vif.unplug(plugged)


@pytest.mark.parametrize("plug", [OVS, HYBRID])
async def test_a_port_says_whose_it_is_in_the_words_of_libvirt_or_of_os_vif(hosts: TwoHosts, plug: str) -> None:
    """A host that lost its power keeps the rows of its ports, as libvirt wrote them."""
    vif, nic = hosts.b.vif, on(NICS[plug], "taptest8")
    mine, other = (nic.model_copy(update={"external_ids": {"vm-id": vm}}) for vm in ("vm-1", "vm-2"))
    plugged = await vif.plug(nic, vm_uuid="vm-1", device="taptest8")
    try:
        hosts.marked_by_libvirt(hosts.b, hybrid_names(PORT)[2] if plug == HYBRID else "taptest8", "vm-1")
        assert await vif.check(mine) == []
        (refusal,) = await vif.check(other)
        assert refusal.code == "device-name-taken"
        with pytest.raises(Conflict, match="vm-uuid vm-1, not vm-2"):
            await vif.plug(nic, vm_uuid="vm-2", device="taptest8")
        again = await vif.plug(nic, vm_uuid="vm-1", device="taptest8")
        assert again.external_ids["vm-uuid"] == "vm-1"
    finally:
        await vif.unplug(plugged)


async def test_the_name_of_a_hybrid_plugs_port_may_be_taken_as_well(hosts: TwoHosts) -> None:
    vif, nic, outer = hosts.b.vif, NICS[HYBRID], hybrid_names(PORT)[2]
    theirs = NICS[OVS].model_copy(update={"port_id": f"{PORT[:-1]}c", "mac": "52:54:00:00:00:ac"})
    plugged = await vif.plug(theirs, vm_uuid="vm-2", device=outer)
    try:
        (refusal,) = await vif.check(nic)
        assert (refusal.code, outer in refusal.message, outer in refusal.fix) == ("device-name-taken", True, True)
        with pytest.raises(Conflict):
            await vif.plug(nic, vm_uuid="vm-1", device="taptest9")
    finally:
        await vif.unplug(plugged)
    assert await vif.check(nic) == []


async def test_the_bridge_of_a_trunks_parent_is_not_asked_for(hosts: TwoHosts) -> None:
    """Neutron's agent makes it, for guests that are there already: a bridge by that name would not be a trunk's."""
    (refusal,) = await hosts.b.vif.check(NICS[OVS].model_copy(update={"bridge": "tbr-1f2e3d4c-5"}))
    assert (refusal.code, "tbr-1f2e3d4c-5" in refusal.message) == ("trunk-parent", True)
    assert "delete the trunk" in refusal.fix


@MADE_AHEAD
async def test_a_bridge_that_is_missing(hosts: TwoHosts, plug: str) -> None:
    nowhere = NICS[plug].model_copy(update={"bridge": "br-none"})
    (refusal,) = await hosts.b.vif.check(nowhere)
    assert refusal.code == "bridge-missing"
    assert "br-none" in refusal.message and MAC in refusal.message and refusal.fix
    with pytest.raises(NotFound):
        await hosts.b.vif.plug(nowhere, vm_uuid="v", device="taptest2")
    assert await hosts.b.vif.describe(nowhere) is None
    assert hosts.devices(hosts.b, PORT) == set()


async def test_a_hybrid_plug_is_four_devices_and_all_of_them_go(hosts: TwoHosts) -> None:
    vif, nic = hosts.b.vif, NICS[HYBRID]
    plugged = await vif.plug(nic, vm_uuid="vm-1", device="tap7d1c64c4-00")
    between = set(hybrid_names(PORT))
    assert hosts.devices(hosts.b, PORT) == between | {"tap7d1c64c4-00"}
    assert await vif.unplug(plugged, for_good=False)
    assert hosts.devices(hosts.b, PORT) == between, "libvirt plugs a guest that starts here again into them"
    (kept,) = await vif.made_ahead()
    assert kept.device is None
    assert not await vif.wired(plugged)
    assert not await vif.unplug(kept, for_good=False)
    again = await vif.plug(nic, vm_uuid="vm-1", device="tap7d1c64c4-00")
    assert await vif.wired(again)
    assert await vif.unplug(again)
    assert hosts.devices(hosts.b, PORT) == set()


async def test_a_macvtap_needs_its_parent_and_in_passthrough_all_of_it(hosts: TwoHosts) -> None:
    vif = hosts.b.vif
    assert await vif.check(PARENT) == []
    assert (await vif.plug(PARENT, vm_uuid="vm-1", device="")).device is None
    assert not await vif.wired(PARENT)
    missing = PARENT.model_copy(update={"parent": "phys9"})
    assert [r.code for r in await vif.check(missing)] == ["parent-missing"]
    with pytest.raises(NotFound):
        await vif.plug(missing, vm_uuid="vm-1", device="")
    hosts.add_macvtap(hosts.b, "phys0", "52:54:00:00:00:bb")
    try:
        assert await vif.check(PARENT) == []
        alone = PARENT.model_copy(update={"mode": "passthrough"})
        assert [r.code for r in await vif.check(alone)] == ["parent-busy"]
        with pytest.raises(Conflict):
            await vif.plug(alone, vm_uuid="vm-1", device="")
        seen = await vif.describe(PARENT.model_copy(update={"mac": "52:54:00:00:00:bb", "parent": None}))
        assert seen is not None
        assert (seen.parent, seen.mode) == ("phys0", "bridge")
        assert await vif.describe(PARENT) is None
    finally:
        assert await vif.unplug(seen)
    assert not await vif.unplug(seen)
    assert await vif.made_ahead() == []


async def test_a_type_nobody_can_plug(hosts: TwoHosts) -> None:
    nic = Nic(mac=MAC, plug=VHOSTUSER, device="/run/vhu0")
    assert await hosts.b.vif.describe(nic) is None
    assert await hosts.b.vif.check(nic) == []  # the VM's own check refuses it, with the reason
    with pytest.raises(Permanent):
        await hosts.b.vif.plug(nic, vm_uuid="vm-1", device="taptest4")


async def test_a_guests_own_port(hosts: TwoHosts) -> None:
    vm = await hosts.vm("shared")
    port = await hosts.a.vif.describe(vm.nics[0])
    assert port is not None
    assert (port.mac, port.bridge, port.vlan, port.port_id) == (vm.nics[0].mac, "br-int", 100, vm.nics[0].port_id)
    by_id = await hosts.a.vif.describe(vm.nics[0].model_copy(update={"device": None}))
    assert by_id is not None
    assert by_id.device == port.device


@pytest.mark.parametrize("plug", [OVS, HYBRID])
async def test_a_port_that_an_agent_took_away_is_put_back(hosts: TwoHosts, plug: str) -> None:
    """R6: the binding was activated elsewhere and is the source's again; the guest's device was there all along."""
    vif, nic = hosts.b.vif, NICS[plug]
    plugged = await vif.plug(nic, vm_uuid="vm-1", device="taptest5")
    try:
        before = await vif.describe(plugged)
        assert before is not None
        hosts.drop_port(hosts.b, "taptest5" if plug == OVS else hybrid_names(PORT)[2])
        assert await vif.describe(plugged) is None
        assert await vif.put_back(before)
        assert await vif.put_back(before)
        assert await vif.describe(plugged) == before
    finally:
        await vif.unplug(plugged)
    assert not await vif.put_back(before), "without a device there is nothing to put back"


@MADE_AHEAD
async def test_a_tap_makes_way_and_the_switch_keeps_its_port(hosts: TwoHosts, plug: str) -> None:
    vif, nic = hosts.b.vif, NICS[plug]
    plugged = await vif.plug(nic, vm_uuid="vm-1", device="taptest6")
    try:
        assert hosts.has_device(hosts.b, "taptest6")
        for _ in range(2):
            await vif.make_way(plugged)
        assert not hosts.has_device(hosts.b, "taptest6")
        seen = await vif.describe(plugged)
        if plug == BRIDGE:
            assert seen is None
        else:
            assert seen is not None
            assert (seen.bridge, seen.vlan, seen.external_ids) == (nic.bridge, nic.vlan, plugged.external_ids)
        assert await vif.unplug(plugged) is (plug != BRIDGE)
    finally:
        await vif.unplug(plugged)
