"""libvirt's events -> `GuestEvent`s in asyncio, and the memory of which guests were seen running here.

One connection follows all guests of the host. Callbacks run in libvirt's event thread and only hand over.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import libvirt
import libvirt_qemu
import structlog

from sterna.adapters.libvirt.session.connection import (
    OPEN_S,
    TICK_S,
    Connect,
    close_quietly,
    event_loop_silent_s,
    is_alive,
    open_connection,
)
from sterna.domain.errors import Unreachable
from sterna.kit.bounded import Bounded
from sterna.kit.threads import in_thread
from sterna.ports.hypervisor import GuestEvent

_RETRY_S = 0.5
_READY_S = 5.0
LOOK_EVERY_S = 5.0
"""libvirt's close callback reports a lost connection. If the callback does not come, this check notices."""
ANSWER_S = 10.0
"""libvirtd says its version in a millisecond. Keep-alives notice one that is stopped, after some 25 s; they do not
notice one that lives and answers nothing."""
STILL_S = 10.0
"""libvirt's event loop runs every second. One that has not run for this long hangs."""

log = structlog.get_logger(__name__)

_KINDS: dict[tuple[int, int | None], str] = {
    (libvirt.VIR_DOMAIN_EVENT_DEFINED, None): "defined",
    (libvirt.VIR_DOMAIN_EVENT_UNDEFINED, None): "undefined",
    (libvirt.VIR_DOMAIN_EVENT_STARTED, libvirt.VIR_DOMAIN_EVENT_STARTED_MIGRATED): "started-incoming",
    (libvirt.VIR_DOMAIN_EVENT_STARTED, None): "resumed",
    (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED): "suspended-migrated",
    (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY): "suspended-postcopy",
    (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY_FAILED): "postcopy-failed",
    (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, None): "suspended",
    (libvirt.VIR_DOMAIN_EVENT_RESUMED, libvirt.VIR_DOMAIN_EVENT_RESUMED_MIGRATED): "resumed-migrated",
    (libvirt.VIR_DOMAIN_EVENT_RESUMED, libvirt.VIR_DOMAIN_EVENT_RESUMED_POSTCOPY): "resumed-postcopy",
    (libvirt.VIR_DOMAIN_EVENT_RESUMED, libvirt.VIR_DOMAIN_EVENT_RESUMED_POSTCOPY_FAILED): "postcopy-failed",
    (libvirt.VIR_DOMAIN_EVENT_RESUMED, None): "resumed",
    (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED): "stopped-migrated",
    (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED): "crashed",
    (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN): "shutdown",
    (libvirt.VIR_DOMAIN_EVENT_STOPPED, None): "stopped",
    (libvirt.VIR_DOMAIN_EVENT_SHUTDOWN, libvirt.VIR_DOMAIN_EVENT_SHUTDOWN_GUEST): "shutdown",
    (libvirt.VIR_DOMAIN_EVENT_SHUTDOWN, libvirt.VIR_DOMAIN_EVENT_SHUTDOWN_FINISHED): "shutdown",
    # SHUTDOWN_HOST is not here: libvirt sends it for every source QEMU that it ends after a migration.
    (libvirt.VIR_DOMAIN_EVENT_CRASHED, None): "crashed",
}
"""(event, detail) -> kind; detail None: any other."""

_STREAM_STATES = ("device", "completed")
"""Of QEMU's MIGRATION events: libvirt has none of its own for them."""
_DETAILS = {
    getattr(libvirt, f"VIR_DOMAIN_EVENT_{event}"): {
        getattr(libvirt, name): name.removeprefix(f"VIR_DOMAIN_EVENT_{event}_").lower().replace("_", "-")
        for name in dir(libvirt)
        if name.startswith(f"VIR_DOMAIN_EVENT_{event}_")
    }
    for event in ("DEFINED", "UNDEFINED", "STARTED", "SUSPENDED", "RESUMED", "STOPPED", "SHUTDOWN", "CRASHED")
}


def lifecycle(event: int, detail: int) -> GuestEvent | None:
    """The lifecycle event by Sterna's name for it; None for one that is ignored."""
    kind = _KINDS.get((event, detail)) or _KINDS.get((event, None))
    return GuestEvent(kind=kind, detail=_DETAILS[event].get(detail, str(detail))) if kind else None


class EventHub:
    """Follows one libvirtd's events for the life of the process; reconnects by itself.

    Whether the connection lives, and which guests run, is looked at every LOOK_EVERY_S, whatever the callbacks say.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._lock = threading.Lock()
        self._subscribers: dict[str, list[_Subscriber]] = {}
        self._ran: set[str] = set()
        self._changed: set[str] = set()
        """Guests with news since the last look began: the news counts, not the look."""
        self._bounded = Bounded("sterna-libvirt-hub-call")
        self._ready = threading.Event()
        self._lost = threading.Event()
        """The present connection's. One that was given up may report its end much later."""
        self._loop_hangs = False
        self._closed = threading.Event()
        self._failed_at: float | None = None
        """Since when there is no connection; None while there is one."""
        threading.Thread(target=self._follow, name="sterna-libvirt-hub", daemon=True).start()

    def seen_running(self, uuid: str) -> bool:
        """Have its vCPUs been seen running here, in its present stay on this host, by this process?"""
        with self._lock:
            return uuid in self._ran

    def forget(self, uuid: str) -> None:
        """Its stay here is over (it was moved away, or is about to come again)."""
        with self._lock:
            self._changed.add(uuid)
            self._ran.discard(uuid)

    def close(self) -> None:
        """Stop following."""
        self._closed.set()
        self._lost.set()

    def check_loop(self) -> None:
        """Raises Unreachable while libvirt's event loop hangs: nothing is heard of any guest."""
        if self._loop_hangs:
            fix = "restart the Sterna agent; its migrations continue"
            raise Unreachable(f"libvirt's event loop in this process has not run for {STILL_S:g} s", fix=fix)

    @asynccontextmanager
    async def subscribe(self, uuid: str) -> AsyncIterator[AsyncIterator[GuestEvent]]:
        """Events of one guest, in order, from now on; of all guests for the UUID ''.

        The iterator raises Unreachable when libvirtd was lost, as events may have been: observe, and subscribe
        again. Raises Unreachable at once if libvirtd does not answer.
        """
        if not await in_thread(lambda: self._ready.wait(_READY_S), name="sterna-hub-ready"):
            self.check_loop()
            raise Unreachable(f"libvirtd at {self._uri} does not answer", fix="check that libvirtd runs")
        subscriber = _Subscriber(asyncio.get_running_loop())
        with self._lock:
            self._subscribers.setdefault(uuid, []).append(subscriber)
        if not self._ready.is_set():
            subscriber.put(None)
        try:
            yield subscriber.events()
        finally:
            with self._lock:
                self._subscribers[uuid].remove(subscriber)
                if not self._subscribers[uuid]:
                    del self._subscribers[uuid]

    def _follow(self) -> None:
        """Until the hub is closed: without this thread nothing is followed again, so no error may end it."""
        while not self._closed.is_set():
            try:
                self._follow_once()
            except Exception as error:
                self._failed(error)
                self._closed.wait(_RETRY_S)

    def _follow_once(self) -> None:
        """Connect, and attend to the connection until it is lost. May raise anything."""
        self._loop_hangs = self._loop_does_not_run()
        self.check_loop()
        lost = self._lost = threading.Event()
        conn = self._connect(lost)
        if self._failed_at is not None:
            log.info("libvirtd answers again", uri=self._uri, after_s=round(time.monotonic() - self._failed_at, 1))
            self._failed_at = None
        self._ready.set()
        try:
            why = self._attend(conn, lost)
            self._failed_at = time.monotonic()
            if not self._closed.is_set():
                log.warning("libvirtd is lost", uri=self._uri, why=why)
        finally:
            lost.set()
            self._ready.clear()
            self._publish_loss()
            self._part(conn)

    def _failed(self, error: Exception) -> None:
        """Logged once, until there is a connection again."""
        if self._failed_at is not None:
            return
        self._failed_at = time.monotonic()
        if isinstance(error, Unreachable | TimeoutError | libvirt.libvirtError):
            log.warning("libvirtd does not answer", uri=self._uri, error=str(error))
        else:
            log.warning("libvirtd cannot be followed", uri=self._uri, error=str(error), exc_info=error)

    def _publish_loss(self) -> None:
        with self._lock:
            waiting = [s for group in self._subscribers.values() for s in group]
        for subscriber in waiting:
            subscriber.put(None)

    def _part(self, conn: Connect) -> None:
        """Close; libvirtd may hang, and the host may have no thread left."""
        with contextlib.suppress(Exception):
            self._bounded.call(partial(close_quietly, conn), _RETRY_S)

    def _connect(self, lost: threading.Event) -> Connect:
        """A connection that sends events, until it is `lost`. Raises Unreachable, TimeoutError, libvirtError."""
        conn = self._bounded.call(lambda: open_connection(self._uri), OPEN_S, late=close_quietly)
        try:
            self._bounded.call(lambda: self._register(conn, lost), OPEN_S)
        except Exception:
            lost.set()
            self._part(conn)
            raise
        return conn

    def _attend(self, conn: Connect, lost: threading.Event) -> str:
        """Return when the connection is lost, with the reason, or the hub was closed."""

        def ask() -> None:
            conn.getLibVersion()
            self._look(conn)

        while not self._closed.is_set() and not lost.wait(LOOK_EVERY_S):
            if not is_alive(conn):
                return "the connection is dead, and no callback said so"
            if self._loop_does_not_run():
                return f"libvirt's event loop in this process has not run for {STILL_S:g} s"
            try:
                self._bounded.call(ask, ANSWER_S)
            except (TimeoutError, libvirt.libvirtError) as error:
                return str(error)
        return "the connection was closed"

    def _loop_does_not_run(self) -> bool:
        """Does libvirt's event loop hang?"""
        if event_loop_silent_s() < STILL_S:
            return False
        self._closed.wait(2 * TICK_S)  # if this whole process stood still, the loop has run by now
        return event_loop_silent_s() >= STILL_S

    def _look(self, conn: Connect) -> None:
        """Which guests run: their events may have been missed. Raises libvirtError."""
        with self._lock:
            self._changed.clear()
        running = {d.UUIDString() for d in conn.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_RUNNING)}
        with self._lock:
            self._ran |= running - self._changed

    def _register(self, conn: Connect, lost: threading.Event) -> None:
        """Have `conn` report its end and its events; none of these counts once it is `lost`."""

        def present(callback: Callable[..., None]) -> Callable[..., None]:
            return lambda *report: None if lost.is_set() else callback(*report)

        conn.registerCloseCallback(lambda *_: lost.set(), None)
        for event, callback in (
            (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle),
            (libvirt.VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION, self._on_iteration),
            (libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, self._on_job),
        ):
            conn.domainEventRegisterAny(None, event, present(callback), None)
        with contextlib.suppress(libvirt.libvirtError):  # only times are lost
            libvirt_qemu.qemuMonitorEventRegister(conn, None, "MIGRATION", present(self._on_migration), None, 0)
        self._look(conn)

    def _on_lifecycle(self, _conn: Connect, domain: Any, event: int, detail: int, _opaque: object) -> None:
        seen = lifecycle(event, detail)
        if seen is None:
            return
        uuid = domain.UUIDString()
        with self._lock:
            self._changed.add(uuid)
            if seen.kind in ("resumed", "resumed-migrated", "resumed-postcopy"):
                self._ran.add(uuid)
            elif seen.kind in ("started-incoming", "stopped-migrated", "undefined"):
                self._ran.discard(uuid)
        self._publish(uuid, seen)

    def _on_iteration(self, _conn: Connect, domain: Any, iteration: int, _opaque: object) -> None:
        self._publish(domain.UUIDString(), GuestEvent(kind="iteration", iteration=iteration))

    def _on_migration(
        self, _conn: Connect, domain: Any, _event: str, _s: int, _us: int, details: str, _o: object
    ) -> None:
        status = json.loads(details or "{}").get("status")
        if status in _STREAM_STATES:
            self._publish(domain.UUIDString(), GuestEvent(kind=f"migration-{status}"))

    def _on_job(self, _conn: Connect, domain: Any, params: dict[str, Any], _opaque: object) -> None:
        failed = params.get(libvirt.VIR_DOMAIN_JOB_SUCCESS) is False or libvirt.VIR_DOMAIN_JOB_ERRMSG in params
        kind = "job-failed" if failed else "job-completed"
        detail = str(params.get(libvirt.VIR_DOMAIN_JOB_ERRMSG, ""))
        self._publish(domain.UUIDString(), GuestEvent(kind=kind, detail=detail))

    def _publish(self, uuid: str, event: GuestEvent) -> None:
        event = event.model_copy(update={"at_ms": time.monotonic() * 1000})
        with self._lock:
            waiting = [*self._subscribers.get(uuid, ()), *self._subscribers.get("", ())]
        for subscriber in waiting:
            subscriber.put(event)


class _Subscriber:
    """One open `subscribe` context."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queue: asyncio.Queue[GuestEvent | None] = asyncio.Queue()

    def put(self, event: GuestEvent | None) -> None:
        """From any thread; None: the connection was lost."""
        with contextlib.suppress(RuntimeError):  # the event loop is closed: no caller waits any more
            self._loop.call_soon_threadsafe(self._queue.put_nowait, event)

    async def events(self) -> AsyncIterator[GuestEvent]:
        """As they come."""
        while (event := await self._queue.get()) is not None:
            yield event
        raise Unreachable("the connection to libvirtd was lost: events may have been missed")
