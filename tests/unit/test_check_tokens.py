"""Tokens of interrupted checks: swept when an agent starts and after an error, and again where that fails."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from sterna.agent.tokens import CheckTokens
from sterna.domain.errors import Unreachable


class Hypervisor:
    """One VM with one disk; it cannot be asked as often as `away` says."""

    def __init__(self, away: int) -> None:
        self.away = away

    async def vms(self) -> list[Any]:
        if self.away:
            self.away -= 1
            raise Unreachable("libvirtd does not answer")
        return [SimpleNamespace(uuid="u1")]

    async def vm(self, _uuid: str) -> Any:
        return SimpleNamespace(disks=[SimpleNamespace(files=["/srv/a.qcow2"])], cold=[])


class Storage:
    def __init__(self) -> None:
        self.swept: asyncio.Queue[str] = asyncio.Queue()

    async def sweep_tokens(self, path: str, _prefix: str, _in_use: frozenset[str]) -> None:
        self.swept.put_nowait(path)


class Clock:
    async def sleep(self, _seconds: float) -> None:
        await asyncio.sleep(0)


@pytest.mark.parametrize("away", [0, 3])
async def test_tokens_are_swept_at_the_start_and_after_an_error(away: int) -> None:
    storage = Storage()
    host = SimpleNamespace(name="host1", hypervisor=Hypervisor(away), storage=storage, clock=Clock())
    tokens = CheckTokens(host)  # type: ignore[arg-type]
    tokens.start()
    try:
        async with asyncio.timeout(10):
            assert await storage.swept.get() == "/srv/a.qcow2"
            with pytest.raises(RuntimeError), tokens.fresh():
                raise RuntimeError("interrupted")
            assert await storage.swept.get() == "/srv/a.qcow2"
    finally:
        await tokens.stop()
