"""Waiting with an end, and pauses between tries, on a clock that tests can own.

asyncio's own time-outs know only real time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Clock(Protocol):
    """Whose seconds they are."""

    async def sleep(self, seconds: float) -> None:
        """Return after that time."""


class Backoff:
    """The pauses between tries, each longer than the one before."""

    def __init__(self, first_s: float, longest_s: float, *, factor: float = 2.0) -> None:
        self._first_s, self._longest_s, self._factor = first_s, longest_s, factor
        self.seconds = first_s
        """The next pause."""

    @property
    def first(self) -> bool:
        """Has it not grown yet?"""
        return self.seconds == self._first_s

    def grow(self) -> None:
        """One more try has failed."""
        self.seconds = min(self.seconds * self._factor, self._longest_s)

    def reset(self) -> None:
        """A try went well."""
        self.seconds = self._first_s


async def within(clock: Clock, seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled after `seconds`. Raises TimeoutError then."""
    doing = asyncio.ensure_future(work)
    waiting = asyncio.ensure_future(clock.sleep(seconds))
    try:
        await asyncio.wait((doing, waiting), return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        if not waiting.cancelled() and waiting.exception() is not None:
            waiting.result()
        raise TimeoutError(f"nothing within {seconds:g} s")
    finally:
        for task in (doing, waiting):
            task.cancel()
        await asyncio.gather(doing, waiting, return_exceptions=True)


async def paused(clock: Clock, seconds: float, woken: asyncio.Event) -> None:
    """Sleep for `seconds`, or until `woken` is set, whichever is first."""
    try:
        await within(clock, seconds, woken.wait())
    except TimeoutError:
        return
