"""Virtual time: tests own it, so that hours of back-off take milliseconds and happen in one order only.

Time moves when a test calls `advance`, or, inside `auto()`, jumps to the next sleeper whenever every task of the
loop waits for something. Work done in threads is invisible to the loop: put it inside `hold()`.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TypeVar

T = TypeVar("T")

_START = datetime(2026, 1, 1, tzinfo=UTC)
_DAY_S = 86_400.0


class SimClock:
    """Implements ports.clock.Clock with time that only tests move."""

    def __init__(self, start: datetime = _START) -> None:
        self._start = start
        self._elapsed_s = 0.0
        self._order = count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._asleep = asyncio.Event()
        self._holds = 0

    def now(self) -> datetime:
        """Aware UTC: the start plus the virtual time that has passed."""
        return self._start + timedelta(seconds=self._elapsed_s)

    def monotonic_ms(self) -> float:
        """Virtual milliseconds since this clock was made."""
        return self._elapsed_s * 1000

    async def sleep(self, seconds: float) -> None:
        """Wait until virtual time has moved on by `seconds`; 0 or less only lets the others run."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed_s + seconds, next(self._order), woken))
        self._asleep.set()
        await woken

    async def run_until_idle(self) -> None:
        """Let every task run until all wait for something; no time passes."""
        quiet = 0
        while quiet < 2:  # a callback may schedule the next one only in the pass after ours
            await asyncio.sleep(0)
            quiet = 0 if _loop_is_busy() else quiet + 1

    async def advance(self, seconds: float) -> None:
        """Move time on by `seconds`, waking each sleeper at its own moment and letting its work settle."""
        target = self._elapsed_s + seconds
        await self.run_until_idle()
        while (due := self.next_due()) is not None and due <= target:
            self.wake_next()
            await self.run_until_idle()
        self._elapsed_s = target

    @asynccontextmanager
    async def auto(self, limit_s: float = _DAY_S) -> AsyncIterator[None]:
        """Inside, time jumps to the next sleeper whenever the loop is idle.

        After `limit_s` virtual seconds every sleeper gets a TimeoutError: a test that waits for what never comes
        fails instead of spinning for ever.
        """
        driver = asyncio.create_task(self._drive(self._elapsed_s + limit_s))
        try:
            yield
        finally:
            driver.cancel()
            await asyncio.gather(driver, return_exceptions=True)

    async def run(self, work: Awaitable[T], limit_s: float = _DAY_S) -> T:
        """Await `work` in auto mode."""
        async with self.auto(limit_s):
            return await work

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Inside, auto mode does not jump (a thread is working that the loop cannot see)."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1

    async def _drive(self, end_s: float) -> None:
        while True:
            await self.run_until_idle()
            due = self.next_due()
            if due is None:
                self._asleep.clear()
                await self._asleep.wait()
            elif self._holds:
                await asyncio.sleep(0.001)
            elif due > end_s:
                self._fail_all(f"nothing ended the wait within the virtual time allowed (now {self.now()})")
            else:
                self.wake_next()

    def next_due(self) -> float | None:
        """When the next sleeper wakes, in virtual seconds; None where there is no sleeper."""
        while self._sleepers and self._sleepers[0][2].done():  # cancelled while it slept
            heapq.heappop(self._sleepers)
        return self._sleepers[0][0] if self._sleepers else None

    def move_to(self, seconds: float) -> None:
        """Time moves on to that many virtual seconds; no sleeper is woken."""
        self._elapsed_s = max(self._elapsed_s, seconds)

    def wake_next(self) -> None:
        """Time jumps to the next sleeper, who wakes."""
        due, _, woken = heapq.heappop(self._sleepers)
        self.move_to(due)
        woken.set_result(None)

    def _fail_all(self, why: str) -> None:
        while self.next_due() is not None:
            heapq.heappop(self._sleepers)[2].set_exception(TimeoutError(why))


def _loop_is_busy() -> bool:
    # asyncio has no public word for "nothing is ready to run"; every CPython loop keeps its run queue here.
    return bool(getattr(asyncio.get_running_loop(), "_ready", ()))
