import asyncio
from datetime import datetime

import pytest

from sterna.kit.clock import SystemClock
from sterna.sim.world.clock import SimClock
from tests.narrowing import not_none


async def test_advance_wakes_each_at_its_moment() -> None:
    clock, log = SimClock(), []

    async def sleeper(name: str, *naps: float) -> None:
        for nap in naps:
            await clock.sleep(nap)
            log.append((name, clock.monotonic_ms()))

    tasks = [asyncio.create_task(sleeper("a", 1, 1, 1)), asyncio.create_task(sleeper("b", 1.5, 10))]
    await clock.advance(2.5)
    assert log == [("a", 1000), ("b", 1500), ("a", 2000)]
    assert clock.monotonic_ms() == 2500
    await clock.advance(10)
    await asyncio.gather(*tasks)
    assert log[3:] == [("a", 3000), ("b", 11500)]


async def test_auto_jumps_when_all_wait() -> None:
    clock = SimClock()
    started = clock.now()

    async def day() -> datetime:
        for _ in range(24):
            await clock.sleep(3600)
            for _ in range(10):
                await asyncio.sleep(0)
        return clock.now()

    assert (await clock.run(day(), limit_s=1e9) - started).total_seconds() == 86400


async def test_time_pausing_outside_auto() -> None:
    clock = SimClock()
    task = asyncio.create_task(clock.sleep(1))
    await clock.run_until_idle()
    assert not task.done()
    async with clock.auto():
        await task
    assert clock.monotonic_ms() == 1000


async def test_cancelled_sleepers_do_not_move_time() -> None:
    clock = SimClock()
    long, short = asyncio.create_task(clock.sleep(5)), asyncio.create_task(clock.sleep(9))
    await clock.run_until_idle()
    long.cancel()
    await clock.run(short)
    assert clock.monotonic_ms() == 9000


async def test_waiting_for_what_never_comes_fails() -> None:
    clock = SimClock()

    async def poll() -> None:
        while True:
            await clock.sleep(1)

    with pytest.raises(TimeoutError, match="virtual time"):
        await clock.run(poll(), limit_s=60)


async def test_hold_keeps_time_while_a_thread_works() -> None:
    clock = SimClock()
    sleeper = asyncio.create_task(clock.sleep(1))
    async with clock.auto():
        with clock.hold():
            await asyncio.to_thread(lambda: None)
            assert not sleeper.done()
        await sleeper


async def test_sleep_zero_lets_others_run() -> None:
    clock, ran = SimClock(), asyncio.Event()
    asyncio.get_running_loop().call_soon(ran.set)
    await clock.sleep(0)
    assert ran.is_set()


async def test_system_clock() -> None:
    clock = SystemClock()
    before = clock.monotonic_ms()
    await clock.sleep(0.01)
    assert clock.monotonic_ms() - before >= 9
    assert not_none(clock.now().utcoffset()).total_seconds() == 0
