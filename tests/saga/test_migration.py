"""The whole protocol on simulated hosts: every step failed, killed or aborted, and the world compared."""

from __future__ import annotations

import pytest

from sterna.domain.errors import Conflict, Refused
from sterna.domain.journal import Kind
from sterna.domain.status import Status
from sterna.migration.flow import DESTINATION, SOURCE
from tests.saga.fleet import SimAgent, SimFleet
from tests.saga.playing import run
from tests.saga.steps import backward, forward

SOURCE_ROWS = ["P1", "P2", "P3", "P11", "P12", "M1", "M2", "M4", "M5", "F1", "F2", "F3", "F4", "F5", "F10", "F11"]
DESTINATION_ROWS = ["P4", "P5", "P6", "P7", "P8", "P9", "P10", "F6", "F7", "F8", "F9"]
ROLLBACK_ROWS = ["R0", "R1", "R2", "R3", "R4", "R8"]


def rows(agent: SimAgent, migration: str) -> set[str]:
    return {e.row for e in agent.journal.entries(migration) if e.kind in (Kind.DONE, Kind.NOTE)}


async def test_a_migration_completes_and_leaves_nothing_behind() -> None:
    async def scenario(fleet: SimFleet) -> None:
        empty = {name: fleet.own(name) for name in fleet.agents}
        vm = fleet.vm(autostart=True)
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        assert fleet.world.running(vm) == ["host2"]
        assert fleet.own("host1") == empty["host1"]
        assert set(SOURCE_ROWS) <= rows(fleet.agents["host1"], fleet.migration)
        assert set(DESTINATION_ROWS) <= rows(fleet.agents["host2"], fleet.migration)
        await fleet.start(vm, to="host1", source="host2")
        assert await fleet.ended("host2") is Status.COMPLETED
        assert fleet.world.running(vm) == ["host1"]
        assert fleet.own("host2") == empty["host2"]

    await run(scenario)


def before_pivot() -> list[tuple[str, str, str]]:
    cases = []
    for host, flow in (("host1", SOURCE), ("host2", DESTINATION)):
        for step in flow.until_pivot:
            moments = ("before",) if step.name == "copy" else ("before", "after")
            cases += [(host, step.name, moment) for moment in moments]
    return cases


@pytest.mark.parametrize(("host", "step", "moment"), before_pivot())
async def test_a_permanent_failure_before_the_pivot_leaves_everything_as_it_was(
    host: str, step: str, moment: str
) -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm(autostart=True)
        before = fleet.snapshots()
        fleet.agents[host].rules.append((step, moment, "permanent"))
        await fleet.start(vm)
        assert await fleet.ended() is Status.FAILED
        assert fleet.agents[host].applied
        assert fleet.world.running(vm) == ["host1"]
        assert fleet.snapshots() == before
        fleet.agents[host].rules.clear()
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED

    await run(scenario)


async def test_a_rollback_waits_for_the_network_agent_only_where_a_port_was_activated_early() -> None:
    """Else no agent wires it while it is marked as on its way, and the guest has it all the time."""

    async def scenario(fleet: SimFleet) -> None:
        source = fleet.agents["host1"]
        source.rules.append(("copy", "before", "permanent"))
        await fleet.start(fleet.vm())
        assert await fleet.ended() is Status.FAILED
        entries = [e for e in source.journal.entries(fleet.migration) if e.name == "give-bindings-back"]
        assert [e.kind for e in entries] == [Kind.INTENT, Kind.DONE]
        assert entries[1].mono_ms - entries[0].mono_ms < 1000

    await run(scenario)


@pytest.mark.parametrize(("host", "step", "moment"), before_pivot())
async def test_an_abort_before_the_pivot_leaves_everything_as_it_was(host: str, step: str, moment: str) -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm(autostart=True)
        before = fleet.snapshots()
        fleet.agents[host].rules.append((step, moment, "abort"))
        await fleet.start(vm)
        assert await fleet.ended() is Status.CANCELLED
        assert fleet.world.running(vm) == ["host1"]
        assert fleet.snapshots() == before

    await run(scenario)


@pytest.mark.parametrize(("host", "step", "moment"), forward())
async def test_an_agent_killed_at_any_step_goes_on_after_its_restart(host: str, step: str, moment: str) -> None:
    async def scenario(fleet: SimFleet) -> None:
        empty = {name: fleet.own(name) for name in fleet.agents}
        vm = fleet.vm(autostart=True)
        fleet.agents[host].rules.append((step, moment, "kill"))
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        assert fleet.agents[host].applied
        assert fleet.world.running(vm) == ["host2"]
        assert fleet.own("host1") == empty["host1"]

    await run(scenario)


@pytest.mark.parametrize(("host", "step", "moment"), backward())
async def test_an_agent_killed_while_rolling_back_goes_on_after_its_restart(
    host: str, step: str, moment: str
) -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm(autostart=True)
        before = fleet.snapshots()
        fleet.agents["host1"].rules.append(("copy", "before", "permanent"))
        fleet.agents[host].rules.append((step, moment, "kill"))
        await fleet.start(vm)
        assert await fleet.ended() is Status.FAILED
        assert fleet.agents[host].applied
        assert fleet.snapshots() == before

    await run(scenario)


async def test_while_memory_is_copied_the_source_agent_dies_and_joins_the_copy_again() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm(dirty_bytes_per_s=0, memory_bytes=8 << 30)
        await fleet.start(vm)
        source = fleet.agents["host1"]
        while "copy-started" not in source.history(fleet.migration).notes:
            await fleet.clock.sleep(0.05)
        await fleet.clock.sleep(1.0)
        await source.kill()
        await fleet.clock.sleep(1.0)
        await source.start()
        assert await fleet.ended() is Status.COMPLETED
        assert fleet.world.running(vm) == ["host2"]
        starts = [e for e in source.journal.entries(fleet.migration) if e.name == "copy-started"]
        assert len(starts) == 1

    await run(scenario)


async def test_the_source_agent_is_dead_until_long_after_the_guest_has_moved() -> None:
    async def scenario(fleet: SimFleet) -> None:
        empty = {name: fleet.own(name) for name in fleet.agents}
        vm = fleet.vm()
        await fleet.start(vm)
        source = fleet.agents["host1"]
        while "copy-started" not in source.history(fleet.migration).notes:
            await fleet.clock.sleep(0.05)
        await source.kill()
        await fleet.clock.sleep(300)
        assert fleet.world.running(vm) == ["host2"]
        await source.start()
        assert await fleet.ended() is Status.COMPLETED
        assert fleet.own("host1") == empty["host1"]

    await run(scenario)


async def test_an_abort_while_memory_is_copied() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm(dirty_bytes_per_s=0, memory_bytes=8 << 30)
        before = fleet.snapshots()
        await fleet.start(vm)
        while "copy-started" not in fleet.agents["host1"].history(fleet.migration).notes:
            await fleet.clock.sleep(0.05)
        await fleet.clock.sleep(1.0)
        await fleet.abort()
        assert await fleet.ended() is Status.CANCELLED
        assert fleet.snapshots() == before

    await run(scenario)


async def test_the_destination_is_dead_in_a_rollback_the_vm_is_free_and_the_debt_stays_open() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm()
        before = fleet.snapshots()
        source, destination = fleet.agents["host1"], fleet.agents["host2"]
        source.rules.append(("copy", "before", "permanent"))
        fleet.down_s = 120
        destination.rules.append(("disconnect-volumes-here", "before", "kill"))
        await fleet.start(vm)
        first = fleet.migration
        while not source.history(first).released:
            await fleet.clock.sleep(0.5)
        assert not destination.alive
        assert source.history(first).status == Status.ROLLING_BACK
        assert source.journal.holder(vm) is None
        assert await fleet.ended() is Status.FAILED
        assert fleet.snapshots() == before

    await run(scenario)


async def test_after_the_pivot_an_abort_is_a_conflict() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm()
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        with pytest.raises(Conflict, match="runs on host2 already"):
            await fleet.abort()

    await run(scenario)


async def test_the_same_id_twice_is_one_migration_and_another_id_is_a_conflict() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm(dirty_bytes_per_s=0, memory_bytes=8 << 30)
        first = await fleet.start(vm)
        again = await fleet.start(vm, migration=fleet.migration)
        assert again["repeated"]
        assert again["migration"] == first["migration"]
        mine = fleet.migration
        with pytest.raises(Conflict, match=mine):
            await fleet.start(vm)
        fleet.migration = mine
        assert await fleet.ended() is Status.COMPLETED

    await run(scenario)


async def test_every_reason_at_once_and_nothing_changed() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm()
        fleet.world.hosts["host2"].memory_bytes = 1 << 20
        del fleet.world.hosts["host2"].bridges["br-int"]
        before = fleet.snapshots()
        with pytest.raises(Refused) as refused:
            await fleet.start(vm)
        assert {r.code for r in refused.value.refusals} >= {"memory-short", "bridge-missing"}
        assert all(r.fix for r in refused.value.refusals)
        assert fleet.snapshots() == before

    await run(scenario)


async def test_the_tap_made_ahead_goes_when_its_guest_ends_and_not_before() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm()
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        host2 = fleet.world.hosts["host2"]
        await fleet.clock.sleep(60)
        assert len(host2.taps) == 1
        fleet.world.shut_down_guest(vm)
        await fleet.clock.sleep(60)
        assert not host2.taps
        assert not host2.ports

    await run(scenario)
