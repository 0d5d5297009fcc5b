"""A controller stops although something in it does not."""

from __future__ import annotations

import asyncio

import pytest

from sterna.adapters.sql.fleet import SqlFleet
from sterna.controller import controller
from sterna.controller.controller import Controller

from .fakes import FakeAgent, FakeBus, HandClock


@pytest.mark.parametrize("part", ["operations", "follower", "forecast_history"])
async def test_a_task_that_does_not_end_does_not_keep_its_process(
    part: str, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was cancelled, and goes on. The database is let go all the same."""
    monkeypatch.setattr(controller, "ENDING_S", 0.1)
    fleet, ends = SqlFleet.open(database), asyncio.Event()
    stopping = Controller(fleet, FakeBus(FakeAgent("a", 1)), HandClock())
    await stopping.start()
    stop, closed = getattr(stopping, part).stop, []

    async def hang() -> None:
        await stop()
        await ends.wait()

    async def close() -> None:
        closed.append(True)
        await real()

    real = fleet.close
    monkeypatch.setattr(getattr(stopping, part), "stop", hang)
    monkeypatch.setattr(fleet, "close", close)
    async with asyncio.timeout(20):
        await stopping.stop()
    assert closed
