"""A host loses power for good in the middle of a migration, and an operator says so (ADR 7).

Whatever the survivor does then, the dead host's return must change nothing that was settled, and start nothing.
"""

from __future__ import annotations

import asyncio
from unittest.mock import patch

import pytest

from sterna.domain.entries.notes import PeerDeclared
from sterna.domain.model import GuestState
from sterna.domain.status import Status
from sterna.migration.context import Context
from sterna.sim.libvirt import guests, qemu
from sterna.sim.world.things import Change
from tests.narrowing import not_none
from tests.saga.fleet import SimFleet
from tests.saga.losses import closed, declare, domain, last_status, power_back, power_cut
from tests.saga.playing import run
from tests.saga.survivors import BIG, noted

# ------------------------------------------------------------ the source dies


async def test_the_source_dies_while_it_copies_the_destination_cleans_up_and_the_source_complies() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm(autostart=True, **BIG)
        empty = fleet.own("host2")
        await fleet.start(vm)
        await noted(fleet, "host1", "copy-started")
        await fleet.clock.sleep(1)
        await power_cut(fleet, "host1")
        await fleet.clock.sleep(600)
        assert not fleet.agents["host2"].history(fleet.migration).closed  # never on its own
        (planned,) = await declare(fleet, "host1", "host2", "fencing_plan")
        assert planned["will"].startswith("remove all that was prepared here")
        assert not fleet.agents["host2"].history(fleet.migration).notes.get(PeerDeclared.entry)
        await declare(fleet, "host1", "host2")
        await closed(fleet, "host2")
        status, reason = last_status(fleet.agents["host2"], fleet.migration)
        assert status == Status.FAILED
        assert "the guest was on host1" in reason
        assert fleet.own("host2") == empty
        await power_back(fleet, "host1")
        assert await fleet.ended() is Status.FAILED
        assert fleet.world.running(vm) == []
        assert not_none(domain(fleet, "host1", vm)).state is GuestState.SHUTOFF
        assert not not_none(domain(fleet, "host1", vm)).autostart  # by now it may run elsewhere
        assert fleet.agents["host2"].journal.outbox() == []

    await run(scenario)


@pytest.mark.parametrize("point", ["snapshot-volumes", "pre-live-migration", "network-vif-plugged"])
async def test_the_source_dies_while_it_prepares(point: str) -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm()
        empty = fleet.own("host2")
        fleet.down_s = 10_000
        fleet.agents["host1"].rules.append((point, "after", "kill"))
        await fleet.start(vm)
        while fleet.agents["host1"].alive:
            await fleet.clock.sleep(0.5)
        guests.power_off(fleet.world, "host1")
        await declare(fleet, "host1", "host2")
        if point != "snapshot-volumes":  # before that the destination never heard of it
            await closed(fleet, "host2")
            assert last_status(fleet.agents["host2"], fleet.migration)[0] == Status.FAILED
        assert fleet.own("host2") == empty
        await power_back(fleet, "host1")
        assert await fleet.ended() is Status.FAILED
        assert fleet.own("host2") == empty

    await run(scenario)


async def test_the_source_dies_when_the_guest_has_arrived_the_destination_finishes_alone() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm(autostart=True)
        fleet.down_s = 10_000
        fleet.agents["host1"].rules.append(("copy", "after", "kill"))
        await fleet.start(vm)
        while fleet.agents["host1"].alive:
            await fleet.clock.sleep(0.5)
        guests.power_off(fleet.world, "host1")
        await fleet.clock.sleep(600)
        assert not fleet.agents["host2"].history(fleet.migration).closed
        await declare(fleet, "host1", "host2")
        await closed(fleet, "host2")
        assert last_status(fleet.agents["host2"], fleet.migration)[0] == Status.COMPLETED
        assert fleet.world.running(vm) == ["host2"]
        assert not_none(domain(fleet, "host2", vm)).autostart
        # it lives on: it moves to a third host and back, with new epochs, before the first host returns
        for source, to in (("host2", "host3"), ("host3", "host2")):
            await fleet.start(vm, to=to, source=source)
            while not fleet.agents[source].history(fleet.migration).closed:
                await fleet.clock.sleep(0.5)
        fleet.migration = fleet.agents["host1"].journal.open()[0][0].id
        await power_back(fleet, "host1")
        assert await fleet.ended() is Status.COMPLETED
        assert domain(fleet, "host1", vm) is None
        assert fleet.world.running(vm) == ["host2"]
        assert fleet.agents["host2"].journal.outbox() == []

    await run(scenario, SimFleet(("host1", "host2", "host3")))


async def test_the_guest_arrived_and_ended_before_the_destination_was_asked() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm()
        fleet.down_s = 10_000
        fleet.agents["host1"].rules.append(("copy", "after", "kill"))
        await fleet.start(vm)
        while fleet.agents["host1"].alive:
            await fleet.clock.sleep(0.5)
        guests.power_off(fleet.world, "host1")
        fleet.world.shut_down_guest(vm)
        await declare(fleet, "host1", "host2")
        await closed(fleet, "host2")
        assert last_status(fleet.agents["host2"], fleet.migration)[0] == Status.COMPLETED
        assert not_none(domain(fleet, "host2", vm)).state is GuestState.SHUTOFF
        assert fleet.world.running(vm) == []

    await run(scenario)


async def test_the_survivors_agent_is_killed_at_every_step_of_ending_its_half_alone() -> None:
    """The declaration and the decision are in its journal."""
    for step in ("remove-configuration", "remove-vifs", "disconnect-volumes-here", "remove-instance-directory"):

        async def scenario(fleet: SimFleet, step: str = step) -> None:
            vm = fleet.vm(**BIG)
            empty = fleet.own("host2")
            await fleet.start(vm)
            await noted(fleet, "host1", "copy-started")
            await power_cut(fleet, "host1")
            fleet.agents["host2"].rules.append((step, "before", "kill"))
            await declare(fleet, "host1", "host2")
            await closed(fleet, "host2")
            assert fleet.agents["host2"].applied
            assert fleet.own("host2") == empty
            entries = fleet.agents["host2"].journal.entries(fleet.migration)
            assert [e.name for e in entries].count(PeerDeclared.entry) == 1

        await run(scenario)


async def test_its_own_libvirtd_is_down_when_the_word_comes() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm(**BIG)
        empty = fleet.own("host2")
        await fleet.start(vm)
        await noted(fleet, "host1", "copy-started")
        await power_cut(fleet, "host1")
        fleet.world.hosts["host2"].libvirtd_up = False
        (planned,) = await declare(fleet, "host1", "host2")
        assert planned["will"].startswith("wait: ")
        await fleet.clock.sleep(30)
        assert not fleet.agents["host2"].history(fleet.migration).closed
        fleet.world.hosts["host2"].libvirtd_up = True
        await closed(fleet, "host2")
        assert fleet.own("host2") == empty

    await run(scenario)


async def test_what_it_waits_for_cannot_be_noted_and_it_goes_on() -> None:
    """Nobody would begin again: the controller has notified this host."""

    async def scenario(fleet: SimFleet) -> None:
        await fleet.start(fleet.vm(**BIG))
        await noted(fleet, "host1", "copy-started")
        await power_cut(fleet, "host1")
        fleet.world.hosts["host2"].libvirtd_up = False
        await declare(fleet, "host1", "host2")
        with patch.object(Context, "note_change", side_effect=RuntimeError("a bug")) as noting:
            await fleet.clock.sleep(10)
        assert noting.call_count > 2
        fleet.world.hosts["host2"].libvirtd_up = True
        await closed(fleet, "host2")

    await run(scenario)


async def test_another_guest_of_this_uuid_runs_there_it_is_held_and_said() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = guests.add_vm(fleet.world, "host1", "tern", disks=("shared",))
        fleet.down_s = 10_000
        fleet.agents["host1"].rules.append(("network-vif-plugged", "after", "kill"))
        await fleet.start(vm)
        while fleet.agents["host1"].alive:
            await fleet.clock.sleep(0.5)
        old = not_none(domain(fleet, "host1", vm))
        guests.power_off(fleet.world, "host1")
        hosts = fleet.world.hosts
        hosts["host2"].domains[vm] = type(old)(uuid=vm, inactive=old.inactive)
        guests.start(fleet.world, "host2", vm)
        await declare(fleet, "host1", "host2")
        await fleet.clock.sleep(60)
        assert fleet.world.running(vm) == ["host2"]
        assert not fleet.agents["host2"].history(fleet.migration).closed
        assert (
            "this migration did not bring" in fleet.agents["host2"].history(fleet.migration).notes["waiting"]["why"]
        )

    await run(scenario)


# ------------------------------------------------------------ the destination dies


async def test_the_destination_dies_while_the_source_copies_it_ends_without_its_report() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm(autostart=True, **BIG)
        before = fleet.own("host1")
        await fleet.start(vm)
        await noted(fleet, "host1", "copy-started")
        await fleet.clock.sleep(1)
        await power_cut(fleet, "host2")
        await fleet.clock.sleep(600)
        source = fleet.agents["host1"]
        assert source.history(fleet.migration).status == Status.ROLLING_BACK
        await declare(fleet, "host2", "host1")
        await closed(fleet, "host1", 30)
        assert source.history(fleet.migration).status == Status.FAILED
        assert "host2 was declared dead" in last_status(source, fleet.migration)[1]
        assert fleet.own("host1") == before
        await power_back(fleet, "host2")
        assert await fleet.ended() is Status.FAILED
        assert not fleet.world.hosts["host2"].ports
        assert domain(fleet, "host2", vm) is None
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED

    await run(scenario)


async def test_the_destination_dies_with_the_guest_nothing_is_started_and_what_is_left_is_kept() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm(autostart=True)
        fleet.down_s = 10_000
        fleet.agents["host2"].rules.append(("activate-bindings", "before", "kill"))
        await fleet.start(vm)
        while fleet.agents["host2"].alive:
            await fleet.clock.sleep(0.1)
        guests.power_off(fleet.world, "host2")
        disks = {d.path for d in not_none(domain(fleet, "host1", vm)).definition.disks if d.path}
        await fleet.clock.sleep(600)
        assert not fleet.agents["host1"].history(fleet.migration).closed
        (planned,) = await declare(fleet, "host2", "host1")
        assert planned["will"].startswith("end it as completed, starting nothing")
        await closed(fleet, "host1")
        status, reason = last_status(fleet.agents["host1"], fleet.migration)
        assert status == Status.COMPLETED
        assert "the guest was on host2 when that host died" in reason
        assert fleet.world.running(vm) == []
        kept = not_none(domain(fleet, "host1", vm))
        assert kept.state is GuestState.SHUTOFF and not kept.autostart
        assert all(fleet.world.hosts["host1"].file(path) for path in disks)
        # the dead host is back: it has the newest disks, and must neither start it nor take its ports
        await power_back(fleet, "host2")
        assert await fleet.ended() is Status.COMPLETED
        there = not_none(domain(fleet, "host2", vm))
        assert there.state is GuestState.SHUTOFF and not there.autostart
        assert all(fleet.world.hosts["host2"].file(path) for path in disks)
        assert not fleet.world.hosts["host2"].taps
        assert fleet.world.running(vm) == []

    await run(scenario)


def at_the_switch_over(fleet: SimFleet, vm: str) -> asyncio.Event:
    """Set when the guest runs on the destination, before the source's libvirt has heard of it."""
    runs_there = asyncio.Event()

    def watch(change: Change) -> None:
        found = domain(fleet, "host2", vm)
        if change.host == "host2" and change.subject == vm and found is not None and found.running:
            runs_there.set()

    fleet.world.watch(watch)
    return runs_there


@pytest.mark.parametrize(("disks", "verdict"), [(("local",), "failed"), (("shared",), "held")])
async def test_the_destination_dies_in_the_instant_of_the_switch_over(disks: tuple[str], verdict: str) -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = guests.add_vm(fleet.world, "host1", "tern", disks=disks)
        runs_there = at_the_switch_over(fleet, vm)
        await fleet.start(vm)
        await runs_there.wait()
        await power_cut(fleet, "host2")
        await fleet.clock.sleep(60)
        assert not_none(domain(fleet, "host1", vm)).state is GuestState.PAUSED
        assert not fleet.agents["host1"].history(fleet.migration).closed
        await declare(fleet, "host2", "host1")
        if verdict == "held":
            await fleet.clock.sleep(600)
            assert fleet.agents["host1"].history(fleet.migration).status == Status.ERROR
            assert "virsh resume" in last_status(fleet.agents["host1"], fleet.migration)[1]
            assert not_none(domain(fleet, "host1", vm)).state is GuestState.PAUSED
            host = fleet.world.hosts["host1"]
            qemu.run(fleet.world, host, host.domains[vm], reason="unpaused", event="resumed", detail="unpaused")
        await closed(fleet, "host1")
        assert fleet.agents["host1"].history(fleet.migration).status == Status.FAILED
        assert fleet.world.running(vm) == ["host1"]
        await power_back(fleet, "host2")
        assert await fleet.ended() is Status.FAILED
        assert fleet.world.running(vm) == ["host1"]

    await run(scenario)
