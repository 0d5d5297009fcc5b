"""An agent whose libvirtd is away, or whose journal cannot be written, neither looks ready nor absent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from sterna.domain.model import Data
from sterna.rpc.client import RpcClient

from .fleet import SimFleet


class Listening:
    def __init__(self, fleet: SimFleet) -> None:
        self.fleet, self.heard = fleet, list[Data]()

    async def until(self, seen: Callable[[Data], bool]) -> Data:
        """The next beacon of host2 that looks so; within ten seconds of the fleet's time."""
        self.heard.clear()
        for _ in range(20):
            await self.fleet.clock.sleep(0.5)
            if self.heard and seen(self.heard[-1]):
                return self.heard[-1]
        raise AssertionError(f"not seen, but {self.heard[-1:]}")


@pytest.fixture
async def beacons() -> AsyncIterator[Listening]:
    fleet = SimFleet()
    listening = Listening(fleet)

    async def take(topic: str, data: Data) -> None:
        listening.heard.append(data)

    await RpcClient(fleet.broker.bus("me"), "me", fleet.clock).listen("host.host2", take)
    yield listening


async def test_libvirtd_away_from_the_beginning(beacons: Listening) -> None:
    fleet = beacons.fleet

    async def scenario() -> None:
        fleet.world.hosts["host2"].libvirtd_up = False
        async with fleet:
            first = await beacons.until(lambda b: b["trouble"] is not None)
            assert (first["name"], first["host"]) == ("host2", None)
            assert "libvirtd cannot be used since 20" in first["trouble"]["why"] and first["trouble"]["fix"]
            later = await beacons.until(lambda b: b["trouble"] is not None)
            assert later["trouble"]["since"] == first["trouble"]["since"]
            fleet.world.hosts["host2"].libvirtd_up = True
            well = await beacons.until(lambda b: b["trouble"] is None)
            assert well["host"]["name"] == "host2"

    await fleet.clock.run(scenario())


async def test_libvirtd_that_hangs(beacons: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = beacons.fleet

    async def hangs() -> None:
        await asyncio.Event().wait()

    async def scenario() -> None:
        async with fleet:
            await beacons.until(lambda b: b["trouble"] is None)
            hypervisor = fleet.agents["host2"]._agent._host.hypervisor  # type: ignore[union-attr]
            monkeypatch.setattr(hypervisor, "host", hangs)
            hung = await beacons.until(lambda b: b["trouble"] is not None)
            assert hung["host"] is None and "no answer within 4 s" in hung["trouble"]["why"]

    await fleet.clock.run(scenario())


async def test_a_journal_that_cannot_be_written(beacons: Listening) -> None:
    fleet = beacons.fleet

    async def scenario() -> None:
        async with fleet:
            await beacons.until(lambda b: b["trouble"] is None)
            fleet.agents["host2"].disk_full(True)
            full = await beacons.until(lambda b: b["trouble"] is not None)
            assert (
                full["host"]["name"] == "host2" and "its journal cannot be written since" in full["trouble"]["why"]
            )
            fleet.agents["host2"].disk_full(False)
            await beacons.until(lambda b: b["trouble"] is None)

    await fleet.clock.run(scenario())
