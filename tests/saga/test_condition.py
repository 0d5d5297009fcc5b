"""An agent whose libvirtd is away, or whose journal cannot be written, neither looks ready nor absent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from itertools import pairwise

import pytest

from sterna.agent.condition import JournalChecks
from sterna.domain.model import Data
from sterna.domain.trouble import Trouble
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

    await RpcClient(fleet.broker.bus("me", "me"), "me", fleet.clock).listen("host.host2", take)
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


async def test_what_an_agent_warns_of_is_in_its_beacon_and_is_no_trouble(beacons: Listening) -> None:
    fleet = beacons.fleet
    warned: list[Trouble | None] = [Trouble(why="its certificate expires", since="2026-11-25T10:00:00+00:00")]
    fleet.agents["host2"].warning = lambda: warned[-1]

    async def scenario() -> None:
        async with fleet:
            told = await beacons.until(lambda b: b["warning"] is not None)
            assert told["warning"]["why"] == "its certificate expires" and told["trouble"] is None
            warned.append(None)
            await beacons.until(lambda b: b["warning"] is None)

    await fleet.clock.run(scenario())


async def test_a_host_where_all_hangs_is_heard_of_before_it_counts_as_down(
    beacons: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is looked at takes as long as the longest look, and the next beacon does not wait for longer."""
    fleet, heard_ms = beacons.fleet, list[float]()

    async def hangs() -> None:
        await asyncio.Event().wait()

    async def slow() -> str:
        await fleet.clock.sleep(2.0)
        return "the disk does not answer"

    async def scenario() -> None:
        async with fleet:
            await beacons.until(lambda b: b["trouble"] is None)
            agent = fleet.agents["host2"]._agent
            monkeypatch.setattr(agent._host.hypervisor, "host", hangs)  # type: ignore[union-attr]
            monkeypatch.setattr(agent.condition, "_checks", JournalChecks(state_dir=slow))  # type: ignore[union-attr]
            both = ("no answer within 4 s", "the disk does not answer")
            await beacons.until(
                lambda b: b["trouble"] is not None and all(why in b["trouble"]["why"] for why in both)
            )
            for _ in range(3):
                beacons.heard.clear()
                while not beacons.heard:
                    await fleet.clock.sleep(0.1)
                heard_ms.append(fleet.clock.monotonic_ms())

    await fleet.clock.run(scenario())
    assert max(after - before for before, after in pairwise(heard_ms)) <= 4500  # down after 5 s
