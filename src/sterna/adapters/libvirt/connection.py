"""Connections to libvirtd: one event-loop thread per process, and named threads for the calls.

libvirt's calls block (a migration for minutes), so each connection has a thread of its own and never shares
asyncio's executor. A connection that was cut, because libvirtd was restarted, is opened anew at the next call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import libvirt

from sterna.adapters.threads import Worker
from sterna.domain.errors import NotFound, Permanent, SternaError, Unreachable

_KEEPALIVE_INTERVAL_S = 5
_KEEPALIVE_COUNT = 4
"""A libvirtd that is silent for some 25 s is taken for dead; on a busy host it may well be silent for 5."""

T = TypeVar("T")
Connect = Any
"""`libvirt.virConnect`: the binding has no types."""

_loop_lock = threading.Lock()
_loop_started = False

_GONE = {
    (getattr(libvirt, domain, None), getattr(libvirt, code, None))
    for domain in ("VIR_FROM_RPC", "VIR_FROM_REMOTE")
    for code in ("VIR_ERR_SYSTEM_ERROR", "VIR_ERR_INTERNAL_ERROR", "VIR_ERR_NO_CONNECT", "VIR_ERR_RPC")
}
"""(domain, code) of errors that mean the connection, not the call."""


def start_event_loop() -> None:
    """Start libvirt's event loop in its thread, once per process. Must precede the first connection, or
    neither events nor keep-alives work on it."""
    global _loop_started  # noqa: PLW0603 - libvirt's event loop is a thing of the process
    with _loop_lock:
        if _loop_started:
            return
        libvirt.virEventRegisterDefaultImpl()
        # libvirt prints every error to stderr otherwise; they all arrive as exceptions anyway.
        libvirt.registerErrorHandler(lambda _context, _error: None, None)
        threading.Thread(target=_run_events, name="sterna-libvirt-events", daemon=True).start()
        _loop_started = True


def _run_events() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


def open_connection(uri: str) -> Connect:
    """A connection with keep-alives. Blocks. Raises Unreachable."""
    start_event_loop()
    try:
        conn = libvirt.open(uri)
        conn.setKeepAlive(_KEEPALIVE_INTERVAL_S, _KEEPALIVE_COUNT)
    except libvirt.libvirtError as error:
        raise Unreachable(f"libvirtd at {uri} does not answer: {error}", fix="see that libvirtd runs") from error
    return conn


def is_gone(error: libvirt.libvirtError, conn: Connect | None = None) -> bool:
    """Does this error say that the connection to libvirtd is lost, not that libvirtd refused?"""
    if (error.get_error_domain(), error.get_error_code()) in _GONE:
        return True
    return conn is not None and not _alive(conn)


def in_our_words(error: libvirt.libvirtError, conn: Connect | None = None) -> SternaError:
    """libvirt's error as one of ours, with libvirt's own message."""
    words = error.get_error_message() or str(error)
    if is_gone(error, conn):
        return Unreachable(f"the connection to libvirtd was lost: {words}", fix="see that libvirtd runs")
    if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
        return NotFound(words)
    return Permanent(f"libvirt refused: {words}")


class Connection:
    """One libvirt connection and the one thread that uses it."""

    def __init__(self, uri: str, name: str) -> None:
        self._uri = uri
        self._worker = Worker(name)
        self._conn: Connect | None = None

    async def run(self, act: Callable[[Connect], T]) -> T:
        """`act` with an open connection, in this connection's thread.

        A caller that is cancelled stops waiting; the call goes on. Raises Unreachable, NotFound, Permanent.
        """
        return await self._worker.run(lambda: self._attempt(act))

    def close(self) -> None:
        """Close after what is queued. Not waited for."""
        self._worker.post(self._drop)
        self._worker.stop()

    def _attempt(self, act: Callable[[Connect], T]) -> T:
        if self._conn is not None and not _alive(self._conn):
            self._drop()
        if self._conn is None:
            self._conn = open_connection(self._uri)
        try:
            return act(self._conn)
        except libvirt.libvirtError as error:
            ours = in_our_words(error, self._conn)
            if isinstance(ours, Unreachable):
                self._drop()
            raise ours from error

    def _drop(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            close_quietly(conn)


def close_quietly(conn: Connect) -> None:
    """Close; a connection that is lost already is closed enough."""
    try:
        conn.close()
    except libvirt.libvirtError:
        return


def _alive(conn: Connect) -> bool:
    try:
        return bool(conn.isAlive())
    except libvirt.libvirtError:
        return False
