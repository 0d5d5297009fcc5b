"""The destination runs the guest and its answer never reaches the source's libvirt, which gives up after a while
and lets its own guest run again (seen with libvirt 11.3; docs/lab-notebook/field-notes.md)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sterna.domain.journal import Entry
from sterna.domain.status import Status
from sterna.sim.world.things import Change
from tests.saga.fleet import SimFleet
from tests.saga.losses import KEEP_ALIVE_S, lose_the_answer


def lose_libvirt_when_it_runs_there(fleet: SimFleet, lost: str) -> None:
    """The destination's libvirtd dies, or the connection between the two libvirts, once the guest runs there."""

    def look(change: Change) -> None:
        if (change.what, change.detail) == ("job", "finished"):
            if lost == "libvirtd":
                fleet.world.hosts["host2"].libvirtd_up = False
            else:
                fleet.world.cut("host1", "host2", kinds=("control",))

    fleet.world.watch(look)


@pytest.mark.parametrize("killed", [False, True], ids=["agent lives", "agent dies meanwhile"])
async def test_what_waits_on_the_source_is_ended_before_libvirt_lets_it_run_again(killed: bool) -> None:
    fleet = SimFleet()

    async def scenario() -> None:
        async with fleet:
            lose_the_answer(fleet)
            empty = fleet.own("host1")
            vm = fleet.vm()
            await fleet.start(vm)
            while fleet.world.running(vm) != ["host2"]:
                await fleet.clock.sleep(0.05)
            if killed:
                await fleet.agents["host1"].kill()
                await fleet.clock.sleep(5)
                await fleet.agents["host1"].start()
            assert await fleet.ended() is Status.COMPLETED
            await fleet.clock.sleep(3 * KEEP_ALIVE_S)
            assert fleet.world.running(vm) == ["host2"]
            assert not fleet.world.violations
            assert fleet.own("host1") == empty
            assert "hand-over-late" in fleet.agents["host1"].history(fleet.migration).notes

    await fleet.clock.run(scenario())


async def test_a_healthy_hand_over_is_left_to_libvirt() -> None:
    fleet = SimFleet()

    async def scenario() -> None:
        async with fleet:
            await fleet.start(fleet.vm())
            assert await fleet.ended() is Status.COMPLETED
            notes = fleet.agents["host1"].history(fleet.migration).notes
            assert "saw-stopped-migrated" in notes
            assert "hand-over-late" not in notes

    await fleet.clock.run(scenario())


@pytest.mark.parametrize("lost", ["libvirtd", "control"])
async def test_libvirt_cannot_let_the_old_copy_run_again(lost: str) -> None:
    """The destination's libvirtd, or the connection to it, is lost right after the guest began to run there:
    libvirt takes the migration for failed before anybody can be asked, and is kept from what it then tries."""
    fleet = SimFleet()

    async def scenario() -> None:
        async with fleet:
            lose_libvirt_when_it_runs_there(fleet, lost)
            empty = fleet.own("host1")
            vm = fleet.vm()
            await fleet.start(vm)
            await fleet.clock.sleep(40)
            assert fleet.world.running(vm) == ["host2"]
            fleet.world.hosts["host2"].libvirtd_up = True
            fleet.world.mend("host1", "host2")
            assert await fleet.ended() is Status.COMPLETED
            assert not fleet.world.violations
            assert fleet.world.running(vm) == ["host2"]
            assert fleet.own("host1") == empty

    await fleet.clock.run(scenario())


async def test_a_destination_that_dies_in_the_hand_over_gives_the_guest_back() -> None:
    """Its QEMU dies when the guest is paused on the source: nobody but Sterna can let it run here again."""
    fleet = SimFleet()
    killed: list[Change] = []

    def look(change: Change) -> None:
        if (
            (change.what, change.detail) == ("domain", "paused (migration)")
            and change.host == "host1"
            and not killed
        ):
            killed.append(change)
            fleet.world.kill_qemu("host2", change.subject)

    async def scenario() -> None:
        async with fleet:
            fleet.world.watch(look)
            vm = fleet.vm()
            before = fleet.own("host1")
            await fleet.start(vm)
            assert await fleet.ended() is Status.FAILED
            assert killed
            assert fleet.world.running(vm) == ["host1"]
            assert fleet.own("host1") == before

    await fleet.clock.run(scenario())


@pytest.mark.parametrize("lost", ["libvirtd", "control"])
async def test_without_the_interlock_an_old_copy_that_libvirt_lets_run_again_is_held_at_once_and_ended(
    lost: str,
) -> None:
    """The destination's libvirtd, or the connection to it, is lost right after the guest began to run there:
    libvirt takes the migration for failed before anybody can be asked, and, as somebody took the interlock away,
    two copies run for a moment."""
    fleet = SimFleet()
    both, journaled = [], []

    def look(change: Change) -> None:
        if change.what == "domain" and change.detail == "paused (user)":
            journaled.append("held-old-copy" in fleet.agents["host1"].history(fleet.migration).notes)
        if change.what == "domain" and len(fleet.world.running(change.subject)) > 1:
            both.append(change)
        if change.detail == "paused (migration)" and change.host == "host1":
            fleet.world.hosts["host1"].domains[change.subject].interlocked = False

    async def scenario() -> None:
        async with fleet:
            fleet.world.watch(look)
            lose_libvirt_when_it_runs_there(fleet, lost)
            empty = fleet.own("host1")
            vm = fleet.vm()
            await fleet.start(vm)
            while not both:
                await fleet.clock.sleep(0.01)
            await fleet.clock.sleep(0.1)
            assert fleet.world.running(vm) == ["host2"]
            await fleet.clock.sleep(30)
            fleet.world.hosts["host2"].libvirtd_up = True
            fleet.world.mend("host1", "host2")
            assert await fleet.ended() is Status.COMPLETED
            assert fleet.world.running(vm) == ["host2"]
            assert fleet.own("host1") == empty
            assert journaled == [True]  # before it acted: the next life must know whose pause it is

    await fleet.clock.run(scenario())


@pytest.mark.parametrize("asked", [False, True], ids=["nobody asks", "somebody asks"])
async def test_a_guest_has_its_host_to_itself_when_it_is_let_run_unless_somebody_asks(asked: bool) -> None:
    """Its frames were called before, so nothing is in a hurry; whoever asks is told what is in the journal."""
    fleet = SimFleet()
    fleet.world.pace.finish_ms = 200
    runs, written = asyncio.Event(), asyncio.Event()

    def look(change: Change) -> None:
        if change.what == "domain" and change.detail == "running (migrated)":
            runs.set()

    async def scenario() -> None:
        async with fleet:
            host2 = fleet.agents["host2"]
            append = host2.journal.append

            def appended(*args: Any, name: str = "", **more: Any) -> Entry:
                if name == "guest-ran-here":
                    written.set()
                return append(*args, name=name, **more)

            host2.journal.append = appended  # type: ignore[method-assign]
            fleet.world.watch(look)
            vm = fleet.vm()
            await fleet.start(vm)
            await runs.wait()
            await fleet.clock.sleep(0.01)
            assert not written.is_set()
            if asked:
                await fleet.client.call("host2", "observe_guest", {"vm": vm}, migration_id=fleet.migration)
                assert written.is_set()
            await fleet.clock.sleep(0.03)
            assert written.is_set()
            assert await fleet.ended() is Status.COMPLETED

    await fleet.clock.run(scenario())
