"""`sterna audit` over real agents on simulated hosts: each kind of leftover planted, found, and repaired; no other
thing touched."""

from __future__ import annotations

import asyncio

import pytest

from sterna.controller.controller import Controller
from sterna.domain.audit import Safety
from sterna.domain.model import GuestState, Observation
from sterna.domain.status import Status
from sterna.ports.records import Envelope
from sterna.sim.libvirt import guests
from sterna.sim.world.things import Change, SimFile
from tests.saga.controlled import Play, started
from tests.saga.fleet import SimFleet
from tests.saga.leftovers import (
    kinds,
    plant_definition,
    plant_files,
    plant_incoming,
    plant_tap,
    plant_token,
    there_and_back,
)
from tests.saga.losses import power_back, power_cut
from tests.saga.lying import lie


async def test_each_kind_is_found_and_exactly_that_is_repaired(play: Play) -> None:
    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        vm = fleet.vm()
        await there_and_back(fleet, vm)
        clean = fleet.snapshots()
        found = await controller.audits.audit()
        assert found.clean and not found.leftovers and not found.silent
        plant_tap(fleet, "host2", vm)
        plant_definition(fleet, "host2", vm)
        plant_token(fleet, "host2", vm)
        target = next(iter(fleet.world.iscsi.targets))
        fleet.world.admit(target, fleet.world.hosts["host2"].initiator)
        fleet.agents["host1"].journal.outbox_put(
            Envelope(id="x/R4", to="host9", sender="host1", method="rollback", migration_id="x", epoch=1)
        )
        planted = fleet.snapshots()
        found = await controller.audits.audit()
        # the definition still names the volume: nothing is withdrawn from under it
        expected = [("host1", "cast"), ("host2", "definition"), ("host2", "tap"), ("host2", "token")]
        assert kinds(found.leftovers) == expected
        assert not found.clean and fleet.snapshots() == planted
        assert all(f.why for f in found.leftovers)
        repaired = await controller.audits.audit("host2", repair=True)
        assert kinds(repaired.leftovers) == [
            ("host2", "admission"), ("host2", "definition"), ("host2", "tap"), ("host2", "token")
        ]  # fmt: skip
        assert {f.done for f in repaired.leftovers} == {"done"} and repaired.clean
        assert fleet.snapshots() == clean
        found = await controller.audits.audit()
        assert found.clean and kinds(found.leftovers) == [("host1", "cast")]
        assert fleet.world.running(vm) == ["host1"]

    await play(scenario)


async def test_a_secret_nobody_refers_to_is_sternas_own_or_left_alone(play: Play) -> None:
    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        vm = guests.add_vm(fleet.world, "host1", "tern", disks=("luks",))
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        assert (await controller.audits.audit()).clean
        there = fleet.world.hosts["host2"]
        guests.kill_qemu(fleet.world, "host2", vm)
        off = dict(there.secrets)
        assert (await controller.audits.audit("host2", repair=True)).clean
        assert there.secrets == off
        gone = there.domains.pop(vm)
        found = await controller.audits.audit("host2")
        assert kinds(found.leftovers) == [("host2", "folder"), ("host2", "secret")]
        assert {f.vm for f in found.leftovers} == {vm}
        there.domains[vm] = gone
        assert (await controller.audits.audit("host2", repair=True)).clean
        assert there.secrets == off
        del there.domains[vm]
        repaired = await controller.audits.audit("host2", repair=True)
        assert {f.done for f in repaired.leftovers} == {"done"} and repaired.clean
        assert there.secrets == {}
        assert len(fleet.world.hosts["host1"].secrets) == 1  # the operator's own

    await play(scenario)


async def test_an_incoming_guest_nobody_feeds_and_files_that_were_given_up(play: Play) -> None:
    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        vm = fleet.vm()
        await there_and_back(fleet, vm)
        clean = fleet.own("host2")
        made = plant_files(fleet, "host2", vm)
        found = await controller.audits.audit()
        assert kinds(found.leftovers) == [("host2", "files")]
        assert made.files[0] in found.leftovers[0].subject
        plant_incoming(fleet, "host2", vm)
        found = await controller.audits.audit()
        assert kinds(found.leftovers) == [("host2", "incoming-guest")]  # its files may be this guest's
        repaired = await controller.audits.audit(repair=True)
        assert kinds(repaired.leftovers) == [("host2", "files"), ("host2", "incoming-guest")]
        assert {f.done for f in repaired.leftovers} == {"done"}
        assert fleet.own("host2") == clean

    await play(scenario)


async def test_a_file_in_the_place_of_what_was_made_is_no_leftover(play: Play) -> None:
    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        vm = fleet.vm()
        await there_and_back(fleet, vm)
        made = plant_files(fleet, "host2", vm, identity="1:99")
        found = await controller.audits.audit(repair=True)
        assert ("host2", "files") not in kinds(found.leftovers)
        assert fleet.world.hosts["host2"].file(made.files[0]) is not None

    await play(scenario)


async def test_nothing_is_repaired_without_proof(play: Play) -> None:
    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        vm = fleet.vm()
        await there_and_back(fleet, vm)
        plant_files(fleet, "host2", vm)
        fleet.world.shut_down_guest(vm)
        (left,) = (await controller.audits.audit("host2", repair=True)).leftovers
        assert (left.kind, left.safety, left.done) == ("files", Safety.NEVER, "left alone")
        assert "last copy" in left.why
        await fleet.agents["host1"].kill()
        await fleet.clock.sleep(10)
        plant_definition(fleet, "host2", vm)
        planted = fleet.snapshots()
        found = await controller.audits.audit(repair=True)
        assert found.silent == ("host1",)
        assert {f.safety for f in found.leftovers} == {Safety.CANNOT_TELL}
        assert all("host1 cannot be asked" in f.why and f.done == "left alone" for f in found.leftovers)
        assert fleet.snapshots() == planted

    await play(scenario)


async def test_what_an_open_migration_owns_is_no_leftover(play: Play) -> None:
    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        fleet.vm(dirty_bytes_per_s=0, memory_bytes=8 << 30)
        await started(fleet, controller)
        while not fleet.agents["host1"].history(fleet.migration).closed:
            found = await controller.audits.audit(repair=True)
            assert not found.leftovers, found
            await fleet.clock.sleep(0.1)
        assert fleet.agents["host1"].history(fleet.migration).status == Status.COMPLETED

    await play(scenario)


async def test_a_tap_whose_guest_starts_between_the_look_and_the_repair_stays(play: Play) -> None:
    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        vm = fleet.vm()
        plant_tap(fleet, "host2", "00000000-0000-4000-8000-00000000dead")
        asked = asyncio.ensure_future(controller.audits.audit("host2", repair=True))
        port = fleet.world.hosts["host2"].ports["tapleft"]
        hypervisor = fleet.agents["host2"]._agent._host.hypervisor  # type: ignore[union-attr]
        observe, seen = hypervisor.observe, []

        async def observe_once(uuid: str) -> Observation:
            seen.append(uuid)
            found = await observe(uuid)
            if uuid == port.external_ids["vm-uuid"] and seen.count(uuid) > 1:
                return found.model_copy(update={"state": GuestState.RUNNING})
            return found

        hypervisor.observe = observe_once  # type: ignore[method-assign]
        (left,) = (await asked).leftovers
        assert left.done == "not removed: it has changed since"
        assert "tapleft" in fleet.world.hosts["host2"].taps and vm

    await play(scenario)


async def test_the_leftovers_of_a_dead_destination_that_came_back(play: Play) -> None:
    """The real story behind given-up files: it died at the switch-over, the source's copy was set running again."""

    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        vm = guests.add_vm(fleet.world, "host1", "tern", disks=("local",))
        empty = fleet.own("host2")
        arrived = asyncio.Event()

        def watch(change: Change) -> None:
            found = fleet.world.hosts["host2"].domains.get(vm)
            if found is not None and found.running:
                arrived.set()

        fleet.world.watch(watch)
        await fleet.start(vm)
        await arrived.wait()
        await power_cut(fleet, "host2")
        await fleet.clock.sleep(10)
        await controller.deaths.declare("host2", fenced=True)
        while not fleet.agents["host1"].history(fleet.migration).closed:
            await fleet.clock.sleep(0.5)
        await power_back(fleet, "host2")
        assert await fleet.ended() is Status.FAILED
        await fleet.clock.sleep(5)
        found = await controller.audits.audit()
        assert ("host2", "definition") in kinds(found.leftovers)
        repaired = await controller.audits.audit(repair=True)
        assert {f.done for f in repaired.leftovers} == {"done"}, repaired
        assert kinds(repaired.leftovers) == [("host2", "definition"), ("host2", "files")]
        assert fleet.own("host2").domains == empty.domains
        assert fleet.own("host2").files == empty.files
        assert fleet.world.running(vm) == ["host1"]

    await play(scenario)


async def test_what_is_open_for_long_is_told_with_what_it_waits_for(play: Play) -> None:
    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        fleet.vm()
        fleet.agents["host1"].rules = [("copy", "before", "permanent")]
        fleet.agents["host2"].rules = [("disconnect-volumes-here", "before", "kill")]
        fleet.down_s = 1300
        await started(fleet, controller)
        await fleet.clock.sleep(1200)
        found = await controller.audits.audit()
        assert found.silent == ("host2",)
        by_kind = {f.kind: f for f in found.leftovers}
        assert "waiting for host2 to report R7; nothing new for" in by_kind["migration"].why
        assert "declare-dead" in by_kind["migration"].repair
        assert "until host2 is back" in by_kind["cast"].why
        assert {f.safety for f in found.leftovers} == {Safety.WAITING} and found.clean
        assert await fleet.ended(limit_s=4000) is Status.FAILED
        assert not (await controller.audits.audit()).leftovers

    await play(scenario)


async def test_empty_instance_folders_are_listed_and_removed_on_both_hosts(play: Play) -> None:
    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        vm = guests.add_vm(fleet.world, "host1", "tern", disks=("shared",))
        await there_and_back(fleet, vm)
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        assert (await controller.audits.audit()).clean, "the folder of a VM that is here is its own"
        guests.kill_qemu(fleet.world, "host2", vm)
        del fleet.world.hosts["host2"].domains[vm]  # deleted by its owner
        left = {name: f"{h.instances_dir}/{vm}" for name, h in fleet.world.hosts.items()}
        fleet.world.make_directory("host1", left["host1"])
        fleet.world.put_file("host1", f"{left['host1']}/mine", SimFile(1, "raw", content="mine"))
        found = await controller.audits.audit()
        assert kinds(found.leftovers) == [("host2", "folder")], "what is not empty is somebody's"
        fleet.world.remove_file("host1", f"{left['host1']}/mine")
        found = await controller.audits.audit()
        assert [(f.kind, f.subject) for f in found.leftovers] == [("folder", path) for path in left.values()]
        assert {f.safety for f in found.leftovers} == {Safety.SAFE} and not found.clean
        assert (await controller.audits.audit(repair=True)).clean
        assert not any(fleet.world.hosts[name].directory_exists(path) for name, path in left.items())

    await play(scenario)


async def test_the_only_definition_is_never_to_be_undefined(play: Play) -> None:
    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        vm = fleet.vm()
        await there_and_back(fleet, vm)
        guests.kill_qemu(fleet.world, "host1", vm)
        await fleet.agents["host2"].kill()
        await fleet.clock.sleep(7)
        (found,) = (f for f in (await controller.audits.audit()).leftovers if f.kind == "definition")
        assert found.safety is Safety.CANNOT_TELL and "undefine" not in found.repair
        assert "may be the VM's only definition" in found.repair and "host2" in found.repair

    await play(scenario)


@pytest.mark.parametrize("moved", [True, False], ids=["came and stayed", "a failed migration"])
async def test_another_hosts_word_undefines_no_vm_that_stayed(play: Play, moved: bool) -> None:
    """It says that it runs the VM, which is off here: it may be one that was taken over."""

    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        vm = fleet.vm()
        at, liar = ("host2", "host1") if moved else ("host1", "host2")
        if not moved:
            fleet.agents["host1"].rules = [("copy", "before", "permanent")]
        await fleet.start(vm)
        assert await fleet.ended() is (Status.COMPLETED if moved else Status.FAILED)
        fleet.world.shut_down_guest(vm)
        runs = {"state": "running", "reason": "", "epoch": 2**19, "ran": True}
        lie(fleet, liar, "observe_guest", lambda answer: {"observation": runs})
        assert fleet.world.hosts[at].domains[vm].inactive is not None
        found = [f for f in (await controller.audits.audit(repair=True)).leftovers if f.kind == "definition"]
        assert [(f.safety, f.done) for f in found] == [(Safety.NEVER, "left alone")]
        assert f"{liar} says" in found[0].why
        assert fleet.world.hosts[at].domains[vm].inactive is not None

    await play(scenario)
