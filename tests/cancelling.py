"""A wait that ends because somebody else cancels what is waited for."""

from __future__ import annotations

import asyncio


async def cancelled() -> None:
    """Waits for something that somebody else cancels."""
    other = asyncio.ensure_future(asyncio.Event().wait())
    asyncio.get_running_loop().call_soon(other.cancel)
    await other
