"""What stands beside a copy goes on whatever goes wrong in it, and says what it waits for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import patch

import pytest

from sterna.agent.arrivals import Arrivals
from sterna.agent.destination import IncomingMigrations
from sterna.domain.entries.destination_notes import RanHere
from sterna.domain.entries.notes import PortsSwitched
from sterna.domain.errors import Conflict, Permanent, Unreachable
from sterna.domain.journal import Kind
from sterna.domain.model import Data, Nic, Observation
from sterna.domain.objective import Asked
from sterna.domain.status import Status
from sterna.migration.context import Context
from sterna.migration.source import watch
from sterna.rpc.client import RpcClient
from sterna.saga.runner import Runner
from sterna.sim.libvirt.hypervisor import SimHypervisor
from sterna.sim.ports.network import SimNetwork
from sterna.sim.ports.vif import SimVif
from tests.saga.fleet import SimFleet
from tests.saga.losses import lose_the_answer, lost
from tests.saga.playing import PERMITTED, begin, in_postcopy, raising, run, status

NO_THREAD = "can't start new thread"


async def copying(fleet: SimFleet) -> None:
    """A copy that never ends by itself, under way."""
    await fleet.start(fleet.vm(), asked=PERMITTED)
    await status(fleet, Status.MIGRATING)
    await fleet.clock.sleep(5)


def reasons(fleet: SimFleet, note: str) -> list[str]:
    return [e.data["why"] for e in fleet.agents["host1"].journal.entries(fleet.migration) if e.name == note]


ANY = pytest.mark.parametrize("error", [RuntimeError(NO_THREAD), asyncio.CancelledError()], ids=["bug", "leak"])
"""A bug; what is waited for was cancelled, and nobody here was."""


@ANY
async def test_an_abort_is_asked_for_again_after_any_error(error: BaseException) -> None:
    async def scenario(fleet: SimFleet) -> None:
        await copying(fleet)
        with raising(SimHypervisor, "abort", error):
            await fleet.abort()
            assert await fleet.ended(limit_s=60) is Status.CANCELLED

    await run(scenario)


async def test_what_libvirt_says_against_an_abort_is_journaled_when_its_words_change() -> None:
    async def scenario(fleet: SimFleet) -> None:
        await copying(fleet)
        refusals = [*[Permanent("the job cannot be ended")] * 5, *[Permanent("nor now")] * 5]
        with raising(SimHypervisor, "abort", *refusals):
            await fleet.abort()
            assert await fleet.ended(limit_s=60) is Status.CANCELLED
        said = reasons(fleet, "waiting-abort")
        assert [why.rpartition(": ")[2] for why in said] == ["the job cannot be ended", "nor now"]

    await run(scenario)


@ANY
async def test_the_copy_is_looked_at_again_after_any_error(error: BaseException) -> None:
    """Only a look ends the copy of a rehearsal."""

    async def scenario(fleet: SimFleet) -> None:
        with raising(SimHypervisor, "sample", error) as left:
            await fleet.start(fleet.vm(), rehearse="copy")
            assert await fleet.ended(limit_s=60) is Status.CANCELLED
        assert not left

    await run(scenario)


@ANY
async def test_events_are_listened_to_again_after_any_error(error: BaseException) -> None:
    async def scenario(fleet: SimFleet) -> None:
        with raising(watch, "_note_events", error, error) as left:
            await copying(fleet)
        assert not left
        assert "iteration" in fleet.agents["host1"].history(fleet.migration).notes
        await fleet.abort()
        assert await fleet.ended(limit_s=60) is Status.CANCELLED

    await run(scenario)


async def test_why_a_guest_is_not_switched_to_post_copy_is_journaled_once() -> None:
    async def scenario(fleet: SimFleet) -> None:
        await copying(fleet)
        refusals = [Permanent("the disks come first")] * 5
        with raising(SimHypervisor, "switch_to_postcopy", *refusals, RuntimeError(NO_THREAD)):
            await fleet.client.call("host1", "switch_to_postcopy", {"id": fleet.migration})
            assert await fleet.ended() is Status.COMPLETED
        said = reasons(fleet, "waiting-postcopy")
        assert [why.rpartition(": ")[2] for why in said] == ["the disks come first", NO_THREAD]

    await run(scenario)


@ANY
async def test_the_network_service_is_told_again_after_any_error(error: BaseException) -> None:
    """Here, not only by F7: the guest is reached as soon as that."""

    async def scenario(fleet: SimFleet) -> None:
        with raising(SimNetwork, "switch", error) as left:
            await fleet.start(fleet.vm())
            assert await fleet.ended() is Status.COMPLETED
        assert not left
        entries = fleet.agents["host1"].journal.entries(fleet.migration)
        names = [e.name for e in entries]
        assert names.index(PortsSwitched.entry) < names.index("copy-succeeded")

    await run(scenario)


async def test_a_copy_is_joined_and_aborted_though_no_event_can_be_listened_to() -> None:
    """As long as it lasts: its end is told by both hosts."""

    @contextlib.asynccontextmanager
    async def away(*_: Any) -> AsyncIterator[Any]:
        raise Unreachable("libvirtd tells nothing")
        yield

    async def scenario(fleet: SimFleet) -> None:
        await copying(fleet)
        await fleet.agents["host1"].kill()
        with patch.object(SimHypervisor, "_subscribed", away):
            await fleet.agents["host1"].start()
            await fleet.clock.sleep(60)
            assert straight_on(fleet)
            await fleet.abort()
            assert await fleet.ended(limit_s=60) is Status.CANCELLED

    await run(scenario)


# ------------------------------------------------------------ tasks beside the saga


@ANY
async def test_a_migration_is_driven_on_after_any_error(error: BaseException) -> None:
    async def scenario(fleet: SimFleet) -> None:
        with raising(Runner, "drive", error) as left:
            await fleet.start(fleet.vm())
            assert await fleet.ended(limit_s=60) is Status.COMPLETED
        assert not left
        assert len(reasons(fleet, "waiting-drive")) == 1

    await run(scenario)


@ANY
async def test_a_guest_is_looked_out_for_again_after_any_error(error: BaseException) -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm(dirty_bytes_per_s=0)
        with raising(Arrivals, "_listen_and_look", error, error) as left:
            await begin(fleet, vm, Asked(bandwidth_bytes_s=2**20))
            await fleet.clock.sleep(10)
        assert not left
        await fleet.client.call("host1", "tune_migration", {"id": fleet.migration, "bandwidth_bytes_s": None})
        while fleet.world.running(vm) != ["host2"]:
            await fleet.clock.sleep(0.001)
        await fleet.agents["host1"].kill()  # nobody asks this host
        await fleet.clock.sleep(1)
        assert RanHere.entry in fleet.agents["host2"].history(fleet.migration).notes
        await fleet.agents["host1"].start()
        assert await fleet.ended() is Status.COMPLETED

    await run(scenario)


@ANY
async def test_a_guest_that_has_arrived_is_announced_again_after_any_error(error: BaseException) -> None:
    async def scenario(fleet: SimFleet) -> None:
        real, announced = SimVif.announce, []

        async def announce(vif: SimVif, nic: Nic) -> None:
            announced.append(nic.mac)
            if len(announced) == 2:  # the first is that of its arrival
                raise error
            await real(vif, nic)

        with (
            patch.object(IncomingMigrations, "guest_leaves", lost),
            patch.object(SimVif, "announce", announce),
        ):
            await fleet.start(fleet.vm())
            assert await fleet.ended() is Status.COMPLETED
            await fleet.clock.sleep(5)
        assert len(announced) == 4

    await run(scenario)


@ANY
async def test_who_follows_hears_of_new_entries_again_after_any_error(error: BaseException) -> None:
    async def scenario(fleet: SimFleet) -> None:
        announce, left, heard = RpcClient.announce, [error], []

        async def announced(client: RpcClient, topic: str, data: Data) -> None:
            if topic == "journal.host1" and left:
                raise left.pop()
            await announce(client, topic, data)

        async def hear(_topic: str, data: Data) -> None:
            heard.append(data)

        await fleet.client.listen("journal.host1", hear)
        with patch.object(RpcClient, "announce", announced):
            await fleet.start(fleet.vm())
            assert await fleet.ended() is Status.COMPLETED
        assert not left
        assert heard

    await run(scenario)


# ------------------------------------------------------------ looks for the guest: one that fails decides nothing


def failing(where: type, name: str, error: Exception) -> contextlib.AbstractContextManager[list[BaseException]]:
    """Eight looks in a row, longer than any step is patient."""
    return raising(where, name, *[error] * 8)


def straight_on(fleet: SimFleet) -> bool:
    """Was there never a doubt that it goes forward?"""
    kinds = {e.kind for e in fleet.agents["host1"].journal.entries(fleet.migration)}
    return not kinds & {Kind.COMPENSATING, Kind.FAILED}


LOOKS = pytest.mark.parametrize(
    ("where", "name", "error"),
    [
        (IncomingMigrations, "_observe", RuntimeError(NO_THREAD)),
        (IncomingMigrations, "_observe", Conflict("it does not want to say")),
        (Context, "observe_here", RuntimeError(NO_THREAD)),
    ],
    ids=["a bug there", "refused there", "a bug here"],
)


@LOOKS
async def test_a_copy_goes_on_whatever_looks_at_its_hand_over_say(
    where: type, name: str, error: RuntimeError | Conflict
) -> None:
    async def scenario(fleet: SimFleet) -> None:
        await begin(fleet, fleet.vm(dirty_bytes_per_s=0), Asked(bandwidth_bytes_s=2**20))
        with failing(where, name, error) as left:
            await fleet.clock.sleep(8 * 12 + 10)  # without an event every fourth turn looks
        assert not left
        await fleet.client.call("host1", "tune_migration", {"id": fleet.migration, "bandwidth_bytes_s": None})
        assert await fleet.ended(limit_s=60) is Status.COMPLETED
        assert straight_on(fleet)

    await run(scenario)


async def test_that_the_sources_libvirt_says_nothing_of_the_copy_is_journaled_until_it_does() -> None:
    """As its reason, which the user is shown."""
    real = SimHypervisor.observe

    async def observe(self: SimHypervisor, uuid: str) -> Observation:
        if self._host.name == "host1":
            raise Unreachable("no answer within 90 s")
        return await real(self, uuid)

    async def scenario(fleet: SimFleet) -> None:
        await begin(fleet, fleet.vm(dirty_bytes_per_s=0), Asked(bandwidth_bytes_s=2**20))
        with patch.object(SimHypervisor, "observe", observe):
            await fleet.clock.sleep(60)
        await fleet.clock.sleep(30)
        assert reasons(fleet, "waiting-libvirt") == [
            "libvirt on host1 does not say where the guest is: no answer within 90 s",
            "libvirt on host1 answers again; the copy continues",
        ]
        await fleet.client.call("host1", "tune_migration", {"id": fleet.migration, "bandwidth_bytes_s": None})
        assert await fleet.ended(limit_s=60) is Status.COMPLETED

    await run(scenario)


@LOOKS
@pytest.mark.parametrize("killed", [False, True], ids=["", "taken up again"])
async def test_a_guest_in_post_copy_is_looked_after_whatever_looks_say(
    where: type, name: str, error: RuntimeError | Conflict, killed: bool
) -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = await in_postcopy(fleet)
        if killed:
            await fleet.agents["host1"].kill()
        with failing(where, name, error) as left:
            if killed:
                await fleet.agents["host1"].start()
            await fleet.clock.sleep(10)
            fleet.world.cut("host1", "host2", kinds=("stream",))
            fleet.world.mend("host1", "host2")
            assert await fleet.ended(limit_s=120) is Status.COMPLETED
        assert not left
        assert straight_on(fleet)
        assert fleet.world.running(vm) == ["host2"]

    await run(scenario)


@LOOKS
async def test_a_hand_over_that_is_late_is_noticed_after_looks_that_failed(
    where: type, name: str, error: RuntimeError | Conflict
) -> None:
    async def scenario(fleet: SimFleet) -> None:
        lose_the_answer(fleet)
        vm = fleet.vm()
        with contextlib.ExitStack() as stack:  # from the copy on: P3 looks for the guest, too

            def fail(*_: Any) -> None:
                stack.enter_context(failing(where, name, error))

            fleet.agents["host1"].rules.append(("copy", "before", fail))
            await fleet.start(vm)
            assert await fleet.ended() is Status.COMPLETED
        assert straight_on(fleet)
        assert fleet.world.running(vm) == ["host2"]

    await run(scenario)


async def test_a_copy_that_cannot_begin_is_given_up_however_long_each_try_hangs() -> None:
    async def hangs(hypervisor: SimHypervisor, uuid: str) -> list[Any]:
        await hypervisor._world.clock.sleep(90)
        raise Unreachable("its QEMU does not answer")

    async def scenario(fleet: SimFleet) -> None:
        def hang(*_: Any) -> None:
            patched.start()

        patched = patch.object(SimHypervisor, "check_outgoing", hangs)
        fleet.agents["host1"].rules.append(("copy", "before", hang))
        try:
            await fleet.start(fleet.vm())
            await fleet.clock.sleep(300)
        finally:
            patched.stop()
        assert await fleet.ended(limit_s=200) is Status.FAILED

    await run(scenario)
