"""Tokens of interrupted checks: swept when an agent starts and after an error, and again where that fails."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
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
        return SimpleNamespace(written=(), disks=[SimpleNamespace(files=["/srv/a.qcow2"])], cold=[], firmware=())


class Storage:
    def __init__(self) -> None:
        self.swept: asyncio.Queue[str] = asyncio.Queue()

    async def sweep_tokens(self, path: str, _prefix: str, _in_use: frozenset[str]) -> None:
        self.swept.put_nowait(path)


class Clock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic_ms(self) -> float:
        return 0

    async def sleep(self, _seconds: float) -> None:
        await asyncio.sleep(0)


@pytest.mark.parametrize("away", [0, 3])
async def test_tokens_are_swept_at_the_start_and_after_an_error(away: int) -> None:
    storage = Storage()
    tokens = CheckTokens("host1", Hypervisor(away), storage, Clock())
    tokens.start()
    try:
        async with asyncio.timeout(10):
            assert await storage.swept.get() == "/srv/a.qcow2"
            with pytest.raises(RuntimeError), tokens.fresh():
                raise RuntimeError("interrupted")
            assert await storage.swept.get() == "/srv/a.qcow2"
    finally:
        await tokens.stop()


class OneHangs(Hypervisor):
    """Of its three VMs one hangs, or is a puzzle."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(away=0)
        self.error: BaseException | None = error

    async def vms(self) -> list[Any]:
        return [SimpleNamespace(uuid=name) for name in ("hung", "u1", "u2")]

    async def vm(self, uuid: str) -> Any:
        if uuid == "hung" and self.error is not None:
            raise self.error
        return SimpleNamespace(
            written=(), disks=[SimpleNamespace(files=[f"/srv/{uuid}.qcow2"])], cold=[], firmware=()
        )


@pytest.mark.parametrize(
    "error", [Unreachable("QEMU does not answer"), ValueError("a bug"), asyncio.CancelledError()]
)
async def test_a_vm_that_hangs_keeps_no_others_tokens(error: BaseException) -> None:
    storage, hypervisor = Storage(), OneHangs(error)
    tokens = CheckTokens("host1", hypervisor, storage, Clock())
    tokens.start()
    try:
        async with asyncio.timeout(10):
            assert [await storage.swept.get() for _ in range(2)] == ["/srv/u1.qcow2", "/srv/u2.qcow2"]
            hypervisor.error = None
            while await storage.swept.get() != "/srv/hung.qcow2":
                pass
    finally:
        await tokens.stop()


async def test_a_folder_that_cannot_be_swept_keeps_no_others_tokens() -> None:
    class OneFolderAway(Storage):
        away = True

        async def sweep_tokens(self, path: str, prefix: str, in_use: frozenset[str]) -> None:
            if self.away and path == "/srv/u1.qcow2":
                self.away = False
                raise Unreachable("the file system does not answer")
            await super().sweep_tokens(path, prefix, in_use)

    storage, hypervisor = OneFolderAway(), OneHangs(ValueError())
    hypervisor.error = None
    tokens = CheckTokens("host1", hypervisor, storage, Clock())
    tokens.start()
    try:
        async with asyncio.timeout(10):
            first = [await storage.swept.get() for _ in range(2)]
            assert first == ["/srv/hung.qcow2", "/srv/u2.qcow2"]
            again = [await storage.swept.get() for _ in range(3)]
            assert "/srv/u1.qcow2" in again
    finally:
        await tokens.stop()
