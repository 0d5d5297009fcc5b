"""A destination that lost its `state_dir` in the middle of a migration never reports: the source asks it."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import patch

import pytest

from sterna.adapters.sql.journal import SqlJournal
from sterna.agent.peer import RpcPeer
from sterna.domain.calls import PreLiveMigration
from sterna.domain.errors import Unknown
from sterna.domain.journal import Kind
from sterna.domain.model import Data
from sterna.domain.status import Status
from sterna.migration.reports import ASK_EVERY_S
from tests.saga.fleet import SimFleet
from tests.saga.playing import run


def reason(fleet: SimFleet) -> str:
    """Of the source's last status."""
    entries = fleet.agents["host1"].journal.entries(fleet.migration)
    return str([e.data["reason"] for e in entries if e.kind is Kind.STATUS][-1])


@pytest.mark.parametrize(
    ("row", "stops_before", "refused", "ends"),
    [
        ("F9", "update-resources", None, Status.COMPLETED),
        ("R7", "remove-instance-directory", "copy", Status.FAILED),
    ],
)
async def test_it_ends_and_says_so(row: str, stops_before: str, refused: str | None, ends: Status) -> None:
    async def scenario(fleet: SimFleet) -> None:
        source, destination = fleet.agents["host1"], fleet.agents["host2"]
        usual, stopped = destination._strike, asyncio.Event()

        async def stop(step: str, row: str, moment: str) -> None:
            if (step, moment) == (stops_before, "before"):
                stopped.set()
                await asyncio.Event().wait()

        async def restarted_with(strike: Any, journal: SqlJournal) -> None:
            await destination.kill()
            destination._strike, destination.journal = strike, journal  # type: ignore[method-assign]
            await destination.start()

        await restarted_with(stop, destination.journal)
        if refused is not None:
            source.rules.append((refused, "before", "permanent"))
        vm = fleet.vm()
        await fleet.start(vm)
        while f"waiting-dhost-reports-{row}" not in source.history(fleet.migration).notes:
            await fleet.clock.sleep(0.05)
        assert stopped.is_set()
        await restarted_with(usual, SqlJournal.at(None, clock=destination.clock))  # its disk was replaced
        assert await fleet.ended(limit_s=2 * ASK_EVERY_S) is ends
        assert "host2 has no record of it any more (`sterna audit host2`" in reason(fleet)
        assert source.journal.holder(vm) is None

    await run(scenario)


@pytest.mark.parametrize("step", ["copy", "find-volumes-to-disconnect", "cast-post-live-migration"])
async def test_records_lost_before_the_destination_hears_of_the_switch_over(step: str) -> None:
    """Its disk was replaced during the copy: nobody there knows what P3 made. The guest has come all the same."""

    async def scenario(fleet: SimFleet) -> None:
        source, destination = fleet.agents["host1"], fleet.agents["host2"]
        usual, lost = source._strike, asyncio.Event()

        async def strike(name: str, row: str, moment: str) -> None:
            if (name, moment) == (step, "before") and not lost.is_set():
                lost.set()
                await destination.kill()
                destination.journal = SqlJournal.at(None, clock=destination.clock)
                await destination.start()
            await usual(name, row, moment)

        await source.kill()
        source._strike = strike  # type: ignore[method-assign]
        await source.start()
        vm = fleet.vm()
        await fleet.start(vm)
        assert await fleet.ended(limit_s=3 * ASK_EVERY_S) is Status.COMPLETED
        assert "host2 has no record of it any more (`sterna audit host2`" in reason(fleet)
        assert fleet.world.running(vm) == ["host2"]
        assert (source.journal.holder(vm), destination.journal.holder(vm)) == (None, None)

    await run(scenario)


async def test_a_destination_that_only_takes_its_time_is_waited_for() -> None:
    async def scenario(fleet: SimFleet) -> None:
        usual = fleet.agents["host2"]._strike

        async def slow(step: str, row: str, moment: str) -> None:
            if (step, moment) == ("update-resources", "before"):
                await fleet.clock.sleep(3 * ASK_EVERY_S)
            await usual(step, row, moment)

        await fleet.agents["host2"].kill()
        fleet.agents["host2"]._strike = slow  # type: ignore[method-assign]
        await fleet.agents["host2"].start()
        await fleet.start(fleet.vm())
        assert await fleet.ended() is Status.COMPLETED
        assert "no record" not in reason(fleet)

    await run(scenario)


def lose_journal(fleet: SimFleet, before: str) -> list[str]:
    """The destination's disk is replaced right before this step of the source; the steps at which that happened."""
    source, destination = fleet.agents["host1"], fleet.agents["host2"]
    usual, lost = source._strike, list[str]()

    async def strike(step: str, row: str, moment: str) -> None:
        if (step, moment) == (before, "before") and not lost:
            lost.append(step)
            await destination.kill()
            destination.journal = SqlJournal.at(None, clock=destination.clock)
            await destination.start()
        await usual(step, row, moment)

    source._strike = strike  # type: ignore[method-assign]
    return lost


@pytest.mark.parametrize("step", ["remove-volume-connection", "cast-rollback"])
async def test_a_destination_that_forgot_before_the_rollback_reached_it_says_so(step: str) -> None:
    """It undoes nothing then: what it had prepared is left there."""

    async def scenario(fleet: SimFleet) -> None:
        source = fleet.agents["host1"]
        await source.kill()
        lost = lose_journal(fleet, step)
        await source.start()
        source.rules = [("copy", "before", "permanent")]
        vm = fleet.vm()
        before = fleet.snapshots()
        await fleet.start(vm)
        assert await fleet.ended() is Status.FAILED
        assert lost and fleet.snapshots() != before
        assert "host2 has no record of it any more (`sterna audit host2`" in reason(fleet)
        assert source.journal.holder(vm) is None

    await run(scenario)


async def test_a_destination_that_p3_may_not_have_reached_has_forgotten_nothing() -> None:
    usual = RpcPeer.call

    async def silent(peer: RpcPeer, method: str, params: Data) -> Data:
        if method == PreLiveMigration.method:
            raise Unknown("no answer")
        return await usual(peer, method, params)

    async def scenario(fleet: SimFleet) -> None:
        with patch.object(RpcPeer, "call", silent):
            await fleet.start(fleet.vm())
            assert await fleet.ended(limit_s=2 * ASK_EVERY_S + 60) is Status.FAILED
        assert "R7" in [e.row for e in fleet.agents["host2"].journal.entries(fleet.migration)]
        assert "no record" not in reason(fleet)

    await run(scenario)


async def test_a_destination_that_failed_while_it_prepared_has_forgotten_nothing() -> None:
    async def scenario(fleet: SimFleet) -> None:
        fleet.agents["host2"].rules = [("plug-vifs", "after", "permanent")]
        await fleet.start(fleet.vm())
        assert await fleet.ended() is Status.FAILED
        assert "no record" not in reason(fleet)

    await run(scenario)
