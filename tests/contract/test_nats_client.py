"""A client whose server dies, hangs or closes it while it sends; and what nobody reports. With TLS and without.

Each case is one in which nats-py's callbacks do not come, or its calls do not return.
"""

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog
from nats.aio.client import Client

from sterna.adapters.nats import connection
from sterna.adapters.nats.bus import NatsBus
from sterna.domain.errors import Unknown, Unreachable
from sterna.ports.bus import Bus, Incoming
from sterna.rpc.client import RpcClient
from tests.contract.bus_clients import BACK_S, nothing, until
from tests.contract.conftest import NatsWorld
from tests.narrowing import not_none

NOTICED_S = 8
"""A server that hangs is noticed within this, with or without full buffers."""


class Sender:
    """Publishes without pause; counts what was taken and what was refused."""

    def __init__(self, bus: Bus, size: int) -> None:
        self.bus, self.size, self.sent, self.refused = bus, size, 0, 0
        self.task = asyncio.create_task(self._send())

    async def _send(self) -> None:
        while True:
            try:
                await self.bus.publish("x.y", b"z" * self.size)
                self.sent += 1
            except Unreachable:
                self.refused += 1
            await asyncio.sleep(0.001)


@asynccontextmanager
async def senders(bus: Bus, size: int, count: int = 3) -> AsyncIterator[list[Sender]]:
    crowd = [Sender(bus, size) for _ in range(count)]
    try:
        yield crowd
    finally:
        for sender in crowd:
            sender.task.cancel()


async def all_send(crowd: list[Sender], seconds: float) -> None:
    before = [sender.sent for sender in crowd]
    await until(lambda: all(s.sent > b for s, b in zip(crowd, before, strict=True)), seconds)


@pytest.mark.parametrize("size", [100, 5_000, 200_000])
async def test_a_server_that_dies_while_it_is_sent_to_is_left_and_joined_again(nats: NatsWorld, size: int) -> None:
    bus = await nats.bus("a")
    await bus.subscribe("x.*", nothing)
    async with senders(bus, size) as crowd:
        for _ in range(4):
            await all_send(crowd, 10)
            await nats.kill()
            await nats.start()
            await all_send(crowd, BACK_S)


@pytest.mark.parametrize("size", [100, 100_000])
async def test_a_server_that_hangs_is_noticed_and_no_sender_is_stuck(nats: NatsWorld, size: int) -> None:
    bus = await nats.bus("a")
    async with senders(bus, size) as crowd:
        await all_send(crowd, 10)
        nats.signal(signal.SIGSTOP)
        try:
            await until(lambda: not bus.connected, NOTICED_S)
            refused = [sender.refused for sender in crowd]
            await until(lambda: all(s.refused > r for s, r in zip(crowd, refused, strict=True)), 1)
        finally:
            nats.signal(signal.SIGCONT)
        await all_send(crowd, BACK_S)


async def test_an_answer_that_nobody_waits_for_any_more_ends_nothing(nats: NatsWorld) -> None:
    bus, came = await nats.bus("a"), asyncio.Event()

    async def heard(_message: object) -> None:
        came.set()

    await bus.subscribe("x.*", heard)
    first = not_none(bus._client)
    await until(lambda: not first.client._pongs, 5)
    nats.signal(signal.SIGSTOP)
    try:
        about = Path(f"/proc/{not_none(nats.process).pid}/stat")
        await until(lambda: about.read_text().rpartition(")")[2].split()[0] == "T", 5)  # stopped, all its threads
        ping = asyncio.ensure_future(first._ping())
        await until(lambda: bool(first.client._pongs), 1)
        ping.cancel()
        await until(lambda: all(answer.done() for answer in first.client._pongs), 1)
    finally:
        nats.signal(signal.SIGCONT)
    await bus.publish("x.y", b"")
    async with asyncio.timeout(BACK_S):
        await came.wait()
    assert bus.connected and bus._client is first and not first.client._pongs


async def test_a_call_that_a_hanging_server_may_have_taken_is_unknown_not_undelivered(
    nats: NatsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = await nats.bus("a")
    async with senders(bus, 200_000) as crowd:
        await all_send(crowd, 10)
        nats.signal(signal.SIGSTOP)
        try:
            await until(lambda: not_none(bus._client).client.pending_data_size > 2 << 20, 5)
            with pytest.raises(Unknown):
                await RpcClient(bus, "me", _Now()).call("you", "do", {}, silence_s=1)
        finally:
            nats.signal(signal.SIGCONT)


async def test_a_sender_that_is_cancelled_ends_although_the_buffers_are_full(nats: NatsWorld) -> None:
    """nats-py swallows the cancellation. An abort must not wait for the caller's deadline."""
    bus = await nats.bus("a")
    async with senders(bus, 200_000) as crowd:
        await all_send(crowd, 10)
        nats.signal(signal.SIGSTOP)
        try:
            await until(lambda: not_none(bus._client).client.pending_data_size > 2 << 20, 5)
            one = asyncio.create_task(RpcClient(bus, "me", _Now()).call("you", "do", {}, silence_s=60))
            sending = not_none(bus._client)._sending
            await until(lambda: len(sending) == len(crowd) + 1, 1)
            one.cancel()
            assert await asyncio.wait({one}, timeout=1) == ({one}, set())
            assert one.cancelled()
        finally:
            nats.signal(signal.SIGCONT)


class _Now:
    """ports.clock.Clock, as much of it as a call needs."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic_ms(self) -> float:
        return time.monotonic() * 1000

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def test_a_loss_that_no_callback_reports_is_seen_by_looking(
    nats: NatsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ends_silently(self: Client, status: object, do_cbs: bool = True) -> None:
        self._status = Client.CLOSED

    bus = await nats.bus("a")
    monkeypatch.setattr(connection._Client, "_close", ends_silently)
    not_none(nats.process).kill()
    await not_none(nats.process).wait()
    await until(lambda: not bus.state().connected and bus._client is None, BACK_S)
    monkeypatch.undo()
    await nats.start()
    assert bus.connected


async def test_a_library_that_stops_reading_is_noticed(nats: NatsWorld) -> None:
    bus = await nats.bus("a")
    not_none(not_none(bus._client).client._reading_task).cancel()
    old = not_none(bus._client)
    await until(lambda: bus._client is not None and bus._client is not old, NOTICED_S + BACK_S)
    assert "sent nothing" in old.why


async def test_a_process_that_stood_still_itself_keeps_its_connection(
    nats: NatsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "SILENCE_S", 1.0)
    monkeypatch.setattr(connection, "PING_S", 0.2)
    bus = await nats.bus("a")
    first = not_none(bus._client)
    time.sleep(4)  # noqa: ASYNC251 - the fault itself: nothing of this process runs
    await bus.publish("s", b"")
    for _ in range(3):
        await first.client.flush()
        await asyncio.sleep(connection.LOOK_S)
    assert bus._client is first
    assert bus.connected


async def test_a_client_that_its_server_closes_as_too_slow_is_back(nats: NatsWorld) -> None:
    """While this process stands still, another floods it with more than the server keeps for one client."""
    bus = await nats.bus("slow")
    await bus.subscribe("x.*", nothing)
    lost = not_none(bus._client).lost

    def flood() -> None:
        async def send() -> None:
            other = await NatsBus.connect(nats.url, name="flood", tls=nats.tls)
            for _ in range(20):
                await other.publish("x.y", b"z" * 900_000)
            await other.close()

        asyncio.run(send())

    thread = threading.Thread(target=flood)
    thread.start()
    thread.join()  # blocks the loop: this client does not read
    await until(lost.is_set, 20)
    await until(lambda: bus.connected, BACK_S)
    await bus.publish("s", b"")


async def test_no_socket_stays_open(nats: NatsWorld) -> None:
    def sockets() -> int:
        count = 0
        for fd in os.listdir("/proc/self/fd"):
            try:
                count += os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
            except FileNotFoundError:
                continue
        return count

    bus = await nats.bus("a")
    async with senders(bus, 100_000) as crowd:
        await all_send(crowd, 10)
        before = sockets()
        for _ in range(3):
            await nats.kill()
            await nats.start()
            await all_send(crowd, BACK_S)
        nats.signal(signal.SIGSTOP)
        await until(lambda: not bus.connected, NOTICED_S)
        nats.signal(signal.SIGCONT)
        await all_send(crowd, BACK_S)
        await until(lambda: sockets() <= before, 5)


async def test_closing_is_bounded_while_the_server_hangs(nats: NatsWorld) -> None:
    bus = await nats.bus("a")
    async with senders(bus, 200_000) as crowd:
        await all_send(crowd, 10)
        nats.signal(signal.SIGSTOP)
        await until(lambda: not_none(bus._client).client.pending_data_size > 2 << 20, 5)
        async with asyncio.timeout(2 * connection.CLOSE_S + 1):
            await bus.close()
        nats.signal(signal.SIGCONT)
    assert not bus.connected


async def test_one_line_when_lost_and_one_when_back(nats: NatsWorld) -> None:
    bus = await nats.bus("a")
    lost_at = bus.state().since
    with structlog.testing.capture_logs() as logs:
        await nats.kill()
        await until(lambda: bus._client is None, BACK_S)
        state = bus.state()
        assert not state.connected
        assert state.since > lost_at
        assert state.why
        await until(lambda: sum(line["event"] == "nats" for line in logs) > 5, 10)  # tries, logged for debugging
        assert "Connect" in bus.state().why
        await nats.start()
    lines = [line["event"] for line in logs if line["log_level"] != "debug"]
    assert lines == ["the message bus is lost", "the message bus is back"]
    assert bus.state().connected


async def test_a_handler_that_does_not_end_does_not_keep_its_process(
    nats: NatsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is cancelled, and goes on: clean-up on a dead file system."""
    monkeypatch.setattr("sterna.adapters.nats.bus.CLOSE_S", 0.2)
    bus = await nats.bus("a")
    under_way, over = asyncio.Event(), asyncio.Event()

    async def clean_up(message: Incoming) -> None:
        under_way.set()
        while not over.is_set():
            with suppress(asyncio.CancelledError):
                await over.wait()

    await bus.subscribe("x.y", clean_up)
    await bus.publish("x.y", b"1")
    async with asyncio.timeout(10):
        await under_way.wait()
    closing = asyncio.create_task(bus.close())
    await asyncio.wait({closing}, timeout=10)
    closed = closing.done()
    over.set()
    await closing
    assert closed and not bus.connected


async def test_why_a_server_refuses_is_logged_once(guarded_nats: NatsWorld) -> None:
    with structlog.testing.capture_logs() as logs:
        bus = await NatsBus.connect(guarded_nats.url, name="bad", user="agent", password="wrong")
        await until(lambda: sum(line["event"] == "nats" for line in logs) > 5, 10)
        await bus.close()
    lines = [line for line in logs if line["log_level"] != "debug"]
    assert [line["event"] for line in lines] == [
        "the message bus cannot be joined",
        "the message bus does not answer yet",
    ]
    assert "Authorization" in lines[0]["why"]


async def test_a_server_without_tls_is_not_given_the_password(tmp_path: Path) -> None:
    """A server that says it has no TLS, where the settings ask for TLS: nothing is sent to it."""
    import ssl

    received = bytearray()

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.9.10","max_payload":1048576,"auth_required":true}\r\n')
        received.extend(await reader.read())
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0, family=socket.AF_INET)
    url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    bus = await NatsBus.connect(url, name="a", user="agent", password="secret", tls=ssl.create_default_context())
    try:
        assert not bus.connected
        assert "TLS" in bus.state().why
    finally:
        await bus.close()
        server.close()
    assert bytes(received) == b""
