"""The bus in memory: same behaviour as the NATS adapter (one contract suite tests both), plus faults on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import lru_cache
from itertools import count
from typing import NamedTuple

import structlog

from sterna.domain.errors import BadRequest, Unreachable
from sterna.domain.trust.bus_rights import (
    answer_subject,
    inbox_of,
    is_inbox_of,
    may_publish,
    may_subscribe,
    rights_of_token,
    sender_of,
)
from sterna.kit.bounded_queue import BoundedQueue
from sterna.ports.bus import MOST_ANSWER_BYTES, MOST_ANSWERS, BusState, Handler

MAX_PAYLOAD_BYTES = 1024 * 1024
"""As nats-server's default."""

_BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)

_log = structlog.get_logger()


class Packet(NamedTuple):
    """One message on its way, as `MemoryBroker.loses` sees it. Names are those of the buses. A reply has its
    question's subject."""

    sender: str
    receiver: str
    subject: str
    payload: bytes
    is_reply: bool


class MemoryBroker:
    """What the buses of one test share.

    A bus that is made for a client (`who`) has the rights that nats-server would give to it. What it may not send
    vanishes, as there, and is in `refused`.

    Faults: `cut`/`heal` take one bus's connection away, `stop`/`start` the whole broker's, and `loses`, a
    predicate, makes single messages vanish as a broken link would.
    """

    def __init__(self, *, max_payload: int = MAX_PAYLOAD_BYTES) -> None:
        self.max_payload = max_payload
        self.loses: Callable[[Packet], bool] = lambda packet: False
        self._running = True
        self._cut: set[str] = set()
        self._subscriptions: list[MemorySubscription] = []
        self.inboxes: dict[str, _Inbox] = {}
        """Of the open requests, by the subject of their answers."""
        self.numbers = count()
        self.refused: list[str] = []
        """What was not allowed, each with who tried."""

    def bus(self, name: str, who: str = "") -> MemoryBus:
        """A new connection to this broker; `name` is what `cut` and `heal` speak of. `who`: the token that names
        its owner in subjects; '' for one that may do everything."""
        return MemoryBus(self, name, who)

    def cut(self, name: str) -> None:
        """The bus `name` loses its connection: it can neither send nor receive."""
        self._cut.add(name)

    def heal(self, name: str) -> None:
        """The bus `name` is back; its subscriptions resume."""
        self._cut.discard(name)

    def stop(self) -> None:
        """The broker dies: no client can send or receive."""
        self._running = False

    def start(self) -> None:
        """The broker is back; all subscriptions resume."""
        self._running = True

    def reaches(self, name: str) -> bool:
        """Is the bus `name` connected?"""
        return self._running and name not in self._cut

    def add(self, subscription: MemorySubscription) -> None:
        """For MemoryBus."""
        self._subscriptions.append(subscription)

    def drop(self, subscription: MemorySubscription) -> None:
        """For MemoryBus."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    def deliver(self, sender: str, subject: str, payload: bytes, reply: str) -> int:
        """Hand one message to everybody who listens; how many there were (lost messages count: they listened)."""
        listeners = [s for s in self._subscriptions if self.reaches(s.bus.name) and _matches(s.subject, subject)]
        for subscription in listeners:
            if not self.loses(Packet(sender, subscription.bus.name, subject, payload, False)):
                message = MemoryMessage(subscription.bus, subject, payload, reply)
                subscription.bus.handle(subscription, message)
        inbox = self.inboxes.get(subject)
        if inbox is None or not self.reaches(inbox.bus.name):
            return len(listeners)
        if not self.loses(Packet(sender, inbox.bus.name, inbox.question, payload, True)):
            inbox.queue.offer(payload)
        return len(listeners) + 1


class _Inbox(NamedTuple):
    """Where replies to one request go."""

    bus: MemoryBus
    question: str
    """The subject of the request."""
    queue: BoundedQueue
    """None in it: nobody listens."""


class MemoryMessage:
    """Implements ports.bus.Incoming."""

    def __init__(self, receiver: MemoryBus, subject: str, payload: bytes, reply: str) -> None:
        self._receiver = receiver
        self._subject = subject
        self._payload = payload
        self._reply = reply

    @property
    def subject(self) -> str:
        """The subject it was sent to."""
        return self._subject

    @property
    def payload(self) -> bytes:
        """Its bytes."""
        return self._payload

    async def reply(self, payload: bytes) -> None:
        """Send bytes back, to the sender's own inbox only. Raises Unreachable where the bus is away, BadRequest
        over its size limit."""
        self._receiver.check(payload)
        if self._reply and is_inbox_of(self._reply, sender_of(self._subject)):
            await self._receiver.publish(self._reply, payload)


class MemorySubscription:
    """Implements ports.bus.Subscription."""

    def __init__(self, bus: MemoryBus, subject: str, handler: Handler) -> None:
        self.bus = bus
        self.subject = subject
        self.handler = handler

    async def close(self) -> None:
        """Stop receiving; messages already being handled are finished."""
        self.bus.broker.drop(self)
        self.bus.subscriptions.discard(self)


class MemoryBus:
    """Implements ports.bus.Bus."""

    def __init__(self, broker: MemoryBroker, name: str, who: str = "") -> None:
        self.broker = broker
        self.name = name
        self._who, self._process = who, str(next(broker.numbers))
        self._rights = rights_of_token(who) if who else None
        self.subscriptions: set[MemorySubscription] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def subscribe(self, subject: str, handler: Handler) -> MemorySubscription:
        """Call `handler`, each time in a task of its own, for each message."""
        _check_subject(subject, wildcards=True)
        subscription = MemorySubscription(self, subject, handler)
        if self._rights is None or self._allowed(may_subscribe(self._rights, subject), "subscribe to", subject):
            self.subscriptions.add(subscription)
            self.broker.add(subscription)
        return subscription

    async def publish(self, subject: str, payload: bytes, reply: str = "") -> None:
        """Send and forget. Raises Unreachable where the bus is away, BadRequest over its size limit. `reply`: where
        the message says that its answers go, as a client of somebody else's may choose it."""
        _check_subject(subject)
        self.check(payload)
        if self._may_send(subject):
            self.broker.deliver(self.name, subject, payload, reply)

    @asynccontextmanager
    async def request(self, subject: str, payload: bytes) -> AsyncIterator[AsyncIterator[bytes]]:
        """Send, and iterate over the replies. Raises Unreachable where the bus is away (on entering) or there is no
        subscriber (on iteration), BadRequest over the size limit."""
        _check_subject(subject)
        self.check(payload)
        broker, queue = self.broker, BoundedQueue(MOST_ANSWERS, MOST_ANSWER_BYTES)
        inbox = inbox_of(self._who or sender_of(subject), self._process)
        answers = answer_subject(inbox, str(next(broker.numbers)), subject)
        broker.inboxes[answers] = _Inbox(self, subject, queue)
        try:
            if self._may_send(subject) and not broker.deliver(self.name, subject, payload, answers):
                queue.offer(None)
            yield _replies(queue, subject)
        finally:
            del broker.inboxes[answers]

    async def close(self) -> None:
        """Leave the bus; handlers still running are cancelled."""
        self._closed = True
        for subscription in list(self.subscriptions):
            await subscription.close()
        tasks = [t for t in self._tasks if t is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def state(self) -> BusState:
        """Whether there is a connection. How long is not kept: simulated time has no date."""
        connected = not self._closed and self.broker.reaches(self.name)
        return BusState(connected=connected, since=_BEGINNING, why="" if connected else "the broker is away")

    def _may_send(self, subject: str) -> bool:
        return self._rights is None or self._allowed(may_publish(self._rights, subject), "publish to", subject)

    def _allowed(self, allowed: bool, what: str, subject: str) -> bool:
        if not allowed:
            self.broker.refused.append(f"{self.name} may not {what} {subject}")
        return allowed

    def check(self, payload: bytes) -> None:
        """Raises Unreachable where the bus is away, BadRequest where `payload` is over its limit."""
        if self._closed or not self.broker.reaches(self.name):
            raise Unreachable("the message bus does not answer", fix="start the message bus")
        limit = self.broker.max_payload
        if len(payload) > limit:
            raise BadRequest(f"a message of {len(payload)} bytes is over the bus's limit of {limit} bytes")

    def handle(self, subscription: MemorySubscription, message: MemoryMessage) -> None:
        """For MemoryBroker: one message has arrived."""
        task = asyncio.create_task(_run(subscription.handler, message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _run(handler: Handler, message: MemoryMessage) -> None:
    try:
        await handler(message)
    except Exception:
        _log.exception("a bus handler failed", subject=message.subject)


async def _replies(queue: BoundedQueue, subject: str) -> AsyncIterator[bytes]:
    while True:
        reply = await queue.take()
        if reply is None:
            raise Unreachable(f"nobody listens on {subject}")
        yield reply


def _check_subject(subject: str, *, wildcards: bool = False) -> None:
    bad = any(c.isspace() for c in subject) or not all(subject.split("."))
    if bad or (not wildcards and ("*" in subject or ">" in subject)):
        raise BadRequest(f"{subject!r} is not a subject of the bus")


@lru_cache(4096)
def _matches(pattern: str, subject: str) -> bool:
    wanted, given = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        return len(given) >= len(wanted) and all(w in ("*", g) for w, g in zip(wanted[:-1], given, strict=False))
    return len(wanted) == len(given) and all(w in ("*", g) for w, g in zip(wanted, given, strict=True))
