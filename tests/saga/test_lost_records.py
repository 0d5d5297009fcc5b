"""A destination that lost its `state_dir` in the middle of a migration never reports: the source asks it."""

from __future__ import annotations

import asyncio
from unittest.mock import patch

import pytest

from sterna.adapters.sql.journal import SqlJournal
from sterna.agent.peer import RpcPeer
from sterna.domain.calls import PreLiveMigration
from sterna.domain.errors import Unknown
from sterna.domain.journal import Kind
from sterna.domain.model import Data
from sterna.domain.status import Status
from sterna.migration.source.reports import ASK_EVERY_S
from tests.saga.fleet import SimAgent, SimFleet
from tests.saga.playing import run, when


def reason(fleet: SimFleet) -> str:
    """Of the source's last status."""
    entries = fleet.agents["host1"].journal.entries(fleet.migration)
    return str([e.data["reason"] for e in entries if e.kind is Kind.STATUS][-1])


async def replace_disk(agent: SimAgent) -> None:
    """The agent restarts without the records that it had."""
    await agent.kill()
    agent.journal = SqlJournal.at(None, clock=agent.clock)
    await agent.start()


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
        when(destination, stops_before, asyncio.Event().wait)
        if refused is not None:
            source.rules.append((refused, "before", "permanent"))
        vm = fleet.vm()
        await fleet.start(vm)
        while f"waiting-dhost-reports-{row}" not in source.history(fleet.migration).notes:
            await fleet.clock.sleep(0.05)
        await replace_disk(destination)
        assert await fleet.ended(limit_s=2 * ASK_EVERY_S) is ends
        assert "host2 has no record of it any more (`sterna audit host2`" in reason(fleet)
        assert source.journal.holder(vm) is None

    await run(scenario)


@pytest.mark.parametrize("step", ["copy", "find-volumes-to-disconnect", "cast-post-live-migration"])
async def test_records_lost_before_the_destination_hears_of_the_switch_over(step: str) -> None:
    """Its disk was replaced during the copy: nobody there knows what P3 made. The guest has come all the same."""

    async def scenario(fleet: SimFleet) -> None:
        source, destination = fleet.agents["host1"], fleet.agents["host2"]
        when(source, step, lambda: replace_disk(destination))
        vm = fleet.vm()
        await fleet.start(vm)
        assert await fleet.ended(limit_s=3 * ASK_EVERY_S) is Status.COMPLETED
        assert "host2 has no record of it any more (`sterna audit host2`" in reason(fleet)
        assert fleet.world.running(vm) == ["host2"]
        assert (source.journal.holder(vm), destination.journal.holder(vm)) == (None, None)

    await run(scenario)


async def test_a_destination_that_only_takes_its_time_is_waited_for() -> None:
    async def scenario(fleet: SimFleet) -> None:
        when(fleet.agents["host2"], "update-resources", lambda: fleet.clock.sleep(3 * ASK_EVERY_S))
        await fleet.start(fleet.vm())
        assert await fleet.ended() is Status.COMPLETED
        assert "no record" not in reason(fleet)

    await run(scenario)


@pytest.mark.parametrize("step", ["remove-volume-connection", "cast-rollback"])
async def test_a_destination_that_forgot_before_the_rollback_reached_it_says_so(step: str) -> None:
    """It undoes nothing then: what it had prepared is left there."""

    async def scenario(fleet: SimFleet) -> None:
        source = fleet.agents["host1"]
        when(source, step, lambda: replace_disk(fleet.agents["host2"]))
        source.rules.append(("copy", "before", "permanent"))
        vm = fleet.vm()
        before = fleet.snapshots()
        await fleet.start(vm)
        assert await fleet.ended() is Status.FAILED
        assert fleet.snapshots() != before
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
