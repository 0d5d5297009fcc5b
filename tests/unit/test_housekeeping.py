"""The housekeeping of one agent: what cannot be looked at or removed hides nothing else, and ends no loop."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from sterna.agent.housekeeping import EVERY_S, PRUNE_EVERY_S, Housekeeping
from sterna.domain.errors import Conflict, SternaError, Temporary, Unreachable
from sterna.domain.model import GuestState, Nic, Observation
from sterna.domain.plugs import OVS


class World:
    """Ports made ahead of guests that are all gone; what fails, and how."""

    def __init__(self, *devices: str) -> None:
        self.devices = list(devices)
        self.hung: dict[str, BaseException] = {}
        self.stuck: dict[str, Exception] = {}
        self.away: list[BaseException] = []
        self.pruned = 0
        self.prune_fails: list[Exception] = []

    async def made_ahead(self) -> list[Nic]:
        if self.away:
            raise self.away.pop()
        return [Nic(mac="52:54:00:00:00:01", plug=OVS, device=d, external_ids={"vm-uuid": d}) for d in self.devices]

    async def observe(self, vm: str) -> Observation:
        if vm in self.hung:
            raise self.hung[vm]
        return Observation(state=GuestState.ABSENT)

    async def unplug(self, nic: Nic, *, for_good: bool) -> bool:
        if nic.device in self.stuck:
            raise self.stuck[nic.device]
        self.devices.remove(nic.device or "")
        return True

    def open(self) -> list[Any]:
        return []

    def prune(self, _read_to: int, *, spare: str) -> int:
        self.pruned += 1
        if self.prune_fails:
            raise self.prune_fails.pop()
        return 0


class Clock:
    """It lets `rounds` looks happen, and then no more."""

    def __init__(self, rounds: int) -> None:
        self.rounds, self.now_s, self.over = rounds, 0.0, asyncio.Event()

    def monotonic_ms(self) -> float:
        return self.now_s * 1000

    async def sleep(self, seconds: float) -> None:
        if not self.rounds:
            self.over.set()
            await asyncio.Event().wait()
        self.rounds -= 1
        self.now_s += seconds
        await asyncio.sleep(0)


def housekeeping(world: World, rounds: int = 0) -> tuple[Housekeeping, Clock]:
    clock = Clock(rounds)
    host = SimpleNamespace(vif=world, hypervisor=world, clock=clock)
    return Housekeeping(host, world, lambda: 0), clock  # type: ignore[arg-type]


async def looks(world: World, rounds: int) -> list[Any]:
    keeping, clock = housekeeping(world, rounds)
    with capture_logs() as logs:
        keeping.start()
        try:
            await asyncio.wait_for(clock.over.wait(), 10)
        finally:
            await keeping.stop()
    return logs


@pytest.mark.parametrize(
    "error", [Temporary("QEMU does not answer"), ValueError("a bug"), asyncio.CancelledError()]
)
async def test_a_guest_that_cannot_be_looked_at_hides_no_other(error: BaseException) -> None:
    world = World("tap1", "tap2")
    world.hung = {"tap1": error}
    keeping, _ = housekeeping(world)
    assert (await keeping.sweep(), await keeping.sweep()) == ([], ["tap2"])
    assert world.devices == ["tap1"]
    world.hung.clear()
    assert (await keeping.sweep(), await keeping.sweep()) == ([], ["tap1"])


async def test_a_tap_that_cannot_be_removed_hides_no_other_and_is_tried_again() -> None:
    world = World("tap1", "tap2")
    world.stuck = {"tap1": Conflict("a process has it open")}
    keeping, _ = housekeeping(world)
    assert (await keeping.sweep(), await keeping.sweep()) == ([], ["tap2"])
    world.stuck.clear()
    assert await keeping.sweep() == ["tap1"]


async def test_what_cannot_be_looked_at_is_said_once() -> None:
    world = World("tap1")
    world.hung = {"tap1": Temporary("QEMU does not answer")}
    logs = await looks(world, 5)
    assert [(line["of"], line["why"]) for line in logs] == [("tap1", "QEMU does not answer")]


@pytest.mark.parametrize("error", [Unreachable("the switch is away"), ValueError("a bug")])
async def test_the_looks_go_on_after_any_error_which_is_logged(error: Exception) -> None:
    world = World("tap1")
    world.away = [error]
    logs = await looks(world, 3)
    assert world.devices == []
    (said,) = [line for line in logs if line["log_level"] == "warning"]
    assert said["why"] == str(error)
    assert said["exc_info"] is not isinstance(error, SternaError)


async def test_the_looks_go_on_after_what_they_wait_for_was_cancelled() -> None:
    world = World("tap1")
    world.away = [asyncio.CancelledError()]
    await looks(world, 3)
    assert world.devices == []


async def test_the_journal_is_pruned_though_the_switch_is_away_and_after_an_error() -> None:
    world, rounds = World("tap1"), int(2 * PRUNE_EVERY_S / EVERY_S)
    world.away = [Unreachable("the switch is away") for _ in range(rounds)]
    world.prune_fails = [OSError("the disk is full")]
    logs = await looks(world, rounds)
    assert world.pruned == 2
    assert [line["of"] for line in logs] == ["taps", "journal"]
