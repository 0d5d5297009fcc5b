"""Fixtures of the tests with a controller."""

from __future__ import annotations

from pathlib import Path

import pytest

from sterna.controller.controller import Controller
from tests.saga.controlled import HoldingFleet, Play, Scenario
from tests.saga.fleet import SimFleet


@pytest.fixture
def play(tmp_path: Path) -> Play:
    async def run(scenario: Scenario) -> None:
        fleet = SimFleet()
        records = HoldingFleet(f"sqlite:///{tmp_path}/c.db", fleet.clock)
        controller = Controller(records, fleet.client, fleet.clock)

        async def inside() -> None:
            async with fleet:
                await controller.start()
                await fleet.clock.sleep(2)  # two beacons
                await scenario(fleet, controller)
                await controller.stop()
                assert not fleet.world.violations

        await fleet.clock.run(inside())

    return run
