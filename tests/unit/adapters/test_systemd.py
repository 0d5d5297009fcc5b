from __future__ import annotations

import asyncio
import socket
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sterna.adapters import systemd
from sterna.domain.trouble import Trouble
from sterna.ports.bus import BusState

SINCE = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)


class Bus:
    def __init__(self) -> None:
        self.now = BusState(connected=True, since=SINCE)

    def state(self) -> BusState:
        return self.now


@pytest.fixture(params=["path", "abstract"])
def received(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    address = str(tmp_path / "notify") if request.param == "path" else f"@{tmp_path}/notify"
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listening.bind(address if request.param == "path" else "\0" + address[1:])
    listening.setblocking(False)
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.setattr(systemd, "LOOK_S", 0.01)
    return listening


async def test_systemd_shows_a_lost_bus_and_since_when(received: socket.socket) -> None:
    bus, loop = Bus(), asyncio.get_running_loop()
    showing = asyncio.create_task(systemd.show_state(bus))  # type: ignore[arg-type]
    try:
        async with asyncio.timeout(10):
            assert await loop.sock_recv(received, 500) == b"READY=1"
            assert await loop.sock_recv(received, 500) == b"STATUS=on the message bus since 2026-11-29 12:00:00 UTC"
            bus.now = BusState(connected=False, since=SINCE, why="reset\nby peer")
            lost = await loop.sock_recv(received, 500)
    finally:
        showing.cancel()
        received.close()
    assert lost == b"STATUS=WITHOUT the message bus since 2026-11-29 12:00:00 UTC: reset by peer"


async def test_systemd_shows_why_a_host_cannot_migrate(received: socket.socket) -> None:
    troubles, loop = [""], asyncio.get_running_loop()
    showing = asyncio.create_task(systemd.show_state(Bus(), lambda: troubles[-1]))  # type: ignore[arg-type]
    try:
        async with asyncio.timeout(10):
            for _ in range(2):
                await loop.sock_recv(received, 500)
            troubles.append("libvirtd cannot be used since 2026-11-29 11:00:00 UTC:\nrefused")
            lost = await loop.sock_recv(received, 500)
            troubles.append("")
            back = await loop.sock_recv(received, 500)
    finally:
        showing.cancel()
        received.close()
    assert lost.startswith(
        b"STATUS=CANNOT MIGRATE: libvirtd cannot be used since 2026-11-29 11:00:00 UTC: refused; "
    )
    assert back == b"STATUS=on the message bus since 2026-11-29 12:00:00 UTC"


async def test_systemd_shows_what_a_process_warns_of(received: socket.socket) -> None:
    warned: list[Trouble | None] = [Trouble(why="its certificate expires on\n2026-12-09", since="")]
    loop = asyncio.get_running_loop()
    work = systemd.show_state(Bus(), warning=lambda: warned[-1])  # type: ignore[arg-type]
    showing = asyncio.create_task(work)
    try:
        async with asyncio.timeout(10):
            await loop.sock_recv(received, 500)
            ahead = await loop.sock_recv(received, 500)
            warned.append(None)
            well = await loop.sock_recv(received, 500)
    finally:
        showing.cancel()
        received.close()
    assert ahead.startswith(b"STATUS=WARNING: its certificate expires on 2026-12-09; on the message bus since")
    assert well.startswith(b"STATUS=on the message bus")


def test_without_systemd_or_with_a_dead_one_nothing_happens(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    systemd.send(READY="1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    systemd.send(READY="1")


def test_one_that_takes_no_more_is_not_waited_for(received: socket.socket) -> None:
    filling = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    filling.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            filling.sendto(b"x" * 4096, received.getsockname())
    systemd.send(STATUS="nobody reads this")  # a blocking one would never return
    filling.close()
    received.close()
