"""P3 that reaches nobody: nothing can be on the destination, so nothing is waited for (protocol R7, R8).

An answer that is lost is something else: the destination may have prepared.
"""

from __future__ import annotations

import pytest

from sterna.domain.entries.notes import AskedDestination, DestinationNotReached
from sterna.domain.errors import Undelivered, Unreachable, from_wire
from sterna.domain.status import Status
from tests.saga.fleet import SimFleet
from tests.saga.playing import run, when


async def start_and_lose_the_destination(fleet: SimFleet, vm: str) -> None:
    """Accepted while the destination answers; its agent is dead from P3 on."""
    source, destination = fleet.agents["host1"], fleet.agents["host2"]
    when(source, "snapshot-volumes", destination.kill, "after")
    await fleet.start(vm)


async def test_nobody_ever_got_p3_so_it_ends_without_the_destination() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm(autostart=True)
        before = fleet.snapshots()
        await start_and_lose_the_destination(fleet, vm)
        assert await fleet.ended(limit_s=90) is Status.FAILED
        assert fleet.snapshots() == before
        source = fleet.agents["host1"]
        assert source.history(fleet.migration).notes[DestinationNotReached.entry]["times"] > 3
        assert source.journal.outbox() == []
        assert source.journal.holder(vm) is None
        await fleet.agents["host2"].start()
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED

    await run(scenario)


async def test_an_abort_meanwhile_ends_it_at_once() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm()
        await start_and_lose_the_destination(fleet, vm)
        source = fleet.agents["host1"]
        while DestinationNotReached.entry not in source.history(fleet.migration).notes:
            await fleet.clock.sleep(0.1)
        await fleet.abort()
        assert await fleet.ended(limit_s=5) is Status.CANCELLED

    await run(scenario)


async def test_an_answer_lost_before_the_destination_went_away_proves_nothing() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm()
        fleet.agents["host2"].rules.append(("plug-vifs", "after", "kill"))
        fleet.down_s = 300
        await fleet.start(vm)
        source = fleet.agents["host1"]
        while not source.history(fleet.migration).released:
            await fleet.clock.sleep(0.5)
        history = source.history(fleet.migration)
        assert history.notes[DestinationNotReached.entry]["times"] < history.notes[AskedDestination.entry]["times"]
        assert history.status == Status.ROLLING_BACK
        await fleet.clock.sleep(120)
        assert source.history(fleet.migration).status == Status.ROLLING_BACK
        assert await fleet.ended() is Status.FAILED
        assert not fleet.world.hosts["host2"].taps

    await run(scenario)


async def test_a_try_without_an_outcome_in_the_journal_counts_as_one_that_arrived() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm()
        source, destination = fleet.agents["host1"], fleet.agents["host2"]
        destination.rules.append(("attach-volumes", "before", "kill"))
        fleet.down_s = 400
        await fleet.start(vm)
        while AskedDestination.entry not in source.history(fleet.migration).notes:
            await fleet.clock.sleep(0.01)
        await source.kill()  # it never reads that the answer was lost
        await fleet.clock.sleep(1)
        await source.start()
        while not source.history(fleet.migration).released:
            await fleet.clock.sleep(0.5)
        history = source.history(fleet.migration)
        assert (
            history.notes[DestinationNotReached.entry]["times"]
            == history.notes[AskedDestination.entry]["times"] - 1
        )
        assert history.status == Status.ROLLING_BACK
        assert await fleet.ended() is Status.FAILED

    await run(scenario)


def test_what_the_other_side_could_not_reach_is_no_proof_about_the_call_to_it() -> None:
    with pytest.raises(Unreachable) as seen:
        raise from_wire(Undelivered("libvirtd there does not answer").to_wire())
    assert not isinstance(seen.value, Undelivered)
