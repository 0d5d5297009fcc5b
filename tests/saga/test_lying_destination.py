"""A destination that says it has a guest which only its source has: the source loses nothing to it.

What counts is what the source knows by itself: whether the copy was begun, whether its QEMU has sent the guest's
state whole, and whether the guest was paused for the switch-over.
"""

from __future__ import annotations

import pytest

from sterna.domain.status import Status
from sterna.sim.libvirt import guests
from tests.saga.fleet import SimFleet
from tests.saga.lying import CLAIMS, Liar, pause_by_hand
from tests.saga.playing import PERMITTED, SLOW, run, when

LIES_FOR_S = 120.0
claims = pytest.mark.parametrize("claim", CLAIMS)


def has_everything(fleet: SimFleet, vm: str, files: set[str], *, active: bool = True) -> None:
    """host1 still has the guest, its definition and the disks that are its own."""
    domain = fleet.world.hosts["host1"].domains[vm]
    assert domain.active is active
    assert domain.inactive is not None
    assert files <= set(fleet.own("host1").files)


async def lies_and_tells_the_truth(
    fleet: SimFleet, liar: Liar, vm: str, files: set[str], ending: Status = Status.FAILED, *, active: bool = True
) -> None:
    """It lies for a while, and then no more: the guest is host1's all the time."""
    until = fleet.clock.monotonic_ms() + LIES_FOR_S * 1000
    while fleet.clock.monotonic_ms() < until:
        await fleet.clock.sleep(0.5)
        has_everything(fleet, vm, files, active=active)
    liar.claim = ""
    assert await fleet.ended() is ending
    has_everything(fleet, vm, files, active=active)


@claims
@pytest.mark.parametrize("paused", [False, True], ids=["running", "paused"])
async def test_before_the_copy(claim: str, paused: bool) -> None:
    async def scenario(fleet: SimFleet) -> None:
        liar, vm = Liar(fleet), fleet.vm()
        files = set(fleet.own("host1").files)

        def begins() -> None:
            liar.claim = claim
            if paused:
                pause_by_hand(fleet, vm)

        when(fleet.agents["host1"], "copy", begins)
        await fleet.start(vm)
        until = fleet.clock.monotonic_ms() + LIES_FOR_S * 1000
        while fleet.clock.monotonic_ms() < until:
            await fleet.clock.sleep(0.5)
            if fleet.world.running(vm) == ["host2"]:  # it was copied, as nothing spoke against it
                assert CLAIMS[claim]["state"] != "running"
                return
            has_everything(fleet, vm, files)
            assert fleet.world.running(vm) == ([] if paused else ["host1"])

    await run(scenario)


@claims
@pytest.mark.parametrize("killed", [False, True], ids=["agent lives", "agent dies meanwhile"])
async def test_while_it_copies(claim: str, killed: bool) -> None:
    """The copy goes on, and arrives."""

    async def scenario(fleet: SimFleet) -> None:
        liar, vm = Liar(fleet), fleet.vm(dirty_bytes_per_s=0)
        fleet.world.pace.bandwidth_bytes = SLOW
        await fleet.start(vm)
        liar.from_change("iteration 1", claim)
        while not liar.claim:
            await fleet.clock.sleep(0.1)
        if killed:
            await fleet.agents["host1"].kill()
            await fleet.clock.sleep(3)
            await fleet.agents["host1"].start()
        await fleet.clock.sleep(10)
        assert fleet.world.running(vm) == ["host1"]
        liar.claim = ""
        assert await fleet.ended() is Status.COMPLETED

    await run(scenario)


@claims
@pytest.mark.parametrize("killed", [False, True], ids=["agent lives", "agent dies meanwhile"])
async def test_while_it_is_paused_for_a_switch_over_that_fails(claim: str, killed: bool) -> None:
    """Not all of its state has been sent: so it runs nowhere."""

    async def scenario(fleet: SimFleet) -> None:
        liar, vm = Liar(fleet), fleet.vm()
        files = set(fleet.own("host1").files)
        fleet.world.pace.switch_ms = 60_000
        liar.from_change("paused (migration)", claim)
        await fleet.start(vm)
        while not liar.claim:
            await fleet.clock.sleep(0.1)
        if killed:
            await fleet.agents["host1"].kill()
            await fleet.clock.sleep(3)
            await fleet.agents["host1"].start()
        fleet.later(30, lambda: fleet.world.cut("host1", "host2", kinds=("stream",)))
        fleet.later(35, lambda: fleet.world.mend("host1", "host2"))
        await lies_and_tells_the_truth(fleet, liar, vm, files)
        assert fleet.world.running(vm) == ["host1"]

    await run(scenario)


@claims
@pytest.mark.parametrize(
    ("state", "killed"),
    [("running", False), ("running", True), ("paused", False), ("paused", True), ("shut down", False)],
)
async def test_when_the_copy_has_failed(claim: str, state: str, killed: bool) -> None:
    """Long before the switch-over. Then somebody pauses the guest, or it ends, or its agent is started again.

    Where its agent was dead when it ended, nobody saw where that was: the destination's word decides.
    """

    async def scenario(fleet: SimFleet) -> None:
        liar, vm = Liar(fleet), fleet.vm()
        files = set(fleet.own("host1").files)

        def breaks() -> None:
            if state == "paused":
                pause_by_hand(fleet, vm)
            if state == "shut down":
                guests.shut_down_guest(fleet.world, vm)
            fleet.world.cut("host1", "host2", kinds=("stream",))
            fleet.world.mend("host1", "host2")

        liar.from_change("iteration 1", claim, breaks)
        if killed:
            fleet.agents["host1"].rules.append(("copy", "before", lambda: fleet.later(0.6, dies)))
        await fleet.start(vm)
        while not liar.claim:
            await fleet.clock.sleep(0.1)
        await lies_and_tells_the_truth(fleet, liar, vm, files, active=state != "shut down")

    fleet = SimFleet()

    def dies() -> None:
        fleet.dying.append(fleet.agents["host1"])
        fleet.death.set()

    await run(scenario, fleet)


@claims
async def test_in_the_rollback(claim: str) -> None:
    async def scenario(fleet: SimFleet) -> None:
        liar, vm = Liar(fleet), fleet.vm()
        before, files = fleet.own("host1"), set(fleet.own("host1").files)
        fleet.agents["host1"].rules.append(("make-way", "after", "permanent"))
        when(fleet.agents["host1"], "ask-both-hypervisors", lambda: setattr(liar, "claim", claim))
        await fleet.start(vm)
        await lies_and_tells_the_truth(fleet, liar, vm, files)
        assert fleet.own("host1") == before

    await run(scenario)


@claims
async def test_in_the_rollback_of_a_copy_that_was_aborted(claim: str) -> None:
    async def scenario(fleet: SimFleet) -> None:
        liar, vm = Liar(fleet), fleet.vm()
        before, files = fleet.own("host1"), set(fleet.own("host1").files)
        when(fleet.agents["host1"], "ask-both-hypervisors", lambda: setattr(liar, "claim", claim))
        fleet.world.pace.bandwidth_bytes = SLOW
        await fleet.start(vm, asked=PERMITTED)
        await fleet.clock.sleep(5)
        await fleet.abort()
        await lies_and_tells_the_truth(fleet, liar, vm, files, Status.CANCELLED)
        assert fleet.own("host1") == before

    await run(scenario)


@claims
async def test_a_guest_whose_state_was_written_to_a_file_before(claim: str) -> None:
    """QEMU says of a snapshot with memory what it says of a copy: that it has sent all of it."""

    async def scenario(fleet: SimFleet) -> None:
        liar, vm = Liar(fleet), fleet.vm()
        files = set(fleet.own("host1").files)
        fleet.world.hosts["host1"].domains[vm].sent = "a snapshot"

        def breaks() -> None:
            fleet.world.cut("host1", "host2", kinds=("stream",))
            fleet.world.mend("host1", "host2")

        liar.from_change("iteration 1", claim, breaks)
        await fleet.start(vm)
        await lies_and_tells_the_truth(fleet, liar, vm, files)
        assert fleet.world.running(vm) == ["host1"]

    await run(scenario)
