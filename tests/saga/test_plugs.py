"""A VM with NICs of every plug type moves in one piece, or stays in one piece."""

from dataclasses import replace
from unittest.mock import patch

import pytest

from sterna.domain.errors import Refused, Temporary
from sterna.domain.model import Nic
from sterna.domain.plugs import (
    BRIDGE,
    HOSTDEV,
    HYBRID,
    MACVTAP,
    OVS,
    PASSTHROUGH,
    VHOSTUSER,
    claimed,
    twins,
)
from sterna.domain.status import Status
from sterna.migration.flow import DESTINATION, SOURCE
from sterna.sim.libvirt import qemu
from sterna.sim.libvirt.guests import add_vm
from sterna.sim.libvirt.hypervisor import SimHypervisor
from sterna.sim.world.things import Definition
from tests.asking import to_check
from tests.narrowing import not_none
from tests.saga.fleet import SimFleet
from tests.saga.playing import run

STEPS = [step.name for step in (*DESTINATION.until_pivot, *SOURCE.until_pivot) if step.name != "copy"]
MIXED = (OVS, HYBRID, BRIDGE, MACVTAP)


def mixed(fleet: SimFleet) -> str:
    return add_vm(
        fleet.world, "host1", "vm1", disks=("shared",), plugs=(*MIXED, f"{MACVTAP}:{PASSTHROUGH}", HOSTDEV)
    )


def plugged(fleet: SimFleet, host: str) -> set[str]:
    """The devices of guests on a host."""
    here = fleet.world.hosts[host]
    return here.taps | here.links | set(here.ports)


@pytest.mark.parametrize(
    "words", ["other: user", "other: bridge br-int with virtualport 802.1Qbg", "other: ethernet"]
)
async def test_a_nic_that_no_host_can_plug_is_the_only_reason(words: str) -> None:
    """It is described in words, which the destination must not take for a forged message."""

    async def scenario(fleet: SimFleet) -> None:
        vm = add_vm(fleet.world, "host1", "vm1", disks=("shared",))
        domain = fleet.world.hosts["host1"].domains[vm]
        (nic,) = not_none(domain.live).nics
        domain.live = replace(not_none(domain.live), nics=(nic.model_copy(update={"plug": words}),))
        answer = await fleet.client.call("host1", "check_migration", to_check(vm, "host2"))
        assert [r["code"] for r in answer["refusals"]] == ["nic-unsupported"], answer["refusals"]

    await run(scenario)


async def test_there_and_back_in_one_piece() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = mixed(fleet)
        for _ in range(2):
            for here, there in (("host1", "host2"), ("host2", "host1")):
                await fleet.start(vm, to=there, source=here)
                assert await fleet.ended(here) is Status.COMPLETED
                assert fleet.world.running(vm) == [there]
                assert not plugged(fleet, here)
                live = fleet.world.hosts[there].domains[vm].live
                assert live is not None
                assert [n.plug for n in live.nics] == [*MIXED, MACVTAP, HOSTDEV]
                assert [p.mode for p in fleet.world.hosts[there].on_parent("phys1")] == [PASSTHROUGH]
                assert {fleet.world.learnt[n.mac] for n in live.nics} == {there}

    await run(scenario)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("action", ["permanent", "kill"])
@pytest.mark.parametrize("step", STEPS)
async def test_a_failure_or_a_death_at_a_step_leaves_every_nic_as_it_was(
    step: str, moment: str, action: str
) -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = mixed(fleet)
        before = fleet.snapshots()
        side = "host2" if step in {s.name for s in DESTINATION.until_pivot} else "host1"
        fleet.agents[side].rules = [(step, moment, action)]
        if action == "kill":
            fleet.agents["host1"].rules.append(("copy", "before", "permanent"))
        await fleet.start(vm)
        assert await fleet.ended() is Status.FAILED
        assert fleet.agents[side].applied
        assert fleet.snapshots() == before

    await run(scenario)


async def test_a_guest_that_stops_keeps_what_libvirt_needs_to_start_it_again() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = mixed(fleet)
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        there = fleet.world.hosts["host2"]
        fleet.world.shut_down_guest(vm)
        await fleet.clock.sleep(60)
        assert not there.taps
        assert {name[:3] for name in plugged(fleet, "host2")} == {"qbr", "qvb", "qvo"}
        fleet.world.start("host2", vm)
        await fleet.start(vm, to="host1", source="host2")
        assert await fleet.ended("host2") is Status.COMPLETED
        assert not plugged(fleet, "host2")

    await run(scenario)


async def test_a_guest_that_is_saved_leaves_nothing_and_is_restored_with_what_libvirt_makes() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = add_vm(fleet.world, "host1", "mixed", plugs=(OVS, BRIDGE))
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        there = fleet.world.hosts["host2"]
        qemu.end(fleet.world, there, there.domains[vm], reason="saved", event="stopped", detail="saved")
        assert not plugged(fleet, "host2")
        answer = await fleet.client.call("host2", "audit", {"others": ["host1"], "repair": True})
        assert answer["leftovers"] == []

    await run(scenario)


async def test_a_guest_that_is_started_again_at_once_is_on_the_network_once() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = add_vm(fleet.world, "host1", "mixed", plugs=(OVS, BRIDGE))
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        there = fleet.world.hosts["host2"]
        ahead = set(there.taps)
        fleet.world.shut_down_guest(vm)
        fleet.world.start("host2", vm)  # virsh destroy; virsh start
        assert not ahead & set(there.taps) and len(there.taps) == 2
        await fleet.clock.sleep(60)
        assert len(there.taps) == 2
        await fleet.start(vm, to="host1", source="host2")
        assert await fleet.ended("host2") is Status.COMPLETED
        assert not plugged(fleet, "host2")

    await run(scenario)


@pytest.mark.parametrize("used", [False, True])
async def test_a_port_that_a_power_cut_left_goes_unless_the_guest_uses_it_again(used: bool) -> None:
    """The switch remembers its ports. A guest whose definition names the device comes back into the same one."""

    async def scenario(fleet: SimFleet) -> None:
        vm = add_vm(fleet.world, "host1", "mixed", plugs=(OVS,))
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        there = fleet.world.hosts["host2"]
        ((name, port),) = there.ports.items()
        fleet.world.shut_down_guest(vm)
        fleet.world.put_port("host2", port)
        domain = there.domains[vm]
        if used:
            assert domain.inactive is not None
            (nic,) = domain.inactive.nics
            domain.inactive = replace(domain.inactive, nics=(nic.model_copy(update={"device": name}),))
        fleet.world.start("host2", vm)
        await fleet.clock.sleep(60)
        assert (name in there.ports) is used
        assert len(there.taps) == 1

    await run(scenario)


async def test_every_nics_reason_at_once() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = mixed(fleet)
        there = fleet.world.hosts["host2"]
        there.bridges.clear()
        there.linux_bridges.clear()
        there.parents.remove("phys0")
        add_vm(fleet.world, "host2", "other", plugs=(f"{MACVTAP}:{PASSTHROUGH}",))
        before = fleet.snapshots()
        with pytest.raises(Refused) as refused:
            await fleet.start(vm)
        codes = [r.code for r in refused.value.refusals]
        assert sorted(codes) == ["bridge-missing"] * 3 + ["parent-busy", "parent-missing"]
        assert all(r.fix and r.message.startswith("host2: ") for r in refused.value.refusals)
        assert fleet.snapshots() == before

    await run(scenario)


async def test_a_guest_that_does_not_let_go_of_a_device_stays_with_all_of_them() -> None:
    async def holds_on(hypervisor: SimHypervisor, uuid: str, nic: Nic) -> None:
        raise Temporary(f"the guest does not release NIC {nic.mac}")

    async def scenario(fleet: SimFleet) -> None:
        vm = mixed(fleet)
        before = fleet.snapshots()
        with patch.object(SimHypervisor, "detach_nic", holds_on):
            await fleet.start(vm)
            assert await fleet.ended() is Status.FAILED
        turned = fleet.agents["host1"].history(fleet.migration).turned_back
        assert turned is not None and "does not release" in turned["error"]["message"]
        assert fleet.snapshots() == before
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED

    await run(scenario)


async def test_a_parent_taken_after_the_check_turns_it_back() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = mixed(fleet)
        before = fleet.snapshots()

        def take(change: object) -> None:
            there = fleet.world.hosts["host2"]
            if there.taps and "phys1" in there.parents:
                there.parents.remove("phys1")

        fleet.world.watch(take)
        await fleet.start(vm)
        assert await fleet.ended() is Status.FAILED
        assert fleet.snapshots() == before

    await run(scenario)


def give(fleet: SimFleet, vm: str, *nics: Nic) -> None:
    """More NICs in the definition of a guest that runs on host1."""
    domain = fleet.world.hosts["host1"].domains[vm]
    assert isinstance(domain.live, Definition)
    domain.live = replace(domain.live, nics=(*domain.live.nics, *nics))


async def test_two_nics_with_one_mac_are_refused() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = add_vm(fleet.world, "host1", "vm1", plugs=(OVS, BRIDGE))
        here = fleet.world.hosts["host1"].domains[vm].live
        assert isinstance(here, Definition)
        give(fleet, vm, here.nics[1].model_copy(update={"mac": here.nics[0].mac.upper()}))
        with pytest.raises(Refused) as refused:
            await fleet.start(vm)
        (refusal,) = [r for r in refused.value.refusals if r.code == "nic-mac-twice"]
        assert refusal.message == f"2 NICs have the MAC {here.nics[0].mac}: one would be plugged as the other"
        assert "change the MAC address" in refusal.fix

    await run(scenario)


def test_a_standby_has_the_mac_of_its_virtual_function() -> None:
    function, standby = (Nic(mac="52:54:00:00:00:99", plug=plug) for plug in (HOSTDEV, OVS))
    assert twins([function, standby]) == []
    assert len(twins([function, standby, standby])) == 1


async def test_a_vhost_user_nic_is_refused_by_name_with_a_way_out() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = mixed(fleet)
        give(fleet, vm, Nic(mac="52:54:00:00:00:99", plug=VHOSTUSER, device="/run/vhu0"))
        with pytest.raises(Refused) as refused:
            await fleet.start(vm)
        (refusal,) = refused.value.refusals
        assert refusal.code == "nic-vhostuser"
        assert "/run/vhu0" in refusal.message
        assert "tap" in refusal.fix

    await run(scenario)


def functions(fleet: SimFleet, host: str) -> list[str]:
    return sorted(fleet.world.hosts[host].guests_functions())


async def test_a_virtual_function_is_chosen_by_what_is_free_and_two_guests_get_two() -> None:
    async def scenario(fleet: SimFleet) -> None:
        there = fleet.world.hosts["host2"]
        there.functions = {"0000:5e:10.1": "physnet2", "0000:5e:10.2": "physnet1", "0000:5e:10.3": "physnet1"}
        vms = [add_vm(fleet.world, "host1", f"vf{n}", plugs=(OVS, HOSTDEV)) for n in range(2)]
        migrations = []
        for vm in vms:
            await fleet.start(vm)
            migrations.append(fleet.migration)
        for fleet.migration in migrations:
            assert await fleet.ended() is Status.COMPLETED
        assert functions(fleet, "host2") == ["0000:5e:10.2", "0000:5e:10.3"]
        assert functions(fleet, "host1") == []
        for vm in vms:  # from cold, too
            inactive = there.domains[vm].inactive
            assert inactive is not None
            assert claimed(inactive.nics[1]) in there.functions
        third = add_vm(fleet.world, "host1", "vf2", plugs=(HOSTDEV,))
        with pytest.raises(Refused) as refused:
            await fleet.start(third)
        assert [r.code for r in refused.value.refusals] == ["vf-missing"]

    await run(scenario)


async def test_what_one_guest_was_promised_another_does_not_get() -> None:
    async def scenario(fleet: SimFleet) -> None:
        there = fleet.world.hosts["host2"]
        there.functions = {"0000:5e:10.2": "physnet1"}
        vms = [add_vm(fleet.world, "host1", f"vf{n}", plugs=(HOSTDEV,)) for n in range(2)]
        before = fleet.world.snapshot("host1")
        migrations = []
        for vm in vms:  # both are accepted: nobody has the function yet
            await fleet.start(vm)
            migrations.append(fleet.migration)
        ends = []
        for fleet.migration in migrations:
            ends.append(await fleet.ended())
        assert sorted(ends) == [Status.COMPLETED, Status.FAILED]
        assert functions(fleet, "host2") == ["0000:5e:10.2"]
        loser = vms[ends.index(Status.FAILED)]
        assert fleet.world.snapshot("host1").domains[loser] == before.domains[loser]

    await run(scenario)


async def test_an_agent_that_dies_with_the_function_taken_away_gives_it_back() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = mixed(fleet)
        before = fleet.snapshots()
        fleet.agents["host1"].rules = [
            ("detach-devices", "after", "kill"),
            ("set-migrating", "before", "permanent"),
        ]
        await fleet.start(vm)
        assert await fleet.ended() is Status.FAILED
        assert len(fleet.agents["host1"].applied) == 2
        assert fleet.snapshots() == before

    await run(scenario)


async def test_a_function_whose_network_nobody_has_named_is_refused_before_anything_begins() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = mixed(fleet)
        fleet.world.hosts["host1"].functions.clear()
        with pytest.raises(Refused) as refused:
            await fleet.start(vm)
        (refusal,) = refused.value.refusals
        assert refusal.code == "nic-network-unknown"
        assert "physical_networks" in refusal.fix

    await run(scenario)


@pytest.mark.parametrize("plug", [OVS, BRIDGE, MACVTAP])
async def test_a_nic_whose_device_is_not_found_is_refused_by_the_plan(plug: str) -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = add_vm(fleet.world, "host1", "vm1", disks=("shared",), plugs=(plug,))
        host = fleet.world.hosts["host1"]
        live = not_none(host.domains[vm].live)
        (nic,) = live.nics
        for device, port in list(host.ports.items()):
            if port.guest_mac == nic.mac.lower():
                del host.ports[device]
        answer = await fleet.client.call("host1", "check_migration", to_check(vm, "host2"))
        (refusal,) = answer["refusals"]
        assert refusal["code"] == "nic-not-plugged"
        assert nic.mac in refusal["message"] and (nic.bridge or nic.parent or "?") in refusal["message"]
        with pytest.raises(Refused):
            await fleet.start(vm)

    await run(scenario)


@pytest.mark.parametrize(
    ("tag", "libvirt", "codes"),
    [(7, 11_000_000, []), (7, 10_010_000, ["bridge-vlan"]), (None, 11_000_000, ["bridge-vlan"])],
)
async def test_a_vlan_on_a_linux_bridge_needs_a_filter_here_and_libvirt_11_there(
    tag: int | None, libvirt: int, codes: list[str]
) -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = add_vm(fleet.world, "host1", "vm1", disks=("shared",), plugs=(BRIDGE,))
        here, fleet.world.hosts["host2"].libvirt_version = fleet.world.hosts["host1"], libvirt
        live = not_none(here.domains[vm].live)
        (nic,) = live.nics
        here.domains[vm].live = replace(live, nics=(nic.model_copy(update={"vlan": 7}),))
        here.ports = {device: replace(port, tag=tag) for device, port in here.ports.items()}
        answer = await fleet.client.call("host1", "check_migration", to_check(vm, "host2"))
        assert [r["code"] for r in answer["refusals"]] == codes, answer["refusals"]

    await run(scenario)
