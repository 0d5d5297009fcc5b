"""Services know hosts by names of their own: two hosts with one name are one host to them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sterna.controller.controller import Controller
from sterna.domain.errors import Refused
from sterna.domain.hosts import HostFacts, namesake
from sterna.domain.status import Status

from .controlled import HoldingFleet, started
from .fleet import SimFleet
from .luns import names_the_lun


async def test_two_hosts_with_one_initiator_name_are_refused() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        hosts = fleet.world.hosts
        hosts["host2"].initiator = hosts["host1"].initiator  # one was cloned from the other
        with pytest.raises(Refused, match="initiator name") as refused:
            await fleet.start(fleet.vm())
        assert [r.code for r in refused.value.refusals] == ["initiator-shared"]
        assert "vdc" in refused.value.refusals[0].message and refused.value.refusals[0].fix
        assert not fleet.world.violations


async def test_it_is_the_running_guests_own_initiator_that_counts() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm, hosts = fleet.vm(), fleet.world.hosts
        hosts["host2"].initiator, hosts["host1"].initiator = hosts["host1"].initiator, "iqn.2026-11.org.sterna:new"
        with pytest.raises(Refused, match="initiator name"):
            await fleet.start(vm)


@pytest.mark.parametrize("flag", ["shareable", "read_only"])
async def test_a_volume_that_other_vms_of_the_host_may_use_is_not_taken_away_from_them(flag: str) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = fleet.vm()
        domain = fleet.world.hosts["host1"].domains[vm]
        assert domain.live is not None
        disks = tuple(d.model_copy(update={flag: True}) if d.iscsi else d for d in domain.live.disks)
        domain.live = replace(domain.live, disks=disks)
        with pytest.raises(Refused, match="several VMs") as refused:
            await fleet.start(vm)
        assert [r.code for r in refused.value.refusals] == ["volume-shared"]


@pytest.mark.parametrize("host", ["host1", "host2"])
async def test_a_volume_that_another_vm_of_either_host_names_is_refused(host: str) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = fleet.vm()
        names_the_lun(fleet, host, vm)
        with pytest.raises(Refused, match="rescue") as refused:
            await fleet.start(vm)
        assert [r.code for r in refused.value.refusals] == ["volume-shared"]
        assert host in refused.value.refusals[0].message and refused.value.refusals[0].fix


async def test_a_volume_that_another_vm_begins_to_name_is_not_taken_from_it() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm, targets = fleet.vm(), list[str]()
        fleet.agents["host1"].rules.append(
            ("interlock", "after", lambda: targets.append(names_the_lun(fleet, "host1", vm)))
        )
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        admitted = fleet.world.iscsi.targets[targets[0]].admitted
        assert {fleet.world.hosts[host].initiator for host in ("host1", "host2")} <= admitted
        entries = fleet.agents["host1"].journal.entries(fleet.migration)
        (said,) = (e.data["reason"] for e in entries if e.data.get("status") == Status.COMPLETED)
        assert "VM rescue" in said and "vdc" in said


async def test_a_rollback_does_not_take_a_volume_from_another_vm_of_the_destination() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm, targets = fleet.vm(), list[str]()
        source = fleet.agents["host1"]
        source.rules.append(("interlock", "after", lambda: targets.append(names_the_lun(fleet, "host2", vm))))
        source.rules.append(("copy", "before", "permanent"))
        await fleet.start(vm)
        assert await fleet.ended() is Status.FAILED
        assert fleet.world.hosts["host2"].initiator in fleet.world.iscsi.targets[targets[0]].admitted


async def test_two_hosts_with_one_name_at_the_network_service_are_refused() -> None:
    fleet = SimFleet()
    fleet.agents["host2"].settings["network_host"] = "host1"  # its settings were copied
    async with fleet, fleet.clock.auto():
        vm = fleet.vm()
        before = fleet.snapshots()
        with pytest.raises(Refused, match="network service") as refused:
            await fleet.start(vm)
        assert [r.code for r in refused.value.refusals] == ["network-host-shared"]
        assert fleet.snapshots() == before


@pytest.mark.parametrize("liar, moves_to", [("host1", "host2"), ("host2", "host2")])
async def test_a_host_that_calls_itself_as_a_third_one_is_refused(liar: str, moves_to: str, database: str) -> None:
    """It could bring VMs of that host: its ports and volumes would seem to come from there."""
    fleet = SimFleet(("host1", "host2", "host3"))
    fleet.agents[liar].settings["network_host"] = "host3"
    controller = Controller(HoldingFleet(database, fleet.clock), fleet.client, fleet.clock)

    async def scenario() -> None:
        async with fleet:
            await controller.start()
            await fleet.clock.sleep(2)
            fleet.vm()
            with pytest.raises(Refused) as refused:
                await started(fleet, controller, to=moves_to)
            named = [r for r in refused.value.refusals if r.code == "network-host-shared"]
            assert [liar in r.message and "host3" in r.message for r in named] == [True]
            await controller.stop()

    await fleet.clock.run(scenario())


FACTS = {"host_uuid": "u", "address": "10.0.0.1", "libvirt_version": 1, "qemu_version": 1, "cpus": 1}


@pytest.mark.parametrize(
    "names, alike",
    [
        ({"h1": "", "h2": "", "h3": ""}, {}),
        ({"h1": "h2", "h2": "", "h3": ""}, {"h1": "h2"}),
        ({"h1": "h2", "h2": "h2", "h3": ""}, {"h1": "h2"}),
        ({"h1": "h2", "h2": "n2", "h3": ""}, {}),
        ({"h1": "n", "h2": "n", "h3": ""}, {"h1": "h2", "h2": "h1"}),
        ({"h1": "n1", "h2": "n2", "h3": "h3"}, {}),
    ],
)
def test_who_has_the_right_to_a_name(names: dict[str, str], alike: dict[str, str]) -> None:
    free = {"memory_total_bytes": 1, "memory_free_bytes": 1}
    hosts = [HostFacts.model_validate({"name": n, "network_host": c} | FACTS | free) for n, c in names.items()]
    assert {name: other for name in names if (other := namesake(name, hosts))} == alike
    assert namesake("gone", hosts) == ""
