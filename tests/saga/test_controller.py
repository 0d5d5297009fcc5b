"""The real controller over real agents on simulated hosts: what users are told is what happened."""

from __future__ import annotations

import asyncio
import re
from unittest.mock import patch

import pytest

from sterna.controller.background import GIVE_UP_AFTER_MS
from sterna.controller.controller import Controller
from sterna.controller.intents.request import MigrateRequest
from sterna.controller.reasons import VmBusy
from sterna.domain.errors import Conflict, Refused, Temporary
from sterna.domain.hosts import VmSummary
from sterna.domain.model import Disk, GuestState, Refusal, Vm
from sterna.domain.objective import Asked
from sterna.domain.status import Status
from sterna.sim.libvirt.guests import add_vm
from sterna.sim.libvirt.hypervisor import SimHypervisor
from sterna.sim.ports.volumes import SimSharedFiles
from tests.asking import to_start
from tests.saga.controlled import Play, read, started
from tests.saga.fleet import SimFleet

GOOD = "P1 P2 P3 P4 P5 P6 P7 P8 P9 P10 P11 P12 M1 M2 M3 M4 M5 F1 F2 F3 F4 F5 F6 F7 F8 F9 F10 F11"


async def test_a_host_whose_libvirt_hangs_holds_up_no_list(play: Play) -> None:
    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        add_vm(fleet.world, "host1", "tern")
        began_ms = fleet.clock.monotonic_ms()
        listing = await controller.inventory.vms()
        assert fleet.clock.monotonic_ms() - began_ms < 20_000
        assert [v.name for v in listing.vms] == ["tern"] and listing.silent == ("host2",)

    vms = SimHypervisor.vms

    async def hangs(self: SimHypervisor) -> list[VmSummary]:
        if self._host.name == "host2":
            await asyncio.Event().wait()
        return await vms(self)

    with patch.object(SimHypervisor, "vms", hangs):
        await play(scenario)


async def test_a_host_whose_libvirt_hangs_is_passed_over_in_a_minute(play: Play) -> None:
    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        fleet.vm()
        began_ms = fleet.clock.monotonic_ms()
        with pytest.raises(Refused, match="though its agent sends heartbeats"):  # there is no other
            await controller.migrate(MigrateRequest(vm="tern", destination=None))
        assert fleet.clock.monotonic_ms() - began_ms < 70_000

    check = SimHypervisor.check_incoming

    async def hangs(self: SimHypervisor, vm: Vm) -> list[Refusal]:
        if self._host.name == "host2":
            await asyncio.Event().wait()
        return await check(self, vm)

    with patch.object(SimHypervisor, "check_incoming", hangs):
        await play(scenario)


async def test_what_the_destination_cannot_look_at_is_named_and_its_agent_not_blamed(play: Play) -> None:
    why = "/mnt/dead/log: the file system does not answer"

    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        fleet.vm()
        plan = await controller.plan("tern", "host2", Asked())
        (blocker,) = plan.blockers
        assert blocker.code == "check-failed"
        assert blocker.message == f"host2 cannot be checked: {why}" and blocker.fix == "see to it"

    async def fails(self: SimHypervisor, vm: Vm) -> list[Refusal]:
        raise Temporary(why, fix="see to it")

    with patch.object(SimHypervisor, "check_incoming", fails):
        await play(scenario)


async def test_a_check_takes_as_long_as_its_slowest_disk(play: Play) -> None:
    """Who asks for it leaves after 60 s, and would blame the agent."""

    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        add_vm(fleet.world, "host1", "tern", disks=("shared",) * 8)
        plan = await controller.plan("tern", "host2", Asked())
        assert {b.code for b in plan.blockers} == {"volume-service-down"} and len(plan.blockers) == 8

    async def silent(self: SimSharedFiles, disk: Disk, source: str) -> list[Refusal]:
        await self._world.clock.sleep(10.0)
        return [Refusal(code="volume-service-down", message=f"disk {disk.target}: Cinder does not answer")]

    with patch.object(SimSharedFiles, "check", silent):
        await play(scenario)


async def test_a_plan_is_made_without_a_measurement_that_hangs(play: Play) -> None:
    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        fleet.vm()
        began_ms = fleet.clock.monotonic_ms()
        plan = await controller.plan("tern", "host2", Asked())
        assert plan.load is None and "no result" in plan.load_reason and plan.blockers == ()
        assert fleet.clock.monotonic_ms() - began_ms < 30_000

    async def hangs(self: SimHypervisor, uuid: str, seconds: int) -> None:
        await asyncio.Event().wait()

    with patch.object(SimHypervisor, "measure_load", hangs):
        await play(scenario)


async def test_a_request_repeated_while_the_first_is_checked_is_the_same_migration(play: Play) -> None:
    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        params = to_start(fleet.vm(), "host2")

        async def ask(after_s: float) -> str:
            await fleet.clock.sleep(after_s)
            return str((await fleet.client.call("host1", "start_migration", params))["migration"]["id"])

        assert list(await asyncio.gather(ask(0), ask(0.5))) == [params["id"], params["id"]]

    check, slowly = SimHypervisor.check_incoming, [1.0, 5.0]

    async def takes_a_second(self: SimHypervisor, vm: Vm) -> list[Refusal]:
        await self._world.clock.sleep(slowly.pop(0) if slowly else 0)
        return await check(self, vm)

    with patch.object(SimHypervisor, "check_incoming", takes_a_second):
        await play(scenario)


async def test_what_its_user_was_told_has_failed_is_never_accepted_afterwards(play: Play) -> None:
    goes_on = asyncio.Event()

    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        await controller.inventory.find(fleet.vm())
        began_ms = fleet.clock.monotonic_ms()
        record = await started(fleet, controller)
        assert "to confirm that" in record.reason
        assert fleet.clock.monotonic_ms() - began_ms <= 81_000
        await fleet.clock.sleep(100)
        await controller.follower.tidy()  # its own clock is asyncio's
        await fleet.clock.sleep(GIVE_UP_AFTER_MS / 1000 + 1)
        await controller.follower.tidy()
        assert (await controller.fleet.migration(record.id)).status is Status.FAILED
        goes_on.set()
        await fleet.clock.sleep(60)
        assert (await read(controller, record.id)).status is Status.FAILED
        assert fleet.agents["host1"].journal.get(record.id) is None
        assert [(v.host, v.migration_id) for v in await controller.fleet.vms()] == [("host1", None)]

    check = SimHypervisor.check_incoming

    async def hangs(self: SimHypervisor, vm: Vm) -> list[Refusal]:  # a shared mount, say: heartbeats go on
        await goes_on.wait()
        return await check(self, vm)

    with patch.object(SimHypervisor, "check_incoming", hangs):
        await play(scenario)


async def test_a_request_is_not_refused_while_the_same_one_is_still_being_checked(play: Play) -> None:
    goes_on = asyncio.Event()
    against: list[list[Refusal]] = [[], [Refusal(code="memory-short", message="host2 has no room")]]

    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        params = to_start(fleet.vm(), "host2")
        calls = [asyncio.create_task(fleet.client.call("host1", "start_migration", params)) for _ in range(2)]
        await fleet.clock.sleep(10)
        goes_on.set()
        assert [(await call)["repeated"] for call in calls] == [False, True]

    async def differs(self: SimHypervisor, vm: Vm) -> list[Refusal]:
        found = against.pop(0)
        if not found:
            await goes_on.wait()
        return found

    with patch.object(SimHypervisor, "check_incoming", differs):
        await play(scenario)


def drawn(diagram: str) -> set[str]:
    return set(re.findall(r" : (?:<color:red>)?([PMFR]\d+) ", diagram))


async def test_a_migration_is_followed_to_its_end(play: Play) -> None:
    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        vm = fleet.vm()
        record = await started(fleet, controller, to=None)
        assert record.migration.destination == "host2"
        with pytest.raises(VmBusy, match=record.id):
            await controller.migrate(MigrateRequest(vm="tern"))
        await fleet.ended()
        record = await read(controller, record.id)
        assert record.migration.epoch == 1 and record.migration.source_address  # as the source's journal has it
        assert record.status is Status.COMPLETED and record.progress.percent == 100
        assert record.source_closed and record.destination_closed
        found = await controller.inventory.find(vm)
        assert (found.host, found.state, found.migration_id) == ("host2", GuestState.RUNNING, None)
        report = await controller.report(record)
        assert report.total_ms and report.downtime_ms is not None and report.bytes_memory
        assert [p.status for p in report.phases] == ["queued", "preparing", "migrating", "post-migrating"]
        assert drawn(await controller.diagram(record.id)) == set(GOOD.split())
        with pytest.raises(Conflict, match="already on host2"):
            await controller.abort(record.id)
        await started(fleet, controller, to="host1")  # and back at once
        await fleet.ended("host2")
        assert (await read(controller, fleet.migration)).status is Status.COMPLETED

    await play(scenario)


async def test_a_forced_failure_is_told_as_it_was(play: Play) -> None:
    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        fleet.vm()
        fleet.agents["host2"].rules = [("connect-volumes", "after", "permanent")]
        record = await started(fleet, controller)
        await fleet.ended()
        record = await read(controller, record.id)
        assert record.status is Status.FAILED and "forced at connect-volumes" in record.reason
        assert record.error is not None and "forced at connect-volumes" in record.error["message"]
        diagram = await controller.diagram(record.id)
        assert {"P9", "R0", "R1", "R2", "R3", "R4", "R5", "R6", "R7", "R8"} <= drawn(diagram)
        assert not {"P10", "M1", "M4", "F1"} & drawn(diagram)
        assert "dlibvirt -[#red]> dlibvirt : <color:red>P9" in diagram
        assert (await controller.inventory.find("tern")).migration_id is None

    await play(scenario)


async def test_a_source_agent_that_dies_is_told_too(play: Play) -> None:
    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        fleet.vm()
        fleet.agents["host1"].rules = [("copy", "after", "kill")]
        record = await started(fleet, controller)
        await fleet.ended()
        record = await read(controller, record.id)
        assert record.status is Status.COMPLETED
        report = await controller.report(record)
        assert report.total_ms is None and "restarted" in report.total_reason
        assert "the agent was restarted" in await controller.diagram(record.id)

    await play(scenario)


async def test_an_abort_is_carried_out(play: Play) -> None:
    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        fleet.vm()

        async def abort() -> None:  # it may come so far before whoever asked for it has its answer
            await controller.abort(fleet.agents["host1"].journal.open()[0][0].id)

        fleet.agents["host1"].rules = [("set-migrating", "before", "abort")]
        fleet.abort = abort  # type: ignore[method-assign,assignment]
        record = await started(fleet, controller)
        await fleet.ended()
        assert (await read(controller, record.id)).status is Status.CANCELLED

    await play(scenario)


async def test_what_both_agents_have_against_it_is_told_at_once(play: Play) -> None:
    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        fleet.vm()
        await controller.registry.set_maintenance("host2", True)
        with pytest.raises(Refused) as refused:
            await controller.migrate(MigrateRequest(vm="tern", destination="host2"))
        assert [r.code for r in refused.value.refusals] == ["destination-in-maintenance"]
        with pytest.raises(Refused) as refused:
            await controller.migrate(MigrateRequest(vm="tern", destination="host1"))
        assert [r.code for r in refused.value.refusals] == ["same-host"]

    await play(scenario)


async def test_vms_with_many_disks_do_not_stop_the_reading_of_a_journal(play: Play) -> None:
    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        for number in range(7):
            vm = add_vm(fleet.world, "host1", f"tern{number}", disks=("iscsi",) * 40)
            await fleet.start(vm)
            assert await fleet.ended() is Status.COMPLETED
        for host in ("host1", "host2"):  # as a controller does that was away, or whose database is new
            await controller.fleet.reread(host)
            await controller.projector.pull(host)
            known = await controller.fleet.host(host)
            assert known.cursor == fleet.agents[host].journal.since(0, 10_000)[-1].seq

    await play(scenario)
