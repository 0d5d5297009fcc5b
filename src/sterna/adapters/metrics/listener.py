"""A small HTTP server for `GET /metrics` alone: a host's agent has no other.

One request per connection. A client has a few seconds for all of it, and few are served at once, so that nobody who
reaches the port can take the process's time.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from http import HTTPStatus

import h11
import structlog

from sterna.domain.errors import Permanent, SternaError
from sterna.kit.digests import matches
from sterna.ports.metrics import CONTENT_TYPE, Scraped

log = structlog.get_logger(__name__)

CLIENT_S = 15.0
"""For a connection: TLS, the request, and taking the answer."""
AT_ONCE = 8
"""Connections that are served at once. The kernel keeps some more waiting."""
BACKLOG = 16
LARGEST_REQUEST = 8 << 10
"""Bytes; Prometheus sends some 300."""


class Listener:
    """Serves what `scraped` says."""

    def __init__(self, scraped: Scraped, *, tls: ssl.SSLContext | None = None, token_sha256: str | None = None):
        """`tls`: None for plain TCP. `token_sha256`: None where clients need no token."""
        self._scraped, self._tls, self._digest = scraped, tls, token_sha256
        self._server: asyncio.Server | None = None
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def start(self, address: str, port: int) -> int:
        """Listen on this IP address; the port. Raises Permanent where that is not possible."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            listening = socket.create_server((address, port), family=family, backlog=BACKLOG)
        except OSError as error:
            fix = "see `listen` in [metrics] of the settings: another process may have that port"
            raise Permanent(f"metrics cannot be served on {address}:{port}: {error.strerror}", fix=fix) from error
        self._server = await asyncio.start_server(
            self._client, sock=listening, ssl=self._tls, ssl_handshake_timeout=CLIENT_S if self._tls else None
        )
        return int(listening.getsockname()[1])

    def stop(self) -> None:
        """Take no more clients."""
        if self._server is not None:
            self._server.close()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(CLIENT_S), self._turns:
                writer.write(await self._answered(reader))
                await writer.drain()
        except (OSError, TimeoutError):
            return  # the client is gone, or slow
        except Exception:
            log.exception("a request for metrics failed")
        finally:
            writer.close()

    async def _answered(self, reader: asyncio.StreamReader) -> bytes:
        """The whole answer to one request."""
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=LARGEST_REQUEST)
        try:
            status, body = await self._result(await _request(connection, reader))
        except h11.RemoteProtocolError as error:
            status, body = HTTPStatus(error.error_status_hint), b""
        kind = CONTENT_TYPE if status is HTTPStatus.OK else "text/plain; charset=utf-8"
        headers = [("Content-Type", kind), ("Content-Length", str(len(body))), ("Connection", "close")]
        headers.append(("X-Content-Type-Options", "nosniff"))
        if status is HTTPStatus.UNAUTHORIZED:
            headers.append(("WWW-Authenticate", 'Bearer realm="sterna"'))
        answer = h11.Response(status_code=status.value, headers=headers, reason=status.phrase.encode())
        parts = (answer, h11.Data(data=body), h11.EndOfMessage())
        return b"".join(sent for part in parts if (sent := connection.send(part)) is not None)

    async def _result(self, request: h11.Request) -> tuple[HTTPStatus, bytes]:
        if not self._may_read(request):
            return HTTPStatus.UNAUTHORIZED, b"a token is needed: Authorization: Bearer TOKEN\n"
        if request.target.partition(b"?")[0] != b"/metrics":
            return HTTPStatus.NOT_FOUND, b"there is only /metrics\n"
        if request.method != b"GET":
            return HTTPStatus.METHOD_NOT_ALLOWED, b"only GET is possible\n"
        try:
            return HTTPStatus.OK, await self._scraped.text()
        except SternaError as error:
            return HTTPStatus.SERVICE_UNAVAILABLE, f"{error.message}\n".encode()

    def _may_read(self, request: h11.Request) -> bool:
        if self._digest is None:
            return True
        given = next((value for name, value in request.headers if name == b"authorization"), b"")
        scheme, _, token = given.decode("latin-1").partition(" ")
        return scheme.lower() == "bearer" and matches(token.strip(), self._digest)


async def _request(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Request:
    """Raises h11.RemoteProtocolError for what is not HTTP, OSError where the client leaves."""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            raise ConnectionError("the client has sent no request")
        connection.receive_data(await reader.read(LARGEST_REQUEST))
