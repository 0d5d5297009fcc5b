"""The HTTP server: uvicorn, which never gives up a client that does not finish its request, or takes no answer.

It has no setting for either: its only timer runs between an answer and the first byte of the next request.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h11
import structlog
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from sterna.api.peers import peer_of

log = structlog.get_logger(__name__)

HEADERS_S = 10.0
"""The headers of a request have to be there within this: from the connection, or from their first byte."""
HANDSHAKE_S = 10.0
"""TLS is agreed on within this."""
REQUEST_S = 30.0
"""A request has to be there within this, headers and body: from the connection, or from the answer before it."""
IDLE_S = 25
"""Between an answer and the first byte of the next request. Clients keep connections for 5 s (httpx) or longer:
with uvicorn's own 5 s they met one that was just being closed, now and then."""
UNREAD_S = 60
"""A client that takes nothing of an answer for so long (an event stream's that hangs) is cut off."""
ASK_AFTER_S, ASK_EVERY_S, ASKED_AT_MOST = 30, 10, 3
"""The kernel asks a client that is silent while it is answered whether it is there."""


class Connection(H11Protocol):
    """One client's."""

    transport: asyncio.Transport

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._until_headers: asyncio.TimerHandle | None = None
        """Runs while the client owes the headers of a request that it has begun."""
        self._until_whole: asyncio.TimerHandle | None = None
        """Runs while the client owes a request, or the rest of one."""
        self._until_taken: asyncio.TimerHandle | None = None
        """Runs while something is not sent because the client does not take it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        """As uvicorn's."""
        super().connection_made(transport)
        # pause_writing for every byte that is not taken; asyncio's TLS counts from one
        transport.set_write_buffer_limits(high=1 if transport.get_extra_info("sslcontext") else 0, low=0)
        peer = peer_of(transport.get_extra_info("socket"))
        self.app_state = {**self.app_state, "peer": peer}  # part of each request's scope
        self._look(began=True)

    def data_received(self, data: bytes) -> None:
        """As uvicorn's."""
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """As uvicorn's."""
        super().on_response_complete()
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """As uvicorn's."""
        for timer in (self._until_headers, self._until_whole, self._until_taken):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """As uvicorn's."""
        super().pause_writing()
        self._wait_until_taken()

    def resume_writing(self) -> None:
        """As uvicorn's."""
        super().resume_writing()
        if self._until_taken is not None:
            self._until_taken.cancel()

    def _look(self, *, began: bool = False) -> None:
        """`began`: a request is expected now, though nothing of it has come."""
        self._look_at_headers(began)
        owed = self.conn.their_state in (h11.IDLE, h11.SEND_BODY) and not self.transport.is_closing()
        if owed and self._until_whole is None:
            self._until_whole = self.loop.call_later(REQUEST_S, self.transport.close)
        elif not owed and self._until_whole is not None:
            self._until_whole.cancel()
            self._until_whole = None

    def _look_at_headers(self, began: bool) -> None:
        owed = self.conn.their_state is h11.IDLE and not self.transport.is_closing()
        if owed and self._until_headers is None and (began or self.conn.trailing_data[0]):
            self._until_headers = self.loop.call_later(HEADERS_S, self.transport.close)
        elif not owed and self._until_headers is not None:
            self._until_headers.cancel()
            self._until_headers = None

    def _wait_until_taken(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._until_taken = self.loop.call_later(UNREAD_S, self._cut_off_unless_less_than, left)

    def _cut_off_unless_less_than(self, before: int) -> None:
        if self.transport.get_write_buffer_size() < before:
            self._wait_until_taken()
        else:
            self.transport.abort()


class Server(uvicorn.Server):
    """Of one application. Leaves signals to its caller: uvicorn would raise them again when all is done."""

    def __init__(self, app: Any, *, tls: ssl.SSLContext | None = None, **options: Any) -> None:
        """`tls`: for what it serves over TCP. `options` as uvicorn's."""
        options = {"ws": "none", "log_level": "warning", "timeout_keep_alive": IDLE_S, **options}
        options |= {"log_config": None, "access_log": False}  # its lines are logged as all others are
        options |= {"proxy_headers": False, "server_header": False}  # any client may send these headers
        super().__init__(uvicorn.Config(app, http=Connection, **options))
        self._quiet_until = 0.0
        self._tls = tls

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's; what is accepted later inherits what is set."""
        asyncio.get_running_loop().set_exception_handler(self._on_loop_error)
        encrypted = [one for one in sockets or () if self._tls is not None and one.family != socket.AF_UNIX]
        await super().startup(None if sockets is None else [one for one in sockets if one not in encrypted])
        for one in encrypted:
            self.servers.append(await self._encrypted(one))
        for listening in (one for server in getattr(self, "servers", ()) for one in server.sockets):
            if listening.family in (socket.AF_INET, socket.AF_INET6):
                _set_limits(listening)

    async def _encrypted(self, listening: socket.socket) -> asyncio.Server:
        def connection() -> asyncio.Protocol:
            return Connection(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

        return await asyncio.get_running_loop().create_server(
            connection,
            sock=listening,
            ssl=self._tls,
            ssl_handshake_timeout=HANDSHAKE_S,
            backlog=self.config.backlog,
        )

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Without a file for a connection, asyncio 3.11 logs a traceback two thousand times a second."""
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in (errno.EMFILE, errno.ENFILE):
            loop.default_exception_handler(context)
        elif loop.time() >= self._quiet_until:
            self._quiet_until = loop.time() + REQUEST_S
            fix = (
                "find out which clients have so many connections (`ss -tp`), or raise LimitNOFILE of the systemd "
                "unit"
            )
            log.warning("no client can be accepted for now", why=str(error), fix=fix)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def _set_limits(listening: socket.socket) -> None:
    """The kernel's: it alone knows what was sent and is not acknowledged."""
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD_S * 1000))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, ASK_AFTER_S)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, ASK_EVERY_S)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, ASKED_AT_MOST)
