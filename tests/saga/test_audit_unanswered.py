"""`sterna audit` where something does not answer: it is said, and hides nothing else."""

from __future__ import annotations

import asyncio

import pytest

from sterna.controller.controller import Controller
from sterna.domain.audit import Safety
from sterna.domain.errors import Temporary, Unreachable
from sterna.domain.model import Disk, Observation, Vm
from sterna.ports.vif import MADE_BY
from sterna.sim.libvirt import guests
from sterna.sim.libvirt.hypervisor import SimHypervisor
from sterna.sim.ports.volumes import SimIscsiVolumes
from sterna.sim.world.things import SimPort
from tests.saga.controlled import Play
from tests.saga.fleet import SimFleet
from tests.saga.leftovers import plant_files, plant_tap, plant_token, there_and_back


async def test_a_host_whose_libvirtd_is_away_is_not_one_that_lacks_the_vm(play: Play) -> None:
    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        vm = fleet.vm()
        await there_and_back(fleet, vm)
        plant_files(fleet, "host2", vm)
        fleet.world.hosts["host1"].libvirtd_up = False
        found = [f for f in (await controller.audits.audit("host2")).leftovers if f.kind == "files"]
        assert [f.safety for f in found] == [Safety.CANNOT_TELL], found
        assert "remove" not in found[0].repair

    await play(scenario)


async def test_a_guest_that_cannot_be_looked_at_is_said_and_hides_no_other(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        vm, hung = fleet.vm(), guests.add_vm(fleet.world, "host2", "hung", disks=("file",))
        await there_and_back(fleet, vm)
        plant_tap(fleet, "host2", hung)
        ids = {"iface-id": "q", "attached-mac": "52:54:00:00:00:02", "vm-uuid": vm} | dict(MADE_BY)
        fleet.world.add_port("host2", SimPort("tapother", "br-int", external_ids=ids))
        place = plant_token(fleet, "host2", vm)
        real = SimHypervisor.observe, SimHypervisor.vm

        async def observe(self: SimHypervisor, uuid: str) -> Observation:
            if uuid == hung:
                raise Temporary("QEMU does not answer")
            return await real[0](self, uuid)

        async def details(self: SimHypervisor, name: str) -> Vm:
            if name == hung:
                raise Temporary("QEMU does not answer")
            return await real[1](self, name)

        with monkeypatch.context() as patch:
            patch.setattr(SimHypervisor, "observe", observe)
            patch.setattr(SimHypervisor, "vm", details)
            found = await controller.audits.audit("host2")
            listed = {(f.kind, f.subject) for f in found.leftovers}
            assert listed == {
                ("tap", "tapother"), ("token", place), ("not-looked-at", "tapleft"), ("not-looked-at", "hung")
            }  # fmt: skip
            assert not found.clean
            why = {f.subject: f.why for f in found.leftovers if f.kind == "not-looked-at"}
            assert why["tapleft"] == "taps were not searched: QEMU does not answer"
            repaired = await controller.audits.audit("host2", repair=True)
            done = {f.subject: f.done for f in repaired.leftovers}
            assert (done["tapother"], done[place], done["tapleft"]) == ("done", "done", "left alone")
        assert [f.kind for f in (await controller.audits.audit("host2")).leftovers] == []

    await play(scenario)


async def test_a_dead_file_system_hides_nothing_else_and_every_host_answers_in_time(play: Play) -> None:
    """Before the command line leaves (120 s), however many paths are there, and on however many hosts."""

    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        vm = fleet.vm()
        await there_and_back(fleet, vm)
        for number in range(30):
            guests.add_vm(fleet.world, "host1", f"silent{number}", disks=("file",))
            guests.add_vm(fleet.world, "host2", f"silent-too{number}", disks=("file",))
        made = plant_files(fleet, "host2", vm)
        plant_tap(fleet, "host2", vm)
        for there in fleet.world.hosts.values():
            there.silent.add("/srv/shared")
        began_ms = fleet.clock.monotonic_ms()
        found = await controller.audits.audit()
        assert fleet.clock.monotonic_ms() - began_ms < 100_000
        assert found.silent == () and found.complete and not found.clean
        listed = {(f.host, f.kind, f.subject) for f in found.leftovers if f.kind != "not-looked-at"}
        assert listed == {("host2", "files", made.files[0]), ("host2", "tap", "tapleft")}
        unseen = {(f.host, f.subject) for f in found.leftovers if f.kind == "not-looked-at"}
        for host in ("host1", "host2"):
            domains = fleet.world.hosts[host].domains.values()
            paths = {d.path for domain in domains for d in domain.definition.disks if d.path}
            assert {(host, path) for path in paths if path.startswith("/srv/shared")} <= unseen
        assert all(f.why for f in found.leftovers)

    await play(scenario)


async def test_a_question_that_never_ends_is_one_of_many_on_every_host_at_once(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is that hangs: all the rest is told, by an agent before its caller leaves."""

    async def never(*_: object) -> bool:
        await asyncio.Event().wait()
        raise AssertionError("never")

    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        vm = fleet.vm()
        await there_and_back(fleet, vm)
        plant_tap(fleet, "host1", vm)
        plant_tap(fleet, "host2", vm)
        monkeypatch.setattr(SimIscsiVolumes, "admitted", never)
        monkeypatch.setattr(SimHypervisor, "unused_secrets", never)
        began_ms = fleet.clock.monotonic_ms()
        found = await controller.audits.audit()
        assert fleet.clock.monotonic_ms() - began_ms < 100_000
        assert found.silent == ()
        target = next(iter(fleet.world.iscsi.targets))
        listed = [(f.host, f.kind, f.subject) for f in found.leftovers]
        for host in ("host1", "host2"):
            assert (host, "not-looked-at", target) in listed
            assert (host, "not-looked-at", host) in listed  # its secrets
        assert ("host2", "tap", "tapleft") in listed
        plant_tap(fleet, "host2", vm)
        place = plant_token(fleet, "host2", vm)
        repaired = await controller.audits.audit("host2", repair=True)
        done = {f.subject: f.done for f in repaired.leftovers}
        assert (done["tapleft"], done[place], done[target]) == ("done", "done", "left alone")
        assert repaired.silent == ()

    await play(scenario)


async def test_a_question_that_several_looks_share_and_that_never_ends_hides_nothing_else(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which volumes the guests here use is asked once for all admissions."""

    async def never(self: SimHypervisor, uuid: str) -> Vm:
        await asyncio.Event().wait()
        raise AssertionError("never")

    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        vm = guests.add_vm(fleet.world, "host1", "tern", disks=("iscsi", "iscsi"))
        await there_and_back(fleet, vm)
        guests.add_vm(fleet.world, "host2", "gull")
        targets = sorted(fleet.world.iscsi.targets)
        for target in targets:
            fleet.world.admit(target, fleet.world.hosts["host2"].initiator)
        monkeypatch.setattr(SimHypervisor, "vm", never)
        found = await controller.audits.audit("host2")
        listed = [(f.kind, f.subject) for f in found.leftovers]
        assert found.silent == ()
        assert {("not-looked-at", target) for target in targets} <= set(listed)
        assert not [task for task in asyncio.all_tasks() if "volumes_in_use" in repr(task.get_coro())]

    await play(scenario)


async def test_a_volume_whose_target_does_not_answer_hides_no_other_admission(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        vm = guests.add_vm(fleet.world, "host1", "tern", disks=("iscsi", "iscsi"))
        await there_and_back(fleet, vm)
        away, left = sorted(fleet.world.iscsi.targets)
        for target in (away, left):
            fleet.world.admit(target, fleet.world.hosts["host2"].initiator)
        real = SimIscsiVolumes.admitted

        async def admitted(self: SimIscsiVolumes, disk: Disk) -> bool:
            if disk.iscsi is not None and disk.iscsi.target == away:
                raise Unreachable("the target does not answer")
            return await real(self, disk)

        monkeypatch.setattr(SimIscsiVolumes, "admitted", admitted)
        found = await controller.audits.audit("host2")
        assert [(f.kind, f.subject) for f in found.leftovers] == [("not-looked-at", away), ("admission", left)]

    await play(scenario)
