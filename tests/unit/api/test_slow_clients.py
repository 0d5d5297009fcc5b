"""A client that hangs is cut off, while it asks and while it is answered: it keeps its connection not for ever."""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from sterna.api import server as api_server
from sterna.api.server import Server

ANSWER = b"HTTP/1.1 200 OK"
LONG_S = 20.0
SO_ATTACH_FILTER = 26
HALF = {
    "nothing": b"",
    "half a line": b"GET / HT",
    "half the headers": b"GET / HTTP/1.1\r\nHost: sterna\r\n",
    "half the body": b"POST / HTTP/1.1\r\nHost: sterna\r\nContent-Length: 10\r\n\r\n{}.",
    "half a chunk": b"POST / HTTP/1.1\r\nHost: sterna\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
}
WHOLE = b"POST / HTTP/1.1\r\nHost: sterna\r\nContent-Length: 4\r\n\r\n{}.."


@asynccontextmanager
async def serving(app: Any, listening: socket.socket) -> AsyncIterator[Server]:
    server = Server(app, lifespan="off")
    running = asyncio.create_task(server.serve(sockets=[listening]))
    async with asyncio.timeout(LONG_S):
        while not server.started:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
        yield server
        server.should_exit = True
        await running


@asynccontextmanager
async def talking(listening: socket.socket) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    if listening.family == socket.AF_UNIX:
        reader, writer = await asyncio.open_unix_connection(listening.getsockname())
    else:
        reader, writer = await asyncio.open_connection(*listening.getsockname())
    try:
        yield reader, writer
    finally:
        writer.close()


@pytest.fixture(params=["tcp", "unix"])
def listening(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "tcp":
        made = socket.create_server(("127.0.0.1", 0))
    else:
        made = socket.create_server(str(tmp_path / "api"), family=socket.AF_UNIX)
    with made:
        yield made


async def whole_body(receive: Any) -> bytes:
    """Raises ConnectionError where the client goes before."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body


async def answer(send: Any, body: bytes = b"ok") -> None:
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def polite(scope: Any, receive: Any, send: Any) -> None:
    """Answers when it has the whole request."""
    try:
        await whole_body(receive)
    except ConnectionError:
        return
    await answer(send)


# ------------------------------------------------------------ while it asks


@pytest.mark.parametrize("sent", HALF.values(), ids=HALF)
async def test_who_does_not_finish_a_request_is_cut_off(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(api_server, "REQUEST_S", 0.2)
    async with serving(polite, listening) as server, talking(listening) as (reader, writer):
        writer.write(sent)
        assert await reader.read() == b""
        assert not server.server_state.connections


@pytest.mark.parametrize("sent", ["half the headers", "half the body"])
async def test_nor_does_one_stay_that_sends_a_byte_now_and_then(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch, sent: str
) -> None:
    monkeypatch.setattr(api_server, "REQUEST_S", 0.2)
    whole = HALF[sent] + b"x" * 1000
    async with serving(polite, listening), talking(listening) as (reader, writer):
        closed, at = asyncio.create_task(reader.read()), 0
        while not closed.done() and at < len(whole):
            if not writer.transport.is_closing():
                writer.write(whole[at : at + 1])
            at += 1
            await asyncio.wait({closed}, timeout=0.02)
        assert closed.done() and at < 500
        closed.exception()  # the last byte may have met a closed door


async def test_the_next_request_has_to_come_whole_as_well(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_server, "REQUEST_S", 0.2)
    async with serving(polite, listening), talking(listening) as (reader, writer):
        writer.write(WHOLE + HALF["half the body"])  # both at once
        assert (await reader.read()).count(ANSWER) == 1


async def test_who_sends_more_than_one_after_the_other_is_answered(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_server, "REQUEST_S", 0.2)
    async with serving(polite, listening), talking(listening) as (reader, writer):
        for _ in range(10):
            await asyncio.sleep(0.05)  # together more than one may take
            writer.write(WHOLE)
            assert (await reader.readuntil(b"ok")).startswith(ANSWER)


def test_an_idle_connection_is_kept_longer_than_clients_keep_theirs() -> None:
    """Else a client meets a connection that is being closed just then."""
    kept_by_clients = httpx2.Limits().keepalive_expiry
    assert kept_by_clients is not None
    assert kept_by_clients * 2 < Server(polite).config.timeout_keep_alive < api_server.REQUEST_S


async def test_an_answer_may_take_as_long_as_it_takes(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_server, "REQUEST_S", 0.1)

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await whole_body(receive)
        await asyncio.sleep(0.5)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(5):  # an event stream
            await asyncio.sleep(0.1)
            await send({"type": "http.response.body", "body": b"event", "more_body": True})
        await send({"type": "http.response.body", "body": b"end"})

    async with serving(slow, listening), talking(listening) as (reader, writer):
        writer.write(WHOLE)
        told = await reader.readuntil(b"end")
        assert told.startswith(ANSWER) and told.count(b"event") == 5


async def test_a_body_that_comes_after_its_answer_is_waited_for_no_longer(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_server, "REQUEST_S", 0.2)

    async def hasty(scope: Any, receive: Any, send: Any) -> None:
        await answer(send)

    async with serving(hasty, listening), talking(listening) as (reader, writer):
        writer.write(HALF["half the body"])
        assert (await reader.read()).startswith(ANSWER)


# ------------------------------------------------------------ while it is answered


async def test_who_takes_nothing_is_cut_off(listening: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_server, "UNREAD_S", 1)
    ended = asyncio.Event()

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

        async def pour() -> None:
            while True:
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})

        pouring = asyncio.create_task(pour())
        await receive()  # the request
        assert (await receive())["type"] == "http.disconnect"
        pouring.cancel()
        ended.set()

    async with serving(endless, listening), talking(listening) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: sterna\r\n\r\n")
        reader._transport.pause_reading()  # type: ignore[attr-defined] # its process stands still, its kernel does not
        await ended.wait()


async def test_who_takes_it_slowly_gets_all_of_it(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_server, "UNREAD_S", 1)
    much = b"x" * 2**23

    async def large(scope: Any, receive: Any, send: Any) -> None:
        await whole_body(receive)
        await answer(send, much)

    async with serving(large, listening), talking(listening) as (reader, writer):
        writer.write(WHOLE)
        head, taken = await reader.readuntil(b"\r\n\r\n"), 0
        assert head.startswith(ANSWER)
        while taken < len(much):
            taken += len(await reader.read(2**18))
            await asyncio.sleep(0.05)  # all of it takes longer than the limit
        assert taken == len(much)


async def test_the_kernel_asks_whether_a_client_is_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with serving(polite, listening) as server, talking(listening) as (reader, writer):
            writer.write(WHOLE)
            await reader.readuntil(b"ok")
            (connection,) = server.server_state.connections
            accepted = connection.transport.get_extra_info("socket")
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == api_server.ASK_AFTER_S


def vanish(client: asyncio.StreamWriter) -> None:
    """Its kernel hears nothing any more, and acknowledges nothing: as a host without power."""
    drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF: return 0 bytes
    program = struct.pack("HL", 1, ctypes.addressof(drop_all))
    client.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


@pytest.mark.parametrize("sends", [True, False], ids=["while it is sent to", "while it waits"])
async def test_a_client_whose_host_is_gone_is_cut_off(monkeypatch: pytest.MonkeyPatch, sends: bool) -> None:
    for name in ("UNREAD_S", "ASK_AFTER_S", "ASK_EVERY_S", "ASKED_AT_MOST"):
        monkeypatch.setattr(api_server, name, 1)
    asked, gone = asyncio.Event(), asyncio.Event()

    async def stream(scope: Any, receive: Any, send: Any) -> None:
        await whole_body(receive)
        asked.set()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        leaving = asyncio.ensure_future(receive())
        while not leaving.done():
            if sends:
                await send({"type": "http.response.body", "body": b"event", "more_body": True})
            await asyncio.wait({leaving}, timeout=0.05)
        assert leaving.result()["type"] == "http.disconnect"
        gone.set()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with serving(stream, listening), talking(listening) as (_, writer):
            writer.write(WHOLE)
            await asked.wait()
            vanish(writer)
            await gone.wait()


async def test_an_answer_under_way_keeps_a_server_that_is_told_to_stop_for_a_moment_only(
    listening: socket.socket,
) -> None:
    began = asyncio.Event()

    async def hangs(scope: Any, receive: Any, send: Any) -> None:
        began.set()
        await asyncio.Event().wait()

    server = Server(hangs, lifespan="off", timeout_graceful_shutdown=1)
    running = asyncio.create_task(server.serve(sockets=[listening]))
    async with asyncio.timeout(LONG_S):
        while not server.started:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
        async with talking(listening) as (_, writer):
            writer.write(WHOLE)
            await began.wait()
            server.should_exit = True
            await running


# ------------------------------------------------------------ headers


@pytest.mark.parametrize("sent", ["nothing", "half a line", "half the headers"])
async def test_headers_have_less_time_than_a_body(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch, sent: str
) -> None:
    monkeypatch.setattr(api_server, "HEADERS_S", 0.2)
    async with serving(polite, listening), talking(listening) as (reader, writer):
        writer.write(HALF[sent])
        assert await reader.read() == b""


async def test_a_body_may_take_longer_than_the_headers(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_server, "HEADERS_S", 0.2)
    async with serving(polite, listening), talking(listening) as (reader, writer):
        writer.write(WHOLE[:-1])
        await asyncio.sleep(0.5)
        writer.write(WHOLE[-1:])
        assert (await reader.readuntil(b"ok")).startswith(ANSWER)


async def test_between_two_requests_nothing_is_owed_until_the_second_begins(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_server, "HEADERS_S", 0.2)
    async with serving(polite, listening), talking(listening) as (reader, writer):
        writer.write(WHOLE)
        await reader.readuntil(b"ok")
        await asyncio.sleep(0.5)
        writer.write(WHOLE)
        assert (await reader.readuntil(b"ok")).startswith(ANSWER)
        writer.write(HALF["half the headers"])
        assert await reader.read() == b""
