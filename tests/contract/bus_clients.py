"""What tests of clients of the bus share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

BACK_S = 2
"""All work again within this after the server's return."""


async def until(holds: Callable[[], bool], seconds: float) -> float:
    """Return when it holds; how long that took. Raises TimeoutError."""
    began = time.monotonic()
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - other processes
            await asyncio.sleep(0.02)
    return time.monotonic() - began


async def nothing(_message: object) -> None:
    pass
