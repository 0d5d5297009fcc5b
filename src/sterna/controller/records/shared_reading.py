"""One reading at a time, for all who asked before it began.

The records have few readers, and each request's token is looked for by them. Long lists must not take all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedReading(Generic[T]):
    """Of whatever `read` returns, which nobody changes."""

    def __init__(self, read: Callable[[], Awaitable[T]]) -> None:
        self._read = read
        self._present: asyncio.Task[T] | None = None
        self._next: asyncio.Task[T] | None = None

    async def latest(self) -> T:
        """As of now, or later. Waits for the reading before, and its own. Raises what `read` raises."""
        if self._next is None:
            self._next = asyncio.create_task(self._read_after(self._present), name="shared-reading")
        return await asyncio.shield(self._next)  # who leaves takes nothing from others

    async def _read_after(self, before: asyncio.Task[T] | None) -> T:
        if before is not None:
            await asyncio.wait({before})
        self._present, self._next = self._next, None
        try:
            return await self._read()
        finally:
            self._present = None
