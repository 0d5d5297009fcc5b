"""The small server of an agent's metrics: what it answers, and to whom."""

from __future__ import annotations

import asyncio

import httpx2
import pytest

from sterna.adapters.metrics import listener as subject
from sterna.adapters.metrics.listener import Listener
from sterna.domain.errors import Permanent, Temporary
from sterna.kit.digests import digest_of

TOKEN = "a-token-of-thirty-two-characters"


class Fixed:
    """One text."""

    def __init__(self) -> None:
        self.error: Temporary | None = None

    async def text(self) -> bytes:
        if self.error is not None:
            raise self.error
        return b"sterna_bus_connected 1.0\n"


async def served(listener: Listener) -> str:
    return f"http://127.0.0.1:{await listener.start('127.0.0.1', 0)}"


async def test_it_serves_metrics_and_nothing_else() -> None:
    listener = Listener(fixed := Fixed())
    url = await served(listener)
    async with httpx2.AsyncClient() as http:
        found = await http.get(f"{url}/metrics")
        assert (found.status_code, found.text) == (200, "sterna_bus_connected 1.0\n")
        assert found.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert (await http.get(f"{url}/v1/hosts")).status_code == 404
        assert (await http.post(f"{url}/metrics")).status_code == 405
        fixed.error = Temporary("the metrics are not written")
        busy = await http.get(f"{url}/metrics")
        assert (busy.status_code, busy.text) == (503, "the metrics are not written\n")
    listener.stop()


async def test_a_token_is_asked_for() -> None:
    listener = Listener(Fixed(), token_sha256=digest_of(TOKEN))
    url = await served(listener)
    async with httpx2.AsyncClient() as http:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
            refused = await http.get(f"{url}/metrics", headers=headers)
            assert refused.status_code == 401 and refused.headers["www-authenticate"].startswith("Bearer")
        found = await http.get(f"{url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        assert found.status_code == 200
    listener.stop()


@pytest.mark.parametrize(
    ("sent", "answer"),
    [(b"\x16\x03\x01nonsense\r\n\r\n", b"HTTP/1.1 400"), (b"GET /" + b"x" * 9000, b"HTTP/1.1 431")],
)
async def test_what_is_not_a_request_is_answered_as_such(sent: bytes, answer: bytes) -> None:
    listener = Listener(Fixed())
    port = await listener.start("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    async with asyncio.timeout(10):
        assert (await reader.read()).startswith(answer)
    writer.close()
    listener.stop()


async def test_silent_clients_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "CLIENT_S", 0.2)
    listener = Listener(Fixed())
    url = await served(listener)
    port = int(url.rpartition(":")[2])
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2 * subject.AT_ONCE)]
    async with httpx2.AsyncClient(timeout=10) as http:
        answers = []
        while 200 not in answers:  # those that wait behind all the silent ones are cut off as well
            try:
                answers.append((await http.get(f"{url}/metrics")).status_code)
            except httpx2.TransportError:
                answers.append(0)
    for _, writer in silent:
        writer.close()
    listener.stop()


async def test_a_port_that_is_taken() -> None:
    first, second = Listener(Fixed()), Listener(Fixed())
    port = await first.start("127.0.0.1", 0)
    with pytest.raises(Permanent, match=f"127.0.0.1:{port}"):
        await second.start("127.0.0.1", port)
    first.stop()
