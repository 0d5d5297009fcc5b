"""A controller over simulated agents, and what hypervisors are told to connect to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sterna.controller.controller import Controller
from sterna.sim.libvirt.hypervisor import SimHypervisor
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


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every URI that a hypervisor was told to connect to."""
    uris: list[str] = []
    check, migrate, again = SimHypervisor.check_peer, SimHypervisor.migrate, SimHypervisor.send_again

    async def check_peer(self: SimHypervisor, destination_uri: str) -> Any:
        uris.append(destination_uri)
        return await check(self, destination_uri)

    async def migrates(self: SimHypervisor, uuid: str, plan: Any) -> None:
        uris.extend(uri for uri in (plan.destination_uri, plan.migrate_uri) if uri)
        await migrate(self, uuid, plan)

    async def send_again(self: SimHypervisor, uuid: str, uri: str) -> None:
        uris.append(uri)
        await again(self, uuid, uri)

    monkeypatch.setattr(SimHypervisor, "check_peer", check_peer)
    monkeypatch.setattr(SimHypervisor, "migrate", migrates)
    monkeypatch.setattr(SimHypervisor, "send_again", send_again)
    return uris
