"""A queue between two tasks that is bounded in number and in bytes. What comes when it is full is dropped."""

from __future__ import annotations

import asyncio
from collections import deque


class BoundedQueue:
    """Of byte strings. None is one of its items, of no size."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._waiting: deque[bytes | None] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()

    def offer(self, item: bytes | None) -> bool:
        """Add it. False where there is no room: it is dropped."""
        size = len(item or b"")
        if len(self._waiting) >= self._most or self._bytes + size > self._most_bytes:
            return False
        self._waiting.append(item)
        self._bytes += size
        self._filled.set()
        return True

    async def take(self) -> bytes | None:
        """The oldest, as soon as there is one. Has no bound of its own."""
        while not self._waiting:
            self._filled.clear()
            await self._filled.wait()
        item = self._waiting.popleft()
        self._bytes -= len(item or b"")
        return item
