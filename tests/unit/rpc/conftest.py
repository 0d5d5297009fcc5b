"""Three hosts, `a`, `b` and `c`, on a bus in memory and on virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sterna.adapters.sql.journal import SqlJournal
from sterna.rpc.client import RpcClient
from sterna.rpc.outbox import Outbox
from sterna.rpc.server import RpcServer
from sterna.sim.ports.bus import MemoryBroker
from sterna.sim.world.clock import SimClock


class Host:
    """One agent's rpc parts; `crash` and a new `life` stand for kill -9 and a restart."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.journal = SqlJournal.at(None, clock=world.clock)
        self.life()

    def life(self) -> None:
        world = self.world
        self.bus = world.broker.bus(self.name)
        self.client = RpcClient(self.bus, self.name, world.clock)
        self.server = RpcServer(self.bus, self.name, self.journal, world.clock)
        self.outbox = Outbox(self.journal, self.bus, self.name, world.clock)

    async def crash(self) -> None:
        """Everything in memory is gone at once, nothing is said to anybody."""
        self.world.broker.cut(self.name)
        await self.server.stop()
        await self.outbox.stop()
        await self.bus.close()
        self.world.broker.heal(self.name)
        self.life()


class World:
    """The bus, and three hosts on it."""

    def __init__(self) -> None:
        self.clock, self.broker = SimClock(), MemoryBroker()
        self.a, self.b, self.c = (Host(self, name) for name in "abc")


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    for host in (world.a, world.b, world.c):
        await host.crash()
