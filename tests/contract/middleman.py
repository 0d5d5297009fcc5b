"""Somebody between a client and its server: takes connections, and writes down what comes in, TLS or not."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

INFO = {"server_id": "x", "version": "2.9.10", "proto": 1, "host": "x", "port": 4222, "max_payload": 1 << 20}


@dataclass
class Heard:
    """What a client said."""

    port: int = 0
    plain: bytes = b""
    """Without TLS."""
    inside: bytes = b""
    """In TLS: what a handshake with this client would have let anybody read."""
    connections: int = 0
    came: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.port}"


@asynccontextmanager
async def bus_without_tls(**info: object) -> AsyncIterator[Heard]:
    """A bus whose INFO has whatever is given, and no TLS."""
    heard = Heard()
    line = b"INFO " + json.dumps(INFO | info).encode() + b"\r\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.connections += 1
        writer.write(line)
        with suppress(OSError):
            while said := await reader.read(65536):
                heard.plain += said
                if b"PING" in said:
                    writer.write(b"PONG\r\n")
        writer.close()
        heard.came.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    heard.port = server.sockets[0].getsockname()[1]
    try:
        yield heard
    finally:
        server.close()


@asynccontextmanager
async def bus_with(cert_file: Path, key_file: Path) -> AsyncIterator[Heard]:
    """A bus that asks for TLS, and shows this certificate."""
    heard, tls = Heard(), showing(cert_file, key_file)
    line = b"INFO " + json.dumps(INFO | {"tls_required": True, "auth_required": True}).encode() + b"\r\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.connections += 1
        writer.write(line)
        with suppress(OSError):
            await writer.start_tls(tls)
            while said := await reader.read(65536):
                heard.inside += said
        writer.close()
        heard.came.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    heard.port = server.sockets[0].getsockname()[1]
    try:
        yield heard
    finally:
        server.close()


@asynccontextmanager
async def stripping(server_port: int) -> AsyncIterator[Heard]:
    """Passes everything on to the real bus and back, but for the words in INFO that ask for TLS."""
    heard = Heard()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.connections += 1
        there, onward = await asyncio.open_connection("127.0.0.1", server_port)
        info = json.loads((await there.readline()).removeprefix(b"INFO "))
        assert info["tls_required"], "the real bus asks for it"
        kept = {key: value for key, value in info.items() if not key.startswith("tls")}
        writer.write(b"INFO " + json.dumps(kept).encode() + b"\r\n")
        with suppress(OSError):
            while said := await reader.read(65536):
                heard.plain += said
                onward.write(said)
        for end in (onward, writer):
            end.close()
        heard.came.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    heard.port = server.sockets[0].getsockname()[1]
    try:
        yield heard
    finally:
        server.close()


@asynccontextmanager
async def injecting(server_port: int, words: bytes) -> AsyncIterator[Heard]:
    """Passes everything on, TLS included, and says `words` of its own behind INFO, where there is no TLS yet."""
    heard = Heard()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while said := await reader.read(65536):
                writer.write(said)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.connections += 1
        there, onward = await asyncio.open_connection("127.0.0.1", server_port)
        writer.write(await there.readline() + words)
        await asyncio.gather(copy(reader, onward), copy(there, writer))
        heard.came.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    heard.port = server.sockets[0].getsockname()[1]
    try:
        yield heard
    finally:
        server.close()


@asynccontextmanager
async def web_server(
    answer: bytes, tls: ssl.SSLContext | None = None, greeting: bytes = b""
) -> AsyncIterator[Heard]:
    """What answers at the API's address: these bytes, to each request; and says `greeting` first."""
    heard = Heard()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.connections += 1
        with suppress(OSError):
            if tls is not None:
                await writer.start_tls(tls)
            writer.write(greeting)
            while said := await reader.read(65536):
                if tls is None:
                    heard.plain += said
                else:
                    heard.inside += said
                if tls is None or not answer or b"\r\n\r\n" in said:  # a ClientHello does not end like a request
                    writer.write(answer)
                    break
        writer.close()
        heard.came.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    heard.port = server.sockets[0].getsockname()[1]
    try:
        yield heard
    finally:
        server.close()


def showing(cert_file: Path, key_file: Path) -> ssl.SSLContext:
    """TLS of a server with this certificate."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(cert_file, key_file)
    tls.num_tickets = 0  # libvirt's client takes them for silence
    return tls
