"""For tests of adapters: a resolver for one name, which can hang or refuse."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from sterna.kit import loop, names

NAME = "host1.example"


class Resolver:
    """In place of the system's: `NAME` is this machine, on loopback."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self._goes_on = threading.Event()
        self._goes_on.set()
        self._refused = False
        self._came = threading.Event()
        self.asked: list[str] = []

    def __call__(self, host: Any, *args: Any, **hints: Any) -> Any:
        if host != NAME:
            return self._real(host, *args, **hints)
        self.asked.append(host)
        self._came.set()
        self._goes_on.wait(20)
        if self._refused:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self._real("127.0.0.1", *args, **hints)

    def hangs(self) -> None:
        self._goes_on.clear()

    def refuses(self) -> None:
        self._refused = True

    async def is_asked(self) -> None:
        assert await asyncio.to_thread(self._came.wait, 5)

    def end(self) -> None:
        self._goes_on.set()


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    """It hangs for a fifth of a second, where it hangs."""
    monkeypatch.setattr(names, "RESOLVE_S", 0.2)
    monkeypatch.setattr(loop, "RESOLVE_S", 0.2)
    found = Resolver(socket.getaddrinfo)
    monkeypatch.setattr(socket, "getaddrinfo", found)
    yield found
    found.end()
