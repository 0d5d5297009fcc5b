"""Names are resolved beside the event loop; a resolver that hangs is left."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest

from sterna.kit import loop


def test_a_resolver_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on = threading.Event()

    def hangs(*args: object, **hints: object) -> list[Any]:
        goes_on.wait(20)
        return []

    async def main() -> None:
        async with asyncio.timeout(10):
            with pytest.raises(TimeoutError, match=r"no answer within 0\.1 s"):
                await asyncio.open_connection("bus.example", 4222)

    monkeypatch.setattr(loop, "RESOLVE_S", 0.1)
    monkeypatch.setattr(socket, "getaddrinfo", hangs)
    try:
        loop.run(main())
    finally:
        goes_on.set()


def test_what_it_says_is_what_it_is_taken_for(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def resolve(host: str, *args: Any, **hints: Any) -> list[Any]:
        if host != "bus.example":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real("127.0.0.1", *args, **hints)

    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            _, writer = await asyncio.open_connection("bus.example", server.sockets[0].getsockname()[1])
            writer.close()
            with pytest.raises(socket.gaierror, match="not known"):
                await asyncio.open_connection("nowhere.example", 1)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    loop.run(main())
