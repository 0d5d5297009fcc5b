"""The bus on core NATS (nats-py). Nothing is stored here: casts that must not be lost are rpc/outbox.py's business.

nats-py's own reconnecting is switched off. It gives up after some errors (an authorisation error while the server
restarts), and it keeps what was published during an outage and sends it later, when it is not expected any more. A
new connection (`connection.py`) has neither fault; our subscriptions are made again on each.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from uuid import uuid4

import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as ClientSubscription

from sterna.adapters.nats.connection import CLOSE_S, Connection, MaybeSent
from sterna.domain.errors import BadRequest, Unreachable
from sterna.domain.trust.bus_rights import answer_subject, inbox_of, is_inbox_of, sender_of
from sterna.kit.bounded_queue import BoundedQueue
from sterna.kit.waiting import Backoff
from sterna.ports.bus import MOST_ANSWER_BYTES, MOST_ANSWERS, BusState, Handler

_RETRY_S = (0.05, 1.0)
"""First and longest pause between two tries to reach the server: a restarted bus is back in use within a second."""
_STEADY_S = 10.0
"""A connection that lasts this long is a good one; a server that is silent from the beginning has been noticed by
then. One that ends earlier (a proxy accepts and closes it) counts as a try that failed."""

_MOST_REFUSALS = 20
"""That are logged for one loss: a server may word each of its own."""

_FIRST = "not joined yet"

_log = structlog.get_logger()


class NatsMessage:
    """Implements ports.bus.Incoming."""

    def __init__(self, bus: NatsBus, msg: Msg) -> None:
        self._bus = bus
        self._msg = msg

    @property
    def subject(self) -> str:
        """The subject it was sent to."""
        return self._msg.subject

    @property
    def payload(self) -> bytes:
        """Its bytes."""
        return self._msg.data

    async def reply(self, payload: bytes) -> None:
        """Send bytes back, to the sender's own inbox only. Raises Unreachable where the bus is away, BadRequest
        over its size limit."""
        if not self._msg.reply:
            return
        if is_inbox_of(self._msg.reply, sender_of(self._msg.subject)):
            await self._bus.publish(self._msg.reply, payload)
        else:  # the caller chooses the subject of the answer: one to which this process may publish, perhaps
            _log.warning("an answer to an inbox that is not the caller's is not sent", subject=self._msg.subject)


class NatsSubscription:
    """Implements ports.bus.Subscription. Outlives the connections it is made on."""

    def __init__(self, bus: NatsBus, subject: str, handler: Handler) -> None:
        self.bus = bus
        self.subject = subject
        self.handler = handler
        self.connection: Connection | None = None
        """The connection it is open on."""
        self.inner: ClientSubscription | None = None

    async def close(self) -> None:
        """Stop receiving; messages already being handled are finished."""
        self.bus.subscriptions.pop(self, None)
        inner, self.inner = self.inner, None
        if inner is not None and self.connection is not None:
            await self.connection.end(inner)


class NatsBus:
    """Implements ports.bus.Bus. It never stops reconnecting; until it has, sending raises Unreachable at once."""

    def __init__(
        self,
        url: str,
        *,
        name: str,
        who: str,
        user: str | None,
        password: str | None,
        tls: ssl.SSLContext | None,
        server_name: str | None,
    ) -> None:
        self._servers = [u.strip() for u in url.split(",")]
        self._name = name
        self._user = user
        self._password = password
        self._tls = tls
        self._server_name = server_name
        self._client: Connection | None = None
        self._lost = asyncio.Event()
        """The newest connection's: set when that has ended."""
        self._since, self._why = _now(), _FIRST
        self._away_since = self._since
        """The first loss since the last good connection."""
        self._refusals = set[str]()
        """Since the last connection, as far as they were logged: several servers may have one each."""
        self._backoff = Backoff(*_RETRY_S)
        self._losses = 0
        """Since the last good connection."""
        self._steady: asyncio.TimerHandle | None = None
        """Counts the present connection as a good one, when its time has come."""
        self._joined = asyncio.Event()
        self._inbox = inbox_of(who, uuid4().hex)
        self._waiting: dict[str, BoundedQueue] = {}
        """What the open requests wait for, by the subject of their answers. It names who was asked, and nats-server
        lets nobody else publish there."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._keeper: asyncio.Task[None] | None = None
        self._closing = False
        self.subscriptions: dict[NatsSubscription, None] = {}

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        name: str,
        who: str = "",
        user: str | None = None,
        password: str | None = None,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
    ) -> NatsBus:
        """Join the bus at `url` (`nats://host:port`, several separated by commas); `name` is for its operator.
        `who`: the token that names this client in subjects; its inbox begins with it. `server_name`: what the
        server's certificate must say, where that is not its address.

        A bus that is away is not an error: it is tried in the background, so that an agent may start first.
        """
        bus = cls(url, name=name, who=who, user=user, password=password, tls=tls, server_name=server_name)
        if not await bus._try_to_join():
            _log.warning("the message bus does not answer yet", name=name, servers=bus._servers, why=bus._why)
        bus._keeper = asyncio.create_task(bus._keep(), name=f"nats {name}")
        return bus

    @property
    def connected(self) -> bool:
        """Is there a connection now?"""
        return self._client is not None and self._client.is_connected

    def state(self) -> BusState:
        """Is the bus there, since when, and if not, why not."""
        if self.connected:
            return BusState(connected=True, since=self._since)
        since, why = self._since, self._why
        if (connection := self._client) is not None:  # its end is not reported yet
            connection.note_end()
            since, why = connection.ended_at or since, connection.why
        return BusState(connected=False, since=since, why=why)

    async def wait_connected(self) -> None:
        """Wait until there is a connection and every subscription is open on it. Has no bound of its own."""
        while not self.connected:
            self._joined.clear()
            await self._joined.wait()

    async def subscribe(self, subject: str, handler: Handler) -> NatsSubscription:
        """Call `handler`, each time in a task of its own, for each message; in force when this returns.

        While the bus is away the subscription is kept and opened as soon as it is back.
        Raises BadRequest where `subject` cannot be one.
        """
        _check_subject(subject, wildcards=True)
        subscription = NatsSubscription(self, subject, handler)
        self.subscriptions[subscription] = None
        connection = self._client
        if connection is not None:
            try:
                await self._open(connection, subscription)
                await connection.settle()
            except Unreachable as e:
                _log.info("subscription waits for the bus", subject=subject, error=str(e))
                if subscription.connection is connection:  # not opened on a newer one meanwhile
                    subscription.connection = None
                connection.give_up(e.message)
        return subscription

    async def publish(self, subject: str, payload: bytes) -> None:
        """Send and forget. Raises Unreachable where the bus is away or takes no more, BadRequest over its size
        limit."""
        await self._send(subject, payload, "")

    @asynccontextmanager
    async def request(self, subject: str, payload: bytes) -> AsyncIterator[AsyncIterator[bytes]]:
        """Send, and iterate over the replies. Raises Unreachable where the bus is away (on entering) or there is no
        subscriber (on iteration), BadRequest over the size limit.

        An outage while or after sending does not end the iteration: replies may still come when the bus is back, or
        may have been lost; the caller's deadline decides.
        """
        answers = answer_subject(self._inbox, uuid4().hex, subject)
        queue = self._waiting[answers] = BoundedQueue(MOST_ANSWERS, MOST_ANSWER_BYTES)
        try:
            with suppress(MaybeSent):
                await self._send(subject, payload, answers)
            yield _replies(queue, subject)
        finally:
            del self._waiting[answers]

    def use_tls(self, tls: ssl.SSLContext | None) -> None:
        """Speak TLS with this from the next connection on. From any thread."""
        self._tls = tls

    async def close(self) -> None:
        """Leave the bus; what was sent is flushed, handlers still running are cancelled. Those that do not end
        within CLOSE_S are left."""
        self._closing = True
        tasks = [t for t in (self._keeper, *self._tasks) if t is not None and t is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=CLOSE_S)
            if left:
                _log.warning("leaving the message bus although handlers do not end", number=len(left))
        connection, self._client = self._client, None
        if connection is not None:
            await connection.leave(flush=True)
            self._went(connection)

    async def _send(self, subject: str, payload: bytes, reply: str) -> None:
        _check_subject(subject)
        connection = self._client
        if connection is None or not connection.is_connected:
            raise Unreachable("the message bus does not answer", fix=f"start the bus at {', '.join(self._servers)}")
        if len(payload) > connection.client.max_payload:
            limit = connection.client.max_payload
            raise BadRequest(f"a message of {len(payload)} bytes is over the bus's limit of {limit} bytes")
        await connection.publish(subject, payload, reply)

    # the connection

    async def _keep(self) -> None:
        # A flag as well as a cancellation: asyncio.wait_for, inside nats-py, swallows one that comes at the very
        # moment a connection is refused (CPython 3.11).
        while not self._closing:
            try:
                if not await self._lose():
                    await self._pause()
                await self._try_to_join()
            except Exception:  # a bug: without this task the bus would never be joined again
                _log.exception("joining the message bus failed unexpectedly", name=self._name)
                await self._pause()

    async def _pause(self) -> None:
        if not self._closing:
            await asyncio.sleep(self._backoff.seconds)
            self._backoff.grow()

    async def _lose(self) -> bool:
        """Wait until the connection is lost. False where the next one must not be tried at once: there was none, or
        it followed another loss too soon."""
        if (connection := self._client) is None:
            return False
        await connection.watch()
        self._client = None
        self._went(connection)
        self._losses += 1
        if self._losses == 1:
            self._away_since = self._since
        self._log_loss(connection.why)
        await connection.leave(flush=False)
        return self._losses == 1

    def _went(self, connection: Connection) -> None:
        if self._steady is not None:
            self._steady.cancel()
        self._joined.clear()
        self._since, self._why = connection.ended_at or _now(), connection.why

    def _lasts(self) -> None:
        """The connection has lasted for _STEADY_S."""
        if self._losses > 1:
            self._log_back()
        self._losses = 0
        self._backoff.reset()

    def _log_loss(self, why: str) -> None:
        words = {"name": self._name, "servers": self._servers, "why": why}
        if self._losses == 2:
            words["note"] = "soon after it was joined; such losses are not logged again until a connection lasts"
        if self._losses <= 2:
            _log.warning("the message bus is lost", **words)

    def _log_back(self) -> None:
        _log.info("the message bus is back", name=self._name, away_since=self._away_since.isoformat())
        self._refusals.clear()

    async def _try_to_join(self) -> bool:
        try:
            connection = await Connection.join(
                self._servers,
                name=self._name,
                user=self._user,
                password=self._password,
                tls=self._tls,
                server_name=self._server_name,
            )
        except Unreachable as e:
            self._cannot_join(e)
            return False
        try:
            await connection.open(f"{self._inbox}.*.*", self._on_reply)
            await connection.settle()  # else an answer that comes at once has no receiver
            while missing := [s for s in self.subscriptions if s.connection is not connection]:
                for subscription in missing:
                    await self._open(connection, subscription)
                await connection.settle()  # there may be a subscription by now: look again
        except Unreachable as e:
            self._cannot_join(e)
            await connection.leave(flush=False)
            return False
        if self._why and self._why != _FIRST and self._losses < 2:
            self._log_back()
        self._client, self._lost = connection, connection.lost
        self._since, self._why = _now(), ""
        self._steady = asyncio.get_running_loop().call_later(_STEADY_S, self._lasts)
        self._joined.set()
        return True

    def _cannot_join(self, error: Unreachable) -> None:
        """Logged where there is more to say than that no server answers (a certificate that is refused is an
        OSError, too), and once for each reason: not at every try."""
        cause = error.__cause__
        silent = cause is None or isinstance(cause, Unreachable)
        silent |= isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError)
        new = error.message not in self._refusals and len(self._refusals) < _MOST_REFUSALS
        if new and not silent:
            self._refusals.add(error.message)
            _log.warning("the message bus cannot be joined", name=self._name, why=error.message)
        self._why = error.message

    async def _open(self, connection: Connection, subscription: NatsSubscription) -> None:
        async def on_message(msg: Msg) -> None:
            task = asyncio.create_task(_run(subscription.handler, NatsMessage(self, msg)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        subscription.connection = connection
        inner = await connection.open(subscription.subject, on_message)
        if subscription in self.subscriptions:
            subscription.inner = inner
        else:  # closed while it was opened
            await connection.end(inner)

    async def _on_reply(self, msg: Msg) -> None:
        queue = self._waiting.get(msg.subject)
        if queue is not None:  # else: the caller has gone
            nobody = not msg.data and msg.headers and msg.headers.get("Status") == "503"
            queue.offer(None if nobody else msg.data)


async def _replies(queue: BoundedQueue, subject: str) -> AsyncIterator[bytes]:
    while True:
        reply = await queue.take()
        if reply is None:
            raise Unreachable(f"nobody listens on {subject}")
        yield reply


async def _run(handler: Handler, message: NatsMessage) -> None:
    try:
        await handler(message)
    except Exception:
        _log.exception("a bus handler failed", subject=message.subject)


def _now() -> datetime:
    return datetime.now(UTC)


def _check_subject(subject: str, *, wildcards: bool = False) -> None:
    bad = any(c.isspace() for c in subject) or not all(subject.split("."))
    if bad or (not wildcards and ("*" in subject or ">" in subject)):
        raise BadRequest(f"{subject!r} is not a subject of the bus")
