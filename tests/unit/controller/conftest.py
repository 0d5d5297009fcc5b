from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from sterna.adapters.sql.fleet import SqlFleet
from sterna.controller.controller import Controller

from .fakes import FakeAgent, FakeBus, HandClock
from .operating import Stage


@dataclass
class World:
    """Three hosts, a VM `web1` on host `a`, and a controller over a real database."""

    a: FakeAgent
    b: FakeAgent
    c: FakeAgent
    bus: FakeBus
    clock: HandClock
    fleet: SqlFleet
    controller: Controller
    web1: str

    async def pull(self) -> None:
        for name, agent in self.bus.agents.items():
            if agent.listening:
                await self.controller.projector.pull(name)


@pytest.fixture
async def world(database: str) -> AsyncIterator[World]:
    a, b, c = FakeAgent("a", 1), FakeAgent("b", 2), FakeAgent("c", 3, free=4 * 2**30)
    web1 = a.add_vm("web1", 1)
    bus, clock = FakeBus(a, b, c), HandClock()
    fleet = SqlFleet.open(database)
    controller = Controller(fleet, bus, clock)
    await bus.beat(controller)
    yield World(a, b, c, bus, clock, fleet, controller, web1)
    await controller.stop()


@pytest.fixture
async def stage(tmp_path: object) -> AsyncIterator[Stage]:
    stage = Stage.of(SqlFleet.open(f"sqlite:///{tmp_path}/controller.db"))
    yield stage
    await stage.controller.stop()
