"""Connections to libvirtd: one event-loop thread per process, and named threads for the calls.

libvirt's calls block (a migration for minutes), so each connection has a thread of its own and never shares
asyncio's executor. A connection that was cut, because libvirtd was restarted, is opened again at the next call.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import libvirt
import structlog

from sterna.adapters.libvirt.session.error_advice import fix_for
from sterna.domain.errors import NotFound, Permanent, SternaError, Temporary, Unreachable
from sterna.kit.bounded import Bounded
from sterna.kit.threads import Worker

_KEEPALIVE_INTERVAL_S = 5
_KEEPALIVE_COUNT = 4
"""A libvirtd that is silent for some 25 s is taken for dead; on a busy host it may well be silent for 5."""
CALL_LIMIT_S = 90.0
"""Keep-alives end the calls to a libvirtd that is silent. They do not end one that libvirtd itself never answers
(its guest's QEMU hangs), nor the opening of a connection. libvirt's own longest wait is 30 s."""
OPEN_S = 30.0
"""libvirt itself waits without a limit for a libvirtd that accepts a connection and never answers."""
_EVENTS_RETRY_S = 1.0
TICK_S = 1.0
"""The event loop is given this little work so regularly: without any it cannot be told from one that hangs."""

log = structlog.get_logger(__name__)

T = TypeVar("T")
Connect = Any
"""`libvirt.virConnect`: the binding has no types."""

_loop_lock = threading.Lock()
_loop_started = False
_ticked_at: float | None = None
"""When the event loop last ran (`time.monotonic`); None before it is started."""

_GONE = {
    (getattr(libvirt, domain, None), getattr(libvirt, code, None))
    for domain in ("VIR_FROM_RPC", "VIR_FROM_REMOTE")
    for code in ("VIR_ERR_SYSTEM_ERROR", "VIR_ERR_INTERNAL_ERROR", "VIR_ERR_NO_CONNECT", "VIR_ERR_RPC")
}
"""(domain, code) of errors that mean the connection, not the call."""
_BUSY = {libvirt.VIR_ERR_OPERATION_TIMEOUT, libvirt.VIR_ERR_RESOURCE_BUSY}
"""Another call holds the domain: libvirt waits 30 s for it (`cannot acquire state change lock`)."""
_WAIT = (
    "try again; if it stays so, find out what the guest is doing (`virsh domjobinfo`) and whether its QEMU hangs"
)


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
        _tick()
        ticks = libvirt.virEventAddTimeout(round(TICK_S * 1000), _tick, None)
        # libvirt must not call into an interpreter that is ending
        atexit.register(libvirt.virEventRemoveTimeout, ticks)
        threading.Thread(target=_run_events, name="sterna-libvirt-events", daemon=True).start()
        _loop_started = True


def _tick(*_: object) -> None:
    global _ticked_at  # noqa: PLW0603 - the same
    _ticked_at = time.monotonic()


def event_loop_silent_s() -> float:
    """For how long libvirt's event loop has not run. While it hangs, no event, keep-alive or close callback comes.
    Calls are answered."""
    return 0.0 if _ticked_at is None else time.monotonic() - _ticked_at


def _run_events() -> None:
    """Runs for ever: without this loop there are no events, keep-alives and close callbacks, and no error."""
    last_error = ""
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except Exception as error:
            if str(error) != last_error:
                last_error = str(error)
                log.warning("libvirt's event loop failed and is run again", error=last_error)
            time.sleep(_EVENTS_RETRY_S)


def open_connection(uri: str) -> Connect:
    """A connection with keep-alives. Blocks. Raises Unreachable."""
    start_event_loop()
    try:
        conn = libvirt.open(uri)
        conn.setKeepAlive(_KEEPALIVE_INTERVAL_S, _KEEPALIVE_COUNT)
    except libvirt.libvirtError as error:
        raise Unreachable(f"libvirtd at {uri} does not answer: {error}", fix="check that libvirtd runs") from error
    return conn


def is_gone(error: libvirt.libvirtError, conn: Connect | None = None) -> bool:
    """Does this error say that the connection to libvirtd is lost, not that libvirtd refused?"""
    if (error.get_error_domain(), error.get_error_code()) in _GONE:
        return True
    return conn is not None and not is_alive(conn)


def in_our_words(error: libvirt.libvirtError, conn: Connect | None = None) -> SternaError:
    """libvirt's error as one of ours, with libvirt's own message."""
    words = error.get_error_message() or str(error)
    if is_gone(error, conn):
        return Unreachable(f"the connection to libvirtd was lost: {words}", fix="check that libvirtd runs")
    if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
        return NotFound(words, fix=fix_for(error))
    if error.get_error_code() in _BUSY:
        return Temporary(f"libvirt cannot do it now: {words}", fix=_WAIT)
    return Permanent(f"libvirt refused: {words}", fix=fix_for(error))


class Connection:
    """One libvirt connection and the one thread that uses it.

    A call that is not answered within CALL_LIMIT_S is left alone with its thread and its connection; the calls
    behind it go on with a new thread and a new connection.
    """

    def __init__(self, uri: str, name: str) -> None:
        self._uri = uri
        self._of_thread = threading.local()
        self._opening = Bounded(f"{name}-open")
        self._worker = Worker(name, limit_s=CALL_LIMIT_S, at_end=self._drop)

    async def run(self, act: Callable[[Connect], T], *, unlimited: bool = False) -> T:
        """`act` with an open connection, in this connection's thread.

        A caller that is cancelled stops waiting; the call goes on. `unlimited`: for the copy itself, which lasts as
        long as it lasts. Raises Unreachable, Temporary where another call holds the domain, NotFound, Permanent.
        """
        try:
            return await self._worker.run(lambda: self._attempt(act), unlimited=unlimited)
        except TimeoutError as error:
            fix = "check that libvirtd runs, and whether a guest's QEMU hangs (`virsh domstate` of each guest)"
            raise Unreachable(f"libvirtd at {self._uri} does not answer: {error}", fix=fix) from error

    @property
    def hanging(self) -> int:
        """Threads that were left alone, with a call or with the opening of a connection, and have not come back."""
        return self._worker.hanging + self._opening.hanging

    def close(self) -> None:
        """Close after what is queued. Not waited for."""
        self._worker.stop()

    def _attempt(self, act: Callable[[Connect], T]) -> T:
        conn = self._open()
        try:
            return act(conn)
        except libvirt.libvirtError as error:
            ours = in_our_words(error, conn)
            if isinstance(ours, Unreachable):
                self._drop()
            raise ours from error

    def _open(self) -> Connect:
        """This thread's connection: one that is alive, else a new one. Raises Unreachable."""
        conn = getattr(self._of_thread, "conn", None)
        if conn is not None and not is_alive(conn):
            self._drop()
            conn = None
        if conn is None:
            conn = self._of_thread.conn = self._opened()
        return conn

    def _opened(self) -> Connect:
        try:
            return self._opening.call(lambda: open_connection(self._uri), OPEN_S, late=close_quietly)
        except TimeoutError as error:
            fix = "check that libvirtd runs"
            raise Unreachable(f"libvirtd at {self._uri} does not answer: {error}", fix=fix) from error

    def _drop(self) -> None:
        conn, self._of_thread.conn = getattr(self._of_thread, "conn", None), None
        if conn is not None:
            close_quietly(conn)


def close_quietly(conn: Connect) -> None:
    """Close; a connection that is lost already is closed enough."""
    try:
        conn.close()
    except libvirt.libvirtError:
        return


def is_alive(conn: Connect) -> bool:
    """Is it open, as far as this process knows? Makes no call."""
    try:
        return bool(conn.isAlive())
    except libvirt.libvirtError:
        return False
