"""The bus on core NATS (nats-py). Nothing is stored here: casts that must not be lost are rpc/outbox.py's business.

nats-py's own reconnecting is switched off. It gives up for good on some errors (an authorisation error while the
server restarts), and it keeps what was published during an outage and sends it afterwards, when nobody expects it
any more. A new client per connection has neither fault; our subscriptions are made again on each.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from uuid import uuid4

import structlog
from nats import errors as nats_errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as ClientSubscription

from sterna.domain.errors import BadRequest, Unreachable
from sterna.ports.bus import Handler

_JOIN_S = 5.0
"""A server that takes the connection and then says nothing is given up after this."""
_RETRY_S = (0.05, 1.0)
"""First and longest pause between two tries to reach the server: a restarted bus is back in use within a second."""
_PING_S = 2
"""Two pings unanswered and the link is taken for dead: a silently broken network is noticed in about 6 s."""

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
        """Send bytes back. Raises Unreachable where the bus is away, BadRequest over its size limit."""
        if self._msg.reply:
            await self._bus.publish(self._msg.reply, payload)


class NatsSubscription:
    """Implements ports.bus.Subscription. Outlives the connections it is made on."""

    def __init__(self, bus: NatsBus, subject: str, handler: Handler) -> None:
        self.bus = bus
        self.subject = subject
        self.handler = handler
        self.client: Client | None = None
        """The connection it is open on."""
        self.inner: ClientSubscription | None = None

    async def close(self) -> None:
        """Stop receiving; messages already being handled are finished."""
        self.bus.subscriptions.pop(self, None)
        if self.inner is not None:
            with suppress(nats_errors.Error, OSError):  # connection gone: the subscription went with it
                await self.inner.unsubscribe()
            self.inner = None


class NatsBus:
    """Implements ports.bus.Bus. Reconnects for ever; while the bus is away, sending raises Unreachable at once."""

    def __init__(
        self, url: str, *, name: str, user: str | None, password: str | None, tls: ssl.SSLContext | None
    ) -> None:
        self._servers = [u.strip() for u in url.split(",")]
        self._name = name
        self._user = user
        self._password = password
        self._tls = tls
        self._client: Client | None = None
        self._joined = asyncio.Event()
        self._lost = asyncio.Event()
        self._inbox = f"_INBOX.{uuid4().hex}"
        self._tokens = count()
        self._waiting: dict[str, asyncio.Queue[Msg]] = {}
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
        user: str | None = None,
        password: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> NatsBus:
        """Join the bus at `url` (`nats://host:port`, several separated by commas); `name` is for its operator.

        A bus that is away is no error: it is tried for ever in the background, so that an agent may start first.
        """
        bus = cls(url, name=name, user=user, password=password, tls=tls)
        if not await bus._try_to_join():
            _log.warning("the message bus does not answer yet", name=name, servers=bus._servers)
        bus._keeper = asyncio.create_task(bus._keep(), name=f"nats {name}")
        return bus

    @property
    def connected(self) -> bool:
        """Is there a connection now?"""
        return self._client is not None and self._client.is_connected

    async def wait_connected(self) -> None:
        """Wait until there is a connection and every subscription is open on it."""
        while not self.connected:
            await self._joined.wait()
            await asyncio.sleep(0)

    async def subscribe(self, subject: str, handler: Handler) -> NatsSubscription:
        """Call `handler`, each time in a task of its own, for each message; in force when this returns.

        While the bus is away the subscription is kept and opened as soon as it is back.
        Raises BadRequest where `subject` cannot be one.
        """
        _check_subject(subject, wildcards=True)
        subscription = NatsSubscription(self, subject, handler)
        self.subscriptions[subscription] = None
        client = self._client
        if client is not None:
            try:
                await self._open(client, subscription)
                await _settle(client)
            except (nats_errors.Error, OSError) as e:
                _log.info("subscription waits for the bus", subject=subject, error=str(e))
        return subscription

    async def publish(self, subject: str, payload: bytes) -> None:
        """Send and forget. Raises Unreachable where the bus is away, BadRequest over its size limit."""
        await self._send(subject, payload, "")

    @asynccontextmanager
    async def request(self, subject: str, payload: bytes) -> AsyncIterator[AsyncIterator[bytes]]:
        """Send, and iterate over the replies. Raises Unreachable where the bus is away (on entering) or nobody
        listens (on iteration), BadRequest over the size limit.

        An outage after sending does not end the iteration: replies may still come when the bus is back, or may
        have been lost; the caller's deadline decides.
        """
        token = str(next(self._tokens))
        queue: asyncio.Queue[Msg] = asyncio.Queue()
        self._waiting[token] = queue
        try:
            await self._send(subject, payload, f"{self._inbox}.{token}")
            yield _replies(queue, subject)
        finally:
            del self._waiting[token]

    async def close(self) -> None:
        """Leave the bus; what was sent is flushed, handlers still running are cancelled."""
        self._closing = True
        tasks = [t for t in (self._keeper, *self._tasks) if t is not None and t is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _send(self, subject: str, payload: bytes, reply: str) -> None:
        _check_subject(subject)
        client = self._client
        if client is None or not client.is_connected:
            raise Unreachable("the message bus does not answer", fix=f"start the bus at {', '.join(self._servers)}")
        if len(payload) > client.max_payload:
            raise BadRequest(
                f"a message of {len(payload)} bytes is over the bus's limit of {client.max_payload} bytes"
            )
        try:
            await client.publish(subject, payload, reply=reply)
            await asyncio.sleep(0)  # nats-py writes in a task of its own: it is sent when this returns
        except (nats_errors.Error, OSError) as e:
            raise Unreachable(f"the message bus does not answer: {e}") from e

    # the connection

    async def _keep(self) -> None:
        pause = _RETRY_S[0]
        # A flag as well as a cancellation: asyncio.wait_for, inside nats-py, swallows one that comes at the very
        # moment a connection is refused (CPython 3.11).
        while not self._closing:
            if self._client is not None:
                await self._lost.wait()
                self._client = None
                self._joined.clear()
                _log.warning("the message bus is away", name=self._name, servers=self._servers)
                pause = _RETRY_S[0]
            if not await self._try_to_join() and not self._closing:
                await asyncio.sleep(pause)
                pause = min(pause * 2, _RETRY_S[1])

    async def _try_to_join(self) -> bool:
        lost = asyncio.Event()
        client = Client()

        async def on_closed() -> None:
            lost.set()

        try:
            async with asyncio.timeout(_JOIN_S):
                await client.connect(
                    self._servers,
                    name=self._name,
                    user=self._user,
                    password=self._password,
                    tls=self._tls,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    ping_interval=_PING_S,
                    closed_cb=on_closed,
                    error_cb=_log_error,
                )
                await client.subscribe(f"{self._inbox}.*", cb=self._on_reply)
                await _settle(client)  # else an answer that comes at once finds nobody
                while missing := [s for s in self.subscriptions if s.client is not client]:
                    for subscription in missing:
                        await self._open(client, subscription)
                    await _settle(client)  # meanwhile somebody may subscribe: look again
        except Exception as e:  # whatever listens there may not even speak NATS: never a reason to stop trying
            _log.info("the message bus cannot be joined", name=self._name, servers=self._servers, error=repr(e))
            await client.close()
            return False
        self._lost, self._client = lost, client
        self._joined.set()
        return True

    async def _open(self, client: Client, subscription: NatsSubscription) -> None:
        async def on_message(msg: Msg) -> None:
            task = asyncio.create_task(_run(subscription.handler, NatsMessage(self, msg)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        subscription.client = client
        inner = await client.subscribe(subscription.subject, cb=on_message)
        if subscription in self.subscriptions:
            subscription.inner = inner
        else:  # closed while it was opened
            await inner.unsubscribe()

    async def _on_reply(self, msg: Msg) -> None:
        queue = self._waiting.get(msg.subject.rpartition(".")[2])
        if queue is not None:  # else: the caller has gone
            queue.put_nowait(msg)


async def _settle(client: Client) -> None:
    """Return when the server has taken every subscription sent so far."""
    # nats-py's flush writes its PING past the commands that still wait in its buffer, so the first PONG proves
    # only that the buffer has been written; the second proves that the server has read it.
    await client.flush(timeout=_PING_S)
    await client.flush(timeout=_PING_S)


async def _replies(queue: asyncio.Queue[Msg], subject: str) -> AsyncIterator[bytes]:
    while True:
        msg = await queue.get()
        if not msg.data and msg.headers and msg.headers.get("Status") == "503":
            raise Unreachable(f"nobody listens on {subject}")
        yield msg.data


async def _run(handler: Handler, message: NatsMessage) -> None:
    try:
        await handler(message)
    except Exception:
        _log.exception("a bus handler failed", subject=message.subject)


async def _log_error(error: Exception) -> None:
    _log.debug("nats", error=repr(error))


def _check_subject(subject: str, *, wildcards: bool = False) -> None:
    bad = any(c.isspace() for c in subject) or not all(subject.split("."))
    if bad or (not wildcards and ("*" in subject or ">" in subject)):
        raise BadRequest(f"{subject!r} is not a subject of the bus")
