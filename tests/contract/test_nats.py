"""What only the NATS adapter has: credentials, and servers that are not what they should be."""

import asyncio
import json
import signal
import socket

import pytest

from sterna.adapters.nats.bus import NatsBus
from sterna.domain.errors import Unreachable
from tests.contract.conftest import NatsWorld
from tests.narrowing import not_none

FIRST_WAY_OUT_S = 10
"""Two unanswered pings, 2 s apart, and room for a busy machine."""


async def test_credentials(guarded_nats: NatsWorld) -> None:
    good = await guarded_nats.bus("good", user="agent", password="right")
    await good.publish("s", b"")
    bad = await NatsBus.connect(guarded_nats.url, name="bad", user="agent", password="wrong")
    try:
        with pytest.raises(Unreachable):
            await bad.publish("s", b"")
    finally:
        await bad.close()


async def test_what_was_published_is_on_its_way_whatever_holds_the_loop_up_next(guarded_nats: NatsWorld) -> None:
    """A journal's fsync comes right after a hint that a guest stands still."""
    bus = await guarded_nats.bus("a", user="agent", password="right")
    address = guarded_nats.url.removeprefix("nats://").rsplit(":", 1)
    with socket.create_connection((address[0], int(address[1])), timeout=10) as other:
        login = json.dumps({"user": "agent", "pass": "right", "verbose": False, "pedantic": False})
        other.sendall(f"CONNECT {login}\r\nSUB s 1\r\nPING\r\n".encode())
        with other.makefile("rb") as lines:
            while lines.readline() != b"PONG\r\n":
                pass
            await bus.publish("s", b"now")
            while lines.readline() != b"MSG s 1 3\r\n":  # blocks the publisher's own loop; TimeoutError in 10 s
                pass


async def test_something_that_speaks_no_nats() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with asyncio.timeout(20):
        bus = await NatsBus.connect(url, name="a")
        with pytest.raises(Unreachable):
            await bus.publish("s", b"")
        await bus.close()
    server.close()


async def test_a_frozen_server_is_noticed_and_forgiven(guarded_nats: NatsWorld) -> None:
    bus = await guarded_nats.bus("a", user="agent", password="right")
    not_none(guarded_nats.process).send_signal(signal.SIGSTOP)
    try:
        async with asyncio.timeout(FIRST_WAY_OUT_S):
            while bus.connected:  # noqa: ASYNC110 - nothing tells us but the state itself
                await asyncio.sleep(0.05)
        with pytest.raises(Unreachable):
            await bus.publish("s", b"")
    finally:
        not_none(guarded_nats.process).send_signal(signal.SIGCONT)
    async with asyncio.timeout(20):
        await bus.wait_connected()
    await bus.publish("s", b"")
