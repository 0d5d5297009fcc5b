"""`sterna audit` over real agents on simulated hosts: each kind of leftover planted, found, and repaired; no other
thing touched."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from sterna.controller.controller import Controller
from sterna.domain.audit import Leftover, Safety
from sterna.domain.errors import Temporary, Unreachable
from sterna.domain.files import Created
from sterna.domain.journal import Kind, Migration, Role
from sterna.domain.model import Disk, GuestState, Observation, Vm
from sterna.domain.status import Status
from sterna.ports.records import Envelope
from sterna.ports.vif import MADE_BY
from sterna.sim.libvirt import life
from sterna.sim.libvirt.hypervisor import SimHypervisor
from sterna.sim.ports.volumes import SimIscsiVolumes
from sterna.sim.world.things import Change, SimDomain, SimFile, SimPort
from tests.saga.controlled import Play, started
from tests.saga.fleet import SimFleet
from tests.saga.losses import power_back, power_cut


def kinds(found: tuple[Leftover, ...]) -> list[tuple[str, str]]:
    return sorted((f.host, f.kind) for f in found)


async def there_and_back(fleet: SimFleet, vm: str) -> None:
    """The VM has been on host2, whose journal therefore knows its volumes."""
    for source, to in (("host1", "host2"), ("host2", "host1")):
        await fleet.start(vm, to=to, source=source)
        assert await fleet.ended(source) is Status.COMPLETED


def plant_tap(fleet: SimFleet, host: str, vm: str) -> None:
    ids = {"iface-id": "p", "attached-mac": "52:54:00:00:00:01", "vm-uuid": vm} | dict(MADE_BY)
    fleet.world.add_port(host, SimPort("tapleft", "br-int", external_ids=ids))


def plant_definition(fleet: SimFleet, host: str, vm: str) -> None:
    running = fleet.world.hosts["host1"].domains[vm]
    domain = SimDomain(uuid=vm, inactive=running.inactive, reason="unknown")
    fleet.world.hosts[host].domains[vm] = domain


def plant_incoming(fleet: SimFleet, host: str, vm: str) -> None:
    running = fleet.world.hosts["host1"].domains[vm]
    live = replace(running.definition, disks=(), nics=())
    domain = SimDomain(uuid=vm, live=live, state=GuestState.PAUSED, reason="incoming")
    fleet.world.hosts[host].domains[vm] = domain


def plant_files(fleet: SimFleet, host: str, vm: str) -> Created:
    """A half that was given up, not undone: in the journal P8's intent, no R7."""
    folder = f"{fleet.world.hosts[host].instances_dir}/{vm}"
    made = Created(directories=(folder,), files=(f"{folder}/tern-vdb.img",))
    journal = fleet.agents[host].journal
    known = Migration(
        id="00000000-0000-4000-8000-0000000000aa", epoch=99, vm_uuid=vm, vm_name="tern",
        source="host1", destination=host,
    )  # fmt: skip
    journal.accept(known, Role.DESTINATION)
    journal.append(known.id, Kind.INTENT, row="P8", name="create-instance-directory", data=made.model_dump())
    journal.append(known.id, Kind.NOTE, name="abandoned")
    journal.append(known.id, Kind.CLOSED)
    fleet.world.make_directory(host, folder)
    fleet.world.put_file(host, made.files[0], SimFile(1, content="old"))
    return made


def plant_token(fleet: SimFleet, host: str, vm: str) -> str:
    """Of the migration that brought the VM back: host2 was its source."""
    (accepted,) = [e for e in fleet.agents[host].journal.settled("snapshot-volumes") if e.kind is Kind.INTENT]
    path = next(p for p in accepted.data["paths"] if p.startswith("/srv/shared"))
    place = f"{path.rpartition('/')[0]}/.sterna-{accepted.migration_id}-source"
    fleet.world.put_file(host, place, SimFile(1, content="x"))
    return place


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
        vm = life.add_vm(fleet.world, "host1", "tern", disks=("luks",))
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        assert (await controller.audits.audit()).clean
        there = fleet.world.hosts["host2"]
        life.kill_qemu(fleet.world, "host2", vm)
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
        assert left.done == "left alone: it has changed meanwhile"
        assert "tapleft" in fleet.world.hosts["host2"].taps and vm

    await play(scenario)


async def test_the_leftovers_of_a_dead_destination_that_came_back(play: Play) -> None:
    """The real story behind given-up files: it died at the switch-over, the source's copy was set running again."""

    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        vm = life.add_vm(fleet.world, "host1", "tern", disks=("local",))
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
        told = {f.kind: f for f in found.leftovers}
        assert "waiting for host2 to report R7; nothing new for" in told["migration"].why
        assert "declare-dead" in told["migration"].repair
        assert "until host2 is back" in told["cast"].why
        assert {f.safety for f in found.leftovers} == {Safety.WAITING} and found.clean
        assert await fleet.ended(limit_s=4000) is Status.FAILED
        assert not (await controller.audits.audit()).leftovers

    await play(scenario)


async def test_empty_instance_folders_are_listed_and_removed_on_both_hosts(play: Play) -> None:
    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        vm = life.add_vm(fleet.world, "host1", "tern", disks=("shared",))
        await there_and_back(fleet, vm)
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        assert (await controller.audits.audit()).clean, "the folder of a VM that is here is its own"
        life.kill_qemu(fleet.world, "host2", vm)
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
        life.kill_qemu(fleet.world, "host1", vm)
        await fleet.agents["host2"].kill()
        await fleet.clock.sleep(7)
        (found,) = (f for f in (await controller.audits.audit()).leftovers if f.kind == "definition")
        assert found.safety is Safety.CANNOT_TELL and "undefine" not in found.repair
        assert "may be the VM's only definition" in found.repair and "host2" in found.repair

    await play(scenario)


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
        vm, hung = fleet.vm(), life.add_vm(fleet.world, "host2", "hung", disks=("file",))
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
            told = {(f.kind, f.subject) for f in found.leftovers}
            assert told == {
                ("tap", "tapother"), ("token", place), ("not-looked-at", "tapleft"), ("not-looked-at", "hung")
            }  # fmt: skip
            assert not found.clean
            why = {f.subject: f.why for f in found.leftovers if f.kind == "not-looked-at"}
            assert why["tapleft"] == "taps cannot be looked for: QEMU does not answer"
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
            life.add_vm(fleet.world, "host1", f"silent{number}", disks=("file",))
            life.add_vm(fleet.world, "host2", f"silent-too{number}", disks=("file",))
        made = plant_files(fleet, "host2", vm)
        plant_tap(fleet, "host2", vm)
        for there in fleet.world.hosts.values():
            there.silent.add("/srv/shared")
        began_ms = fleet.clock.monotonic_ms()
        found = await controller.audits.audit()
        assert fleet.clock.monotonic_ms() - began_ms < 100_000
        assert found.silent == () and found.complete and not found.clean
        told = {(f.host, f.kind, f.subject) for f in found.leftovers if f.kind != "not-looked-at"}
        assert told == {("host2", "files", made.files[0]), ("host2", "tap", "tapleft")}
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
        told = [(f.host, f.kind, f.subject) for f in found.leftovers]
        for host in ("host1", "host2"):
            assert (host, "not-looked-at", target) in told
            assert (host, "not-looked-at", host) in told  # its secrets
        assert ("host2", "tap", "tapleft") in told
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
        vm = life.add_vm(fleet.world, "host1", "tern", disks=("iscsi", "iscsi"))
        await there_and_back(fleet, vm)
        life.add_vm(fleet.world, "host2", "gull")
        targets = sorted(fleet.world.iscsi.targets)
        for target in targets:
            fleet.world.admit(target, fleet.world.hosts["host2"].initiator)
        monkeypatch.setattr(SimHypervisor, "vm", never)
        found = await controller.audits.audit("host2")
        told = [(f.kind, f.subject) for f in found.leftovers]
        assert found.silent == ()
        assert {("not-looked-at", target) for target in targets} <= set(told)
        assert not [task for task in asyncio.all_tasks() if "volumes_in_use" in repr(task.get_coro())]

    await play(scenario)


async def test_a_volume_whose_target_does_not_answer_hides_no_other_admission(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        vm = life.add_vm(fleet.world, "host1", "tern", disks=("iscsi", "iscsi"))
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
