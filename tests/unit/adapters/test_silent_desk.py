"""A desk that does not answer, or only byte by byte: who joins or renews is told in time."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from sterna.adapters.identity import https_desk
from sterna.adapters.identity.authority import Authority
from sterna.adapters.identity.https_desk import HttpsDesk
from sterna.domain.errors import Unreachable
from sterna.domain.trust.identities import Identity, Kind
from tests.unit.adapters.identities import issue


@pytest.mark.parametrize(("answer_s", "longest_s"), [(0.2, 30.0), (30.0, 0.2)])
async def test_a_desk_that_stays_silent(monkeypatch: pytest.MonkeyPatch, answer_s: float, longest_s: float) -> None:
    """It accepts the connection, and does not even begin TLS."""
    monkeypatch.setattr(https_desk, "ANSWER_S", answer_s)
    monkeypatch.setattr(https_desk, "LONGEST_S", longest_s)
    left = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await left.wait()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    try:
        with pytest.raises(Unreachable) as caught:
            async with asyncio.timeout(10):
                await HttpsDesk(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}").ca()
        assert "sterna agent request" in caught.value.fix
    finally:
        left.set()
        server.close()


async def test_a_desk_whose_answer_trickles_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each read has something before its own limit."""
    monkeypatch.setattr(https_desk, "LONGEST_S", 0.5)
    left = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        try:
            while not left.is_set():
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.02)
        except OSError:
            pass
        writer.close()

    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority = Authority.make(tmp_path / "ca", ["sterna"])
    tls.load_cert_chain(*issue(authority, Identity(kind=Kind.CONTROLLER, name="c1"), tmp_path))
    server = await asyncio.start_server(drip, "127.0.0.1", 0, ssl=tls)
    try:
        with pytest.raises(Unreachable, match="no answer in time"):
            async with asyncio.timeout(10):
                await HttpsDesk(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}").ca()
    finally:
        left.set()
        server.close()
