"""The message bus: subjects and bytes. Envelopes, deadlines, heartbeats, outbox and inbox stand above it (rpc/)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

from sterna.domain.model import Value

MOST_ANSWERS = 1_000
"""To one request, that wait to be read: heartbeats come each second. What comes beyond is dropped."""
MOST_ANSWER_BYTES = 1 << 20
"""The same in bytes: a single message as large as nats-server takes by default."""


class BusState(Value):
    """Whether this process has a connection to the bus."""

    connected: bool
    since: datetime
    """UTC: when the connection was made, or lost, by this host's clock."""
    why: str = ""
    """How it was lost, or why it cannot be made; '' while there is one."""


class Incoming(Protocol):
    """One message that arrived. `reply` may be called several times (heartbeats, then the answer)."""

    @property
    def subject(self) -> str:
        """The subject it was sent to."""

    @property
    def payload(self) -> bytes:
        """Its bytes."""

    async def reply(self, payload: bytes) -> None:
        """Send bytes back to the sender; nothing happens if the sender wants none."""


Handler = Callable[[Incoming], Awaitable[None]]


class Subscription(Protocol):
    """An open subscription."""

    async def close(self) -> None:
        """Stop receiving."""


class Bus(Protocol):
    """At-most-once delivery, nothing stored. Raises Unreachable where the bus itself is away."""

    async def subscribe(self, subject: str, handler: Handler) -> Subscription:
        """Call `handler` for each message; `*` matches one token of the subject. One handler's failure or
        slowness never stops the others."""

    async def publish(self, subject: str, payload: bytes) -> None:
        """Send and forget. Raises BadRequest over the bus's size limit."""

    def request(self, subject: str, payload: bytes) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Send, and iterate over the replies while the context is open. Raises Unreachable on iteration, at once,
        where the subject has no subscriber; on entering where the bus is away, nothing sent. A bus that goes away
        later ends nothing by itself: replies may be lost, the caller's deadline decides. Replies that nobody reads
        are bounded (`MOST_ANSWERS`, `MOST_ANSWER_BYTES`)."""

    def state(self) -> BusState:
        """Whether there is a connection, and since when. Never waits."""

    async def close(self) -> None:
        """Leave the bus."""
