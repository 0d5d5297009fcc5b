"""Post-copy on simulated hosts: the switch, a link that breaks, agents, libvirtds and QEMUs that die in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from sterna.domain.errors import Conflict
from sterna.domain.model import GuestState, Observation
from sterna.domain.objective import Asked
from sterna.domain.status import Status
from sterna.sim.libvirt import guests, qemu
from sterna.sim.libvirt.hypervisor import SimHypervisor
from tests.saga.fleet import SimFleet
from tests.saga.playing import PERMITTED, SLOW, in_postcopy, run, status


def statuses(fleet: SimFleet) -> list[str]:
    entries = fleet.agents["host1"].journal.entries(fleet.migration)
    return [str(e.data["status"]) for e in entries if "status" in e.data]


ALL_WELL = ["queued", "preparing", "migrating", "post-copy", "post-migrating", "completed"]
ONE_BREAK = [*ALL_WELL[:4], "recovering", "post-copy", *ALL_WELL[4:]]


async def test_a_guest_that_does_not_converge_is_switched_and_arrives() -> None:
    async def scenario(fleet: SimFleet) -> None:
        empty = fleet.own("host1")
        vm = await in_postcopy(fleet, autostart=True)
        with pytest.raises(Conflict, match="runs on host2"):
            await fleet.abort()
        assert await fleet.ended() is Status.COMPLETED
        assert statuses(fleet) == ALL_WELL
        assert fleet.world.running(vm) == ["host2"]
        assert fleet.own("host1") == empty
        assert not fleet.world.hosts["host2"].recovery_monitors

    await run(scenario)


async def test_it_must_have_been_permitted() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm()
        await fleet.start(vm, asked=Asked(bandwidth_bytes_s=SLOW))
        await status(fleet, Status.MIGRATING)
        with pytest.raises(Conflict, match="without permission") as said:
            await fleet.client.call("host1", "switch_to_postcopy", {"id": fleet.migration})
        assert "--may postcopy" in said.value.fix
        await fleet.abort()
        assert await fleet.ended() is Status.CANCELLED

    await run(scenario)


async def test_a_host_without_userfaultfd_refuses() -> None:
    async def scenario(fleet: SimFleet) -> None:
        fleet.world.hosts["host2"].userfaultfd = False
        with pytest.raises(Exception, match="page faults"):
            await fleet.start(fleet.vm(), asked=PERMITTED)

    await run(scenario)


@pytest.mark.parametrize("away_s", [1.0, 45.0])
async def test_a_broken_link_is_recovering_until_it_is_whole_again(away_s: float) -> None:
    async def scenario(fleet: SimFleet) -> None:
        empty = fleet.own("host1")
        vm = await in_postcopy(fleet)
        fleet.world.cut("host1", "host2", kinds=("stream",))
        await status(fleet, Status.RECOVERING)
        await fleet.clock.sleep(away_s)
        fleet.world.mend("host1", "host2")
        assert await fleet.ended() is Status.COMPLETED
        assert statuses(fleet) == ONE_BREAK
        assert fleet.world.running(vm) == ["host2"]
        assert fleet.own("host1") == empty

    await run(scenario)


@pytest.mark.parametrize("dead", [("host1",), ("host2",), ("host1", "host2")])
@pytest.mark.parametrize("cut", [False, True])
async def test_agents_may_die_in_it(dead: tuple[str, ...], cut: bool) -> None:
    async def scenario(fleet: SimFleet) -> None:
        empty = fleet.own("host1")
        vm = await in_postcopy(fleet)
        for host in dead:
            await fleet.agents[host].kill()
        if cut:
            fleet.world.cut("host1", "host2", kinds=("stream",))
        await fleet.clock.sleep(5)
        for host in dead:
            await fleet.agents[host].start()
        await fleet.clock.sleep(3)
        fleet.world.mend("host1", "host2")
        assert await fleet.ended() is Status.COMPLETED
        assert fleet.world.running(vm) == ["host2"]
        assert fleet.own("host1") == empty

    await run(scenario)


@pytest.mark.parametrize("host", ["host1", "host2"])
async def test_libvirtds_may_die_in_it(host: str) -> None:
    async def scenario(fleet: SimFleet) -> None:
        empty = fleet.own("host1")
        vm = await in_postcopy(fleet)
        fleet.world.hosts[host].libvirtd_up = False
        await fleet.clock.sleep(60)
        fleet.world.hosts[host].libvirtd_up = True
        assert await fleet.ended() is Status.COMPLETED
        assert fleet.world.running(vm) == ["host2"]
        assert fleet.own("host1") == empty

    await run(scenario)


@pytest.mark.parametrize("host", ["host1", "host2"])
@pytest.mark.parametrize("persistent", [True, False])
async def test_a_guest_that_loses_one_half_has_ended_on_the_destination_and_is_not_started(
    host: str, persistent: bool
) -> None:
    async def scenario(fleet: SimFleet) -> None:
        empty = fleet.own("host1")
        vm = await in_postcopy(fleet, persistent=persistent)
        guests.kill_qemu(fleet.world, host, vm)
        assert await fleet.ended() is Status.COMPLETED
        assert fleet.world.running(vm) == []
        assert fleet.own("host1") == empty
        there = fleet.world.hosts["host2"].domains.get(vm)
        assert (there is not None and there.state is GuestState.SHUTOFF) if persistent else there is None

    await run(scenario)


@pytest.mark.parametrize("hears", [False, True])
@pytest.mark.parametrize("away", ["host1", "host2"])
async def test_a_lost_half_that_the_destination_does_not_notice_is_given_up_by_whichever_agents_come_back(
    away: str, hears: bool
) -> None:
    async def scenario(fleet: SimFleet) -> None:
        fleet.world.hosts["host2"].hears_of_lost_halves = hears
        empty = fleet.own("host1")
        vm = await in_postcopy(fleet)
        await fleet.agents[away].kill()
        guests.kill_qemu(fleet.world, "host1", vm)
        await fleet.clock.sleep(30)
        assert fleet.world.hosts["host2"].domains[vm].reason == "postcopy"  # its libvirt knows nothing
        await fleet.agents[away].start()
        assert await fleet.ended() is Status.COMPLETED
        assert statuses(fleet)[3:] == ["post-copy", "recovering", "post-migrating", "completed"]
        assert fleet.world.running(vm) == []
        assert fleet.own("host1") == empty

    await run(scenario)


Cut = Callable[[SimFleet], Awaitable[None]]


async def not_cut(fleet: SimFleet) -> None:
    """The destination answers."""


async def dead(fleet: SimFleet) -> None:
    """The bus says at once that nobody listens."""
    await fleet.agents["host2"].kill()


async def silent(fleet: SimFleet) -> None:
    """Its link is cut: messages are lost, and nobody says so."""
    fleet.broker.loses = lambda packet: any(b.startswith("host2") for b in (packet.sender, packet.receiver))


async def libvirt_hangs(fleet: SimFleet) -> None:
    """Its agent lives, and answers only when its libvirt does."""
    agent = fleet.agents["host2"]
    await agent.kill()
    agent.settings["hypervisor"] = HangingHypervisor(fleet.world, "host2")
    await agent.start()


class HangingHypervisor(SimHypervisor):
    """A libvirt that does not say where a guest is."""

    async def observe(self, uuid: str) -> Observation:
        """No answer."""
        await asyncio.Event().wait()
        raise AssertionError("never")


@pytest.mark.parametrize("cut", [not_cut, dead, silent, libvirt_hangs])
async def test_an_old_copy_that_qemu_itself_sets_running_is_ended_at_once(cut: Cut) -> None:
    """QEMU 10.0 does that, whatever holds its block nodes, if the stream breaks when all is sent. What the
    destination would say is not waited for."""

    async def scenario(fleet: SimFleet) -> None:
        empty = fleet.own("host1")
        vm = await in_postcopy(fleet)
        await status(fleet, Status.POST_COPY)
        await cut(fleet)
        await fleet.clock.sleep(1.3)  # a look at both hosts is under way
        job = fleet.world.hosts["host1"].domains[vm].job
        assert job is not None
        job.give_up()
        assert fleet.world.running(vm) == ["host1", "host2"]
        await fleet.clock.sleep(0.2)
        assert "host1" not in fleet.world.running(vm)
        await fleet.clock.sleep(30)
        await heal(fleet)
        assert await fleet.ended() is Status.COMPLETED
        assert fleet.world.running(vm) == []  # the rest of its memory is gone
        assert fleet.own("host1") == empty

    await run(scenario, violations=1)


async def heal(fleet: SimFleet) -> None:
    fleet.broker.loses = lambda packet: False
    agent = fleet.agents["host2"]
    if agent.alive:
        await agent.kill()
    agent.settings.clear()
    await agent.start()


async def test_an_old_copy_that_ran_while_its_agent_was_dead_is_ended_by_the_next_life() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = await in_postcopy(fleet)
        await status(fleet, Status.POST_COPY)
        await fleet.agents["host1"].kill()
        domain = fleet.world.hosts["host1"].domains[vm]
        assert domain.job is not None
        domain.job.give_up()
        qemu.pause(fleet.world, fleet.world.hosts["host1"], domain, reason="postcopy", event="suspended")
        await fleet.agents["host1"].start()  # somebody has stopped it meanwhile: it can still not be joined
        assert await fleet.ended() is Status.COMPLETED
        assert fleet.world.running(vm) == []

    await run(scenario, violations=1)


async def test_nothing_is_removed_while_the_link_is_broken() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = await in_postcopy(fleet)
        fleet.world.cut("host1", "host2", kinds=("stream",))
        await status(fleet, Status.RECOVERING)
        before = fleet.snapshots()
        await fleet.clock.sleep(900)  # longer than any patience there is
        assert fleet.agents["host1"].history(fleet.migration).status == Status.RECOVERING
        assert fleet.snapshots() == before
        fleet.world.mend("host1", "host2")
        assert await fleet.ended() is Status.COMPLETED
        assert fleet.world.running(vm) == ["host2"]

    await run(scenario)


async def test_the_switch_waits_until_a_broken_stream_could_be_joined_again() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm()
        await fleet.start(vm, asked=PERMITTED)
        await status(fleet, Status.MIGRATING)
        await fleet.clock.sleep(5)
        await fleet.agents["host2"].kill()  # nobody there who could hold the guest's monitor
        await fleet.client.call("host1", "switch_to_postcopy", {"id": fleet.migration})
        await fleet.clock.sleep(20)
        assert fleet.world.running(vm) == ["host1"]
        await fleet.agents["host2"].start()
        await status(fleet, Status.POST_COPY)
        fleet.world.cut("host1", "host2", kinds=("stream",))
        await status(fleet, Status.RECOVERING)
        fleet.world.mend("host1", "host2")
        assert await fleet.ended() is Status.COMPLETED
        assert fleet.world.running(vm) == ["host2"]

    await run(scenario)
