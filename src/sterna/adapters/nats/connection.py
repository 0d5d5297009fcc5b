"""One connection to a NATS server, from joining to its end. Used by `bus.py`, which makes a new one after a loss.

What nats-py (2.16) does not do, and this file does:

- Its `Client._close` flushes first. With unsent data and a broken socket that raises before `closed_cb` is called:
  a wait for that callback never ends. Here unsent data are dropped first, and the state is looked at.
- A server that hangs while the socket's buffers are full blocks `publish` without a limit, and nats-py's own ping
  waits behind the same buffer. Here every wait has a bound, and silence is measured from outside.
- An answer to a ping or flush that is no longer awaited (cancelled, or its time is over) ends its reading, without
  an error. Here such an answer is taken and forgotten.
- It sends user and password to a server that does not offer TLS, though TLS was asked for.
- A subscription that the server refuses, or removes when it reads its configuration again, is not made again. Here
  all are sent again until none is refused; the server ignores those that it has.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

import structlog
from nats import errors as nats_errors
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from sterna.domain.errors import SternaError, Unreachable

JOIN_S = 5.0
"""A server that accepts the connection and sends nothing is given up after this."""
SEND_S = 3.0
"""Longest wait of one sender. It waits only while 2 MiB are unsent: some milliseconds, with a working server."""
CLOSE_S = 2.0
"""Longest wait for a connection to be flushed, and for it to be closed."""
LOOK_S = 0.5
"""A loss that no callback reports is noticed after this."""
PING_S = 1.5
"""Pause between two pings: a healthy connection is never silent for longer."""
SILENCE_S = 5.0
"""A server that sends nothing for this long, pings unanswered, is taken for lost: a working one answers a ping
within milliseconds. A hang is noticed within this, a ping's and a look's interval."""
REFUSED_S = 10.0
"""Subscriptions are sent again this long after the server refused one: its configuration may be right by now."""
_OWN_PAUSE_S = 2.0
"""A look that comes this much too late: this process itself stood still. What the server sent is read first."""

_NOT_SENT = (
    nats_errors.ConnectionClosedError,
    nats_errors.ConnectionDrainingError,
    nats_errors.OutboundBufferLimitError,
)
"""nats-py raises these before it takes the message."""

_REFUSED = "permissions violation"
_REFUSED_SUBSCRIPTION = "permissions violation for subscription"

T = TypeVar("T")
_log = structlog.get_logger()


class MaybeSent(Unreachable):
    """The bus was lost, or did not take more, while a message was on its way: whether it arrives is not known."""


class _Client(Client):
    """nats-py's client, whose end cannot be held up by unsent data, and which never goes on without the TLS that
    was asked for."""

    tls_demanded = False

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        self._pending = []
        self._pending_data_size = 0
        _abort(self)
        await super()._close(status, do_cbs)

    async def _process_pong(self) -> None:
        if self._pongs and self._pongs[0].done():
            self._pongs.pop(0)
            self._pings_outstanding = 0
            return
        await super()._process_pong()

    def _connect_command(self) -> bytes:
        writer = _writer_of(self)
        if self.tls_demanded and (writer is None or writer.get_extra_info("ssl_object") is None):
            raise nats_errors.Error("the server does not offer TLS, which the settings ask for")
        return super()._connect_command()


class Connection:
    """A joined connection. `lost` is set once it is known to have ended. `why` and `ended_at` (UTC) then say how
    and when."""

    def __init__(self, client: _Client) -> None:
        self.client = client
        self.lost = asyncio.Event()
        self.why = ""
        self.ended_at: datetime | None = None
        self._sending: set[asyncio.Timeout] = set()
        """The bounds of those who wait in `publish`: a loss ends their wait at once."""
        self._last_error: Exception | None = None
        self._logged = set[str]()
        """What the server refused, as far as it was logged: a beacon would repeat it every second."""
        self._refused_at: float | None = None
        """When the server refused a subscription, on the loop's clock. None where it has all of them."""

    @classmethod
    async def join(
        cls,
        servers: list[str],
        *,
        name: str,
        user: str | None,
        password: str | None,
        tls: ssl.SSLContext | None,
        server_name: str | None = None,
    ) -> Connection:
        """Connect to the first of `servers` that answers. `server_name`: in its certificate, where that is not its
        address. Raises Unreachable, within `JOIN_S`."""
        client = _Client()
        client.tls_demanded = tls is not None
        connection = cls(client)
        joining = client.connect(
            servers,
            name=name,
            user=user,
            password=password,
            tls=tls,
            tls_hostname=server_name if tls is not None else None,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            closed_cb=connection._on_closed,
            error_cb=connection._on_error,
        )
        try:
            await bounded(joining, JOIN_S, "it takes the connection and does not answer")
        except Exception as error:  # whatever listens there may not even speak NATS
            await _discard(client)
            if isinstance(error, nats_errors.NoServersError) and connection._last_error is not None:
                error = connection._last_error  # what happened with the last of them
            raise Unreachable(f"the message bus cannot be joined: {str(error) or repr(error)}") from error
        return connection

    async def _on_closed(self) -> None:
        self.note_end()
        self.give_up(self.why)

    async def _on_error(self, error: Exception) -> None:
        self._last_error, text = error, str(error)
        if _REFUSED_SUBSCRIPTION in text.lower():
            self._refused_at = asyncio.get_running_loop().time()
        what = text.partition(" (sid ")[0]  # one that is removed is named with its number
        if _REFUSED in what.lower() and what not in self._logged:
            self._logged.add(what)
            fix = "write `sterna bus config` again, and have nats-server read it"
            _log.error("the message bus does not let this process do what it needs", why=what, fix=fix)
        else:
            _log.debug("nats", error=repr(error))

    @property
    def is_connected(self) -> bool:
        """As far as is known now."""
        return not self.lost.is_set() and self.client.is_connected

    @property
    def is_closed(self) -> bool:
        """Has the library given it up?"""
        return bool(self.client.is_closed)

    def note_end(self) -> None:
        """`why` and `ended_at` are set if the library has noticed the end. From any thread."""
        if not self.is_connected:
            self._note(f"the connection has ended: {self.client.last_error or 'closed by the server'}")

    def give_up(self, why: str) -> None:
        """It counts as ended. Those who wait in `publish` are woken."""
        self._note(why)
        self.lost.set()
        now = asyncio.get_running_loop().time()
        for limit in self._sending:
            if not limit.expired():
                limit.reschedule(now)

    def _note(self, why: str) -> None:
        """The first reason counts."""
        self.why, self.ended_at = self.why or why, self.ended_at or datetime.now(UTC)

    async def publish(self, subject: str, payload: bytes, reply: str) -> None:
        """Send, within `SEND_S`. Raises Unreachable where it was not sent, MaybeSent where that is not known."""
        limit, cancelled = asyncio.timeout(SEND_S), _cancellations()
        try:
            async with limit:
                self._sending.add(limit)
                await self.client.publish(subject, payload, reply=reply)
                await asyncio.sleep(0)  # nats-py writes in a task of its own: it is sent when this returns
        except _NOT_SENT as error:
            raise Unreachable(f"the message bus does not answer: {error}") from error
        except (nats_errors.Error, OSError) as error:  # TimeoutError is an OSError
            raise MaybeSent(f"the message bus does not answer: {str(error) or 'it accepts no data'}") from error
        finally:
            self._sending.discard(limit)
        # nats-py swallows a cancellation while it flushes: the caller's, and that of the limit.
        if _cancellations() > cancelled:
            raise asyncio.CancelledError
        if limit.expired():
            raise MaybeSent("the message bus does not answer: it accepts no more data")

    async def open(self, subject: str, on_message: Any) -> Subscription:
        """Subscribe, in force on the server after `settle`. Raises Unreachable, within `SEND_S`."""
        return await self._asked(self.client.subscribe(subject, cb=on_message))

    async def end(self, subscription: Subscription) -> None:
        """Unsubscribe; a connection that is gone has ended it already. Returns within `SEND_S`."""
        with suppress(Unreachable):
            await self._asked(subscription.unsubscribe())

    async def settle(self) -> None:
        """Return when the server has taken every subscription sent so far. Raises Unreachable."""
        # nats-py's flush writes its PING past the commands that still wait in its buffer, so the first PONG proves
        # only that the buffer has been written; the second proves that the server has read it.
        for _ in range(2):
            await self._asked(self.client.flush(timeout=round(SEND_S)))

    async def watch(self) -> None:
        """Return when the connection has ended or its server is silent, however that is noticed."""
        pinging = asyncio.ensure_future(self._ping())
        try:
            heard_at = looked = pinged = asyncio.get_running_loop().time()
            received = self._received()
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await self.lost.wait()
                if not self.is_connected:
                    self.note_end()
                    self.give_up(self.why)
                    return
                if not await self._all_subscribed():
                    return
                now = asyncio.get_running_loop().time()
                if now - looked > LOOK_S + _OWN_PAUSE_S or received != self._received():
                    heard_at = now
                heard_at = max(heard_at, _answered_at(pinging))
                looked, received = now, self._received()
                if now - heard_at > SILENCE_S:
                    self.give_up(f"its server has sent nothing for {now - heard_at:.1f} s")
                    return
                if now - pinged >= PING_S and pinging.done():
                    pinged, pinging = now, asyncio.ensure_future(self._ping())
        finally:
            pinging.cancel()

    async def leave(self, *, flush: bool) -> None:
        """Close it; with `flush` what was sent reaches the server first, where it still answers. Bounded."""
        if flush and self.is_connected:
            with suppress(Unreachable):
                await self._asked(self.client.flush(timeout=round(CLOSE_S)))
        self.give_up("left")
        await _discard(self.client)

    async def _all_subscribed(self) -> bool:
        """Send the subscriptions again, REFUSED_S after the server refused one. False: it does not answer."""
        if self._refused_at is None or asyncio.get_running_loop().time() - self._refused_at < REFUSED_S:
            return True
        self._refused_at = None
        try:
            for subscription in list(
                self.client._subs.values()
            ):  # with their numbers: the server knows those it has
                await self._asked(self.client._send_subscribe(subscription))
            await self.settle()
        except Unreachable as error:
            self.give_up(error.message)
            return False
        if self._refused_at is None:
            self._logged = {text for text in self._logged if _REFUSED_SUBSCRIPTION not in text.lower()}
            _log.info("the message bus accepts all subscriptions of this process")
        return True

    def _received(self) -> int:
        return int(self.client.stats["in_msgs"])

    async def _ping(self) -> float:
        """When the answer came, on the loop's clock; 0 where none did."""
        try:
            await bounded(self.client.rtt(timeout=round(SILENCE_S)), SILENCE_S, "no answer")
        except Exception:  # the watch measures silence, whatever its reason
            return 0.0
        return asyncio.get_running_loop().time()

    async def _asked(self, act: Coroutine[Any, Any, T]) -> T:
        try:
            return await bounded(act, SEND_S, "no answer")
        except SternaError:
            raise
        except Exception as error:
            raise Unreachable(f"the message bus does not answer: {str(error) or repr(error)}") from error


async def bounded(act: Coroutine[Any, Any, T], seconds: float, otherwise: str) -> T:
    """`act`'s result. Raises Unreachable, saying `otherwise`, after `seconds`, even if it cannot be cancelled."""
    task = asyncio.ensure_future(act)
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        if not task.done():
            task.cancel()
            task.add_done_callback(_seen)
    if not task.done() or task.cancelled():  # cancelled: by the library, of which the caller must not die
        raise Unreachable(otherwise)
    return task.result()


def _cancellations() -> int:
    """How often this task was cancelled, and not uncancelled since."""
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


def _answered_at(ping: asyncio.Future[float]) -> float:
    return ping.result() if ping.done() and not ping.cancelled() else 0.0


def _seen(task: asyncio.Future[Any]) -> None:
    """Take the result of a task that is no longer awaited, so that asyncio does not report it as never
    retrieved."""
    if not task.cancelled():
        task.exception()


async def _discard(client: _Client) -> None:
    """Close at once, unsent data dropped; the socket is gone when this returns."""
    with suppress(Exception):
        await bounded(client.close(), CLOSE_S, "not closed in time")
    _abort(client)


def _writer_of(client: Client, which: str = "_io_writer") -> asyncio.StreamWriter | None:
    writer: asyncio.StreamWriter | None = getattr(client._transport, which, None)
    return writer


def _abort(client: Client) -> None:
    """Close the socket without waiting until the other side has read what is in its buffers.

    The TCP transport, below TLS: that of TLS cannot be aborted any more once it was closed (CPython 3.11).
    """
    if (writer := _writer_of(client, "_bare_io_writer")) is not None:
        writer.transport.abort()
