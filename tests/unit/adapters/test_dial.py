"""The other host's libvirtd is dialled before the copy: one that takes connections and says nothing is refused."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import Mock

import libvirt
import pytest

from sterna.adapters.libvirt import inventory
from sterna.adapters.libvirt.inventory import LibvirtInventory
from sterna.adapters.libvirt.session import connection, host
from sterna.kit.bounded import Bounded
from sterna.kit.threads import MOST_STUCK

LIMIT_S = 0.3


@pytest.fixture
def dials(monkeypatch: pytest.MonkeyPatch) -> Bounded:
    own = Bounded("test-dial")
    monkeypatch.setattr(inventory, "_DIALS", own)
    monkeypatch.setattr(inventory, "_DIAL_S", LIMIT_S)
    monkeypatch.setattr(host, "EventHub", Mock())  # the test driver has no keep-alives
    return own


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of a libvirtd that answers: this host's own."""
    real = connection.open_connection

    def opened(uri: str) -> Any:  # the test driver has no keep-alives
        return libvirt.open(uri) if uri.startswith("test:") else real(uri)

    monkeypatch.setattr(connection, "open_connection", opened)
    monkeypatch.setattr(inventory, "open_connection", opened)
    return "test:///default"


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """The kernel takes its connections, and nobody reads them."""
    with socket.create_server(("127.0.0.1", 0), backlog=4 * MOST_STUCK) as listener:
        listener.setblocking(False)
        yield listener


async def eventually(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - a thread tells nobody
        await asyncio.sleep(0.01)


def taken(listener: socket.socket) -> list[socket.socket]:
    found = []
    while True:
        try:
            found.append(listener.accept()[0])
        except BlockingIOError:
            return found


async def test_a_libvirtd_that_takes_the_connection_and_says_nothing(dials: Bounded, silent: socket.socket) -> None:
    here = LibvirtInventory("test:///default")
    uri = f"qemu+tcp://127.0.0.1:{silent.getsockname()[1]}/system"
    asked = MOST_STUCK + 3
    async with asyncio.timeout(20):
        refused = [await here.check_peer(uri)]
        refused += await asyncio.gather(*(here.check_peer(uri) for _ in range(asked - 1)))
        assert [r.code for r in refused if r is not None] == ["peer-unreachable"] * asked
        assert all(r is not None and f"no answer within {LIMIT_S:g} s" in r.message for r in refused)
        await eventually(lambda: dials.hanging == MOST_STUCK)
        connections = taken(silent)
        assert len(connections) == MOST_STUCK
        for connection in connections:
            connection.close()
        await eventually(lambda: dials.hanging == 0)
    here.close()


async def test_a_silent_one_keeps_nobody_from_the_others(
    dials: Bounded, silent: socket.socket, answering: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = LibvirtInventory("test:///default")
    hanging = f"qemu+tcp://127.0.0.1:{silent.getsockname()[1]}/system"
    async with asyncio.timeout(20):
        await asyncio.gather(*(here.check_peer(hanging) for _ in range(MOST_STUCK)))
        await eventually(lambda: dials.hanging == MOST_STUCK)
        monkeypatch.setattr(inventory, "_DIAL_S", 15.0)
        refused = await here.check_peer(answering)
        assert refused is not None and refused.code == "peer-same-host"
        refused = await here.check_peer(hanging)  # at once, without another thread
        assert refused is not None and refused.code == "peer-unreachable"
        connections = taken(silent)
        assert len(connections) == MOST_STUCK
        for connection in connections:
            connection.close()
        await eventually(lambda: dials.hanging == 0)
    here.close()


async def test_many_dial_one_that_answers(dials: Bounded, answering: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crowd of requests: those for whom there is no place yet wait for one."""
    monkeypatch.setattr(inventory, "_DIAL_S", 15.0)
    here, together, real = LibvirtInventory("test:///default"), threading.Barrier(MOST_STUCK), inventory._host_uuid

    def slow(conn: Any) -> str:
        if threading.current_thread().name == "test-dial":
            together.wait(10)
        return real(conn)

    monkeypatch.setattr(inventory, "_host_uuid", slow)
    async with asyncio.timeout(20):
        refused = await asyncio.gather(*(here.check_peer(answering) for _ in range(2 * MOST_STUCK)))
    assert [r.code for r in refused if r is not None] == ["peer-same-host"] * 2 * MOST_STUCK
    here.close()


async def test_one_where_nobody_listens(dials: Bounded, silent: socket.socket) -> None:
    uri = f"qemu+tcp://127.0.0.1:{silent.getsockname()[1]}/system"
    silent.close()
    here = LibvirtInventory("test:///default")
    async with asyncio.timeout(20):
        refused = await here.check_peer(uri)
    assert refused is not None and refused.code == "peer-unreachable" and refused.fix
    here.close()
