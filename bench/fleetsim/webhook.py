"""What a rolling operation calls for each empty host: it is rebooted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine

LONGEST = 64 * 1024


class Webhook:
    """An HTTP server on loopback. Does nothing for a key that it has seen."""

    def __init__(self, port: int, reboot: Callable[[str], Coroutine[None, None, None]]) -> None:
        self.url = f"http://127.0.0.1:{port}/reboot"
        self._port, self._reboot = port, reboot
        self._seen: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)

    async def stop(self) -> None:
        """Listen no more; reboots that have begun are given up."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            lengths = [line for line in head.split("\r\n") if line.startswith("content-length:")]
            size = min(LONGEST, int(lengths[0].partition(":")[2])) if lengths else 0
            asked = json.loads(await reader.readexactly(size))
            self._take(str(asked["host"]), str(asked["key"]))
            status = "202 Accepted"
        except (asyncio.IncompleteReadError, ValueError, KeyError):
            status = "400 Bad Request"
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    def _take(self, host: str, key: str) -> None:
        if key in self._seen:
            return
        self._seen.add(key)
        task = asyncio.create_task(self._reboot(host))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
