"""`declare-dead` through the controller: what an operator is told before, what the records say afterwards."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sterna.controller.controller import Controller
from sterna.domain.errors import NotFound, Refused
from sterna.domain.model import GuestState
from sterna.domain.status import Status
from sterna.ports.fleet import MigrationRecord
from sterna.sim.libvirt import guests
from tests.saga.controlled import Play, read, started
from tests.saga.fleet import SimFleet
from tests.saga.survivors import BIG


async def power_cut(fleet: SimFleet, *hosts: str) -> None:
    for host in hosts:
        await fleet.agents[host].kill()
        guests.power_off(fleet.world, host)


async def until(
    fleet: SimFleet, controller: Controller, holds: Callable[[MigrationRecord], bool], limit_s: float = 60.0
) -> MigrationRecord:
    """Look at the record of the migration, in virtual time, until `holds(record)`."""
    deadline = fleet.clock.monotonic_ms() + limit_s * 1000
    while True:
        record = await controller.fleet.migration(fleet.migration)
        if holds(record):
            return record
        assert fleet.clock.monotonic_ms() < deadline, record
        for host, agent in fleet.agents.items():
            if agent.alive:
                await controller.projector.pull(host)
        await fleet.clock.sleep(0.5)


async def refused(controller: Controller, host: str, *, fenced: bool) -> set[str]:
    with pytest.raises(Refused) as error:
        await controller.deaths.declare(host, fenced=fenced)
    assert all(r.fix for r in error.value.refusals)
    return {r.code for r in error.value.refusals}


async def copying(fleet: SimFleet) -> None:
    while "copy-started" not in fleet.agents["host1"].history(fleet.migration).notes:
        await fleet.clock.sleep(0.05)


async def test_a_source_that_is_declared_dead_and_comes_back(play: Play) -> None:
    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        vm = fleet.vm(**BIG)
        await started(fleet, controller)
        await copying(fleet)
        assert await refused(controller, "host1", fenced=False) == {"fencing-not-confirmed", "host-answers"}
        await power_cut(fleet, "host1")
        assert await refused(controller, "host1", fenced=True) == {"host-answers"}  # its last beacon is fresh
        await fleet.clock.sleep(10)
        assert await refused(controller, "host1", fenced=False) == {"fencing-not-confirmed"}
        planned = await controller.deaths.plan("host1")
        assert [(m.id, m.host, m.role) for m in planned.migrations] == [(fleet.migration, "host2", "destination")]
        assert "remove all that was prepared" in planned.migrations[0].will
        assert not (await controller.registry.host("host1")).dead
        await controller.deaths.declare("host1", fenced=True)
        record = await until(fleet, controller, lambda r: r.status.final)
        assert record.status is Status.FAILED
        assert "host1 was declared dead" in record.reason
        assert (await controller.registry.host("host1")).dead
        assert (await controller.inventory.find(vm)).migration_id is None
        await controller.deaths.declare("host1", fenced=True)  # again is nothing
        guests.power_on(fleet.world, "host1")
        await fleet.agents["host1"].start()
        await fleet.clock.sleep(30)
        host = await controller.registry.host("host1")
        assert host.up and not host.dead and host.dead_at and host.back_at
        record = await read(controller, fleet.migration)
        assert record.status is Status.FAILED and record.source_closed
        assert (await controller.deaths.take_back("host1")).dead_at == ""
        assert (await controller.inventory.find(vm)).state is GuestState.SHUTOFF

    await play(scenario)


async def test_the_record_of_a_guest_that_was_taken_over_is_not_reopened_by_its_returning_source(
    play: Play,
) -> None:
    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        fleet.vm()
        fleet.down_s = 10_000
        fleet.agents["host1"].rules = [("copy", "after", "kill")]
        await started(fleet, controller)
        while fleet.agents["host1"].alive:
            await fleet.clock.sleep(0.1)
        guests.power_off(fleet.world, "host1")
        await fleet.clock.sleep(10)
        await controller.deaths.declare("host1", fenced=True)
        record = await until(fleet, controller, lambda r: r.status.final)
        assert record.status is Status.COMPLETED and record.written_off
        seen = []
        guests.power_on(fleet.world, "host1")
        await fleet.agents["host1"].start()
        while not record.source_closed:
            record = await read(controller, fleet.migration)
            seen.append(record.status)
            await fleet.clock.sleep(0.1)
        assert set(seen) == {Status.COMPLETED}

    await play(scenario)


async def test_no_living_journal_knows_the_migration(play: Play) -> None:
    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        vm = fleet.vm()
        fleet.down_s = 10_000
        fleet.agents["host1"].rules = [("snapshot-volumes", "after", "kill")]
        await started(fleet, controller)
        while fleet.agents["host1"].alive:
            await fleet.clock.sleep(0.1)
        await fleet.clock.sleep(10)
        await controller.deaths.declare("host1", fenced=True)
        record = await until(fleet, controller, lambda r: r.status.final)
        assert record.status is Status.FAILED and "the guest was on host1 then" in record.reason
        assert (await controller.fleet.vms())[0].migration_id is None
        assert vm

    await play(scenario)


async def test_what_the_records_call_failed_does_not_go_on_when_its_source_is_back(play: Play) -> None:
    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        vm = fleet.vm(autostart=True)
        fleet.down_s = 10_000
        fleet.agents["host1"].rules = [("pre-live-migration", "before", "kill")]
        await started(fleet, controller)
        while fleet.agents["host1"].alive:
            await fleet.clock.sleep(0.1)
        guests.power_off(fleet.world, "host1")
        await fleet.clock.sleep(10)
        await controller.deaths.declare("host1", fenced=True)
        record = await until(fleet, controller, lambda r: r.status.final)
        assert record.status is Status.FAILED
        guests.power_on(fleet.world, "host1")  # and its libvirt starts the guest there
        await fleet.agents["host1"].start()
        assert await fleet.ended() is Status.FAILED
        assert fleet.world.running(vm) == ["host1"]
        assert (await read(controller, fleet.migration)).status is Status.FAILED
        assert not fleet.world.snapshot("host2").mentions(vm)
        await controller.deaths.take_back("host1")
        await started(fleet, controller)
        assert await fleet.ended() is Status.COMPLETED

    await play(scenario)


async def test_the_survivor_is_down_when_the_word_comes_and_is_told_later(play: Play) -> None:
    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        vm = fleet.vm(**BIG)
        empty = fleet.own("host2")
        await started(fleet, controller)
        await copying(fleet)
        await power_cut(fleet, "host1")
        await fleet.agents["host2"].kill()
        await fleet.clock.sleep(10)
        death = await controller.deaths.declare("host1", fenced=True)
        assert death.silent == ("host2",) and not death.migrations
        assert not (await controller.fleet.migration(fleet.migration)).status.final
        await fleet.agents["host2"].start()
        # the loop that tells again runs on real time: here it is made to look
        await fleet.clock.sleep(3)
        await controller.deaths.notify_again()
        record = await until(fleet, controller, lambda r: r.status.final)
        assert record.status is Status.FAILED
        assert fleet.own("host2") == empty and vm

    await play(scenario)


async def test_both_hosts_are_gone(play: Play) -> None:
    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        fleet.vm(**BIG)
        await started(fleet, controller)
        await copying(fleet)
        await power_cut(fleet, "host1", "host2")
        await fleet.clock.sleep(10)
        await controller.deaths.declare("host1", fenced=True)
        assert not (await controller.fleet.migration(fleet.migration)).status.final
        await controller.deaths.declare("host2", fenced=True)
        await controller.deaths.notify_again()
        record = await controller.fleet.migration(fleet.migration)
        assert record.status is Status.FAILED and "where the guest was is not known" in record.reason

    await play(scenario)


async def test_a_host_nobody_knows(play: Play) -> None:
    async def scenario(fleet: SimFleet, controller: Controller) -> None:
        with pytest.raises(NotFound):
            await controller.deaths.declare("host9", fenced=True)

    await play(scenario)
