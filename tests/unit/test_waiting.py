"""Pauses between tries, and waits with an end."""

from __future__ import annotations

import asyncio

import pytest

from sterna.kit.waiting import Backoff, paused, within
from sterna.sim.world.clock import SimClock


def test_pauses_grow_to_the_longest_and_begin_anew() -> None:
    backoff = Backoff(0.5, 3.0)
    pauses = []
    for _ in range(5):
        pauses.append(backoff.seconds)
        backoff.grow()
    assert pauses == [0.5, 1.0, 2.0, 3.0, 3.0] and not backoff.first
    backoff.reset()
    assert backoff.seconds == 0.5 and backoff.first


async def test_what_is_awaited_is_cancelled_at_its_end() -> None:
    clock, ended = SimClock(), asyncio.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def play() -> None:
        with pytest.raises(TimeoutError, match="nothing within 7 s"):
            await within(clock, 7, forever())
        assert clock.monotonic_ms() == began + 7000

    began = clock.monotonic_ms()
    await clock.run(play())
    assert ended.is_set()


async def test_what_it_raises_comes_out() -> None:
    clock = SimClock()

    async def fails() -> None:
        raise ValueError("x")

    async def play() -> None:
        with pytest.raises(ValueError, match="x"):
            await within(clock, 7, fails())

    await clock.run(play())


@pytest.mark.parametrize(("woken_after", "slept_s"), [(2, 2), (60, 10)])
async def test_a_pause_ends_early_where_it_is_woken(woken_after: int, slept_s: int) -> None:
    clock, woken = SimClock(), asyncio.Event()

    async def wake() -> None:
        await clock.sleep(woken_after)
        woken.set()

    async def play() -> None:
        waking = asyncio.create_task(wake())
        await paused(clock, 10, woken)
        assert clock.monotonic_ms() == began + slept_s * 1000
        waking.cancel()

    began = clock.monotonic_ms()
    await clock.run(play())
