"""A destination that lost its `state_dir` in the middle of a migration never reports: the source asks it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sterna.adapters.sql.journal import SqlJournal
from sterna.domain.journal import Kind
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
