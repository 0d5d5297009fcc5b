"""Waiting with an end, on the clock that tests can own (asyncio's own time-outs know only real time)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from sterna.ports.clock import Clock

T = TypeVar("T")


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
