"""The calling side: calls with a deadline that heartbeats extend, and hints without an answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import uuid4

import structlog

from sterna.domain.errors import BadRequest, SternaError, Undelivered, Unknown, Unreachable
from sterna.domain.model import Data
from sterna.domain.trust.bounds import flood_of, pace_of
from sterna.kit.waiting import within
from sterna.ports.bus import Bus, BusState, Incoming, Subscription
from sterna.ports.clock import Clock
from sterna.rpc.dead_letters import DeadLetters
from sterna.rpc.envelope import Event, Reply, Request, decode_event, decode_reply, encode
from sterna.rpc.sender_limits import SenderRates
from sterna.rpc.subjects import call_subject, check_sender, event_subject, sender_in, topic_of

LONGEST_CALL_S = 300.0
"""An agent whose libvirt hangs goes on sending heartbeats: no call is waited for longer than this."""

_SAID_BY = "the answer of"

EventHandler = Callable[[str, Data], Awaitable[None]]
"""Gets the topic and the data."""

_log = structlog.get_logger()


class RpcClient:
    """Speaks for `host_name` to the agents of other hosts. A controller's is CONTROLLER_TOKEN."""

    def __init__(self, bus: Bus, host_name: str, clock: Clock) -> None:
        self._bus = bus
        self.host_name = host_name
        self.clock = clock
        self.dead_letters = DeadLetters(clock)
        self._unsent = ""
        """Why the last hint was not sent; '' where it was."""

    def bus_state(self) -> BusState:
        """Whether this process has a connection to the bus, and since when."""
        return self._bus.state()

    async def call(
        self,
        to: str,
        method: str,
        params: Data,
        *,
        migration_id: str = "",
        epoch: int = 0,
        silence_s: float = 5.0,
        total_s: float | None = LONGEST_CALL_S,
    ) -> Data:
        """Have the agent of host `to` run `method`, and wait for its result.

        Raises the remote error as its own class. Raises Undelivered if the call did not arrive: there is no
        subscriber, or the bus is away. Raises Unknown if it may have arrived and has no answer: nothing was
        received for `silence_s` seconds, or no result within `total_s` in spite of heartbeats (None: as long as
        they come). Raises BadRequest if the call is too large or not plain JSON.
        """
        request = Request.build(
            kind="call",
            id=uuid4().hex,
            method=method,
            sender=self.host_name,
            migration_id=migration_id,
            epoch=epoch,
            params=params,
        )
        payload = encode(request)
        try:
            async with self._bus.request(call_subject(to, self.host_name), payload) as replies:
                reply = await self._result(replies, to, method, silence_s, total_s)
        except Unreachable as e:
            raise Undelivered(f"the agent of {to} cannot be reached: {e.message}", fix=e.fix or _start(to)) from e
        if reply.kind == "error":
            error = reply.raised()
            error.add_note(f"{_SAID_BY} {to}")
            raise error
        if reply.kind != "result":
            raise BadRequest(f"{to} answered the call {method} with `{reply.kind}`")
        return reply.data

    async def announce(self, topic: str, data: Data) -> None:
        """Send a hint to all who subscribe to `topic`. A failure is logged, never raised."""
        try:
            await self._bus.publish(event_subject(topic), encode(Event(sender=self.host_name, data=data)))
        except Unreachable as e:  # the bus logs its own loss, once; a host's beacon would repeat it every second
            _log.debug("hint not sent", topic=topic, error=e.message)
        except SternaError as e:
            if e.message != self._unsent:
                _log.warning("hint not sent", topic=topic, error=e.message)
            self._unsent = e.message
        else:
            self._unsent = ""

    async def listen(self, topic_pattern: str, handler: EventHandler) -> Subscription:
        """Call `handler(topic, data)` for each hint; `*` in the pattern matches one token. Hints that cannot be
        read, or are sent in another's name, are dropped: they are among the dead letters. So are hints that come
        too often. The first of those are dropped without a dead letter: a process that was suspended gets all that
        was sent to it at once, from senders that did nothing wrong."""
        paces, floods, pace = SenderRates(self.clock), SenderRates(self.clock), pace_of(topic_pattern)

        async def on_message(incoming: Incoming) -> None:
            topic, sender = topic_of(incoming.subject), sender_in(incoming.subject)
            try:
                is_flood = not floods.admits(sender, flood_of(pace))
                if not paces.admits(sender, pace):
                    if is_flood:
                        raise BadRequest(f"more than {pace.per_s:g} a second: some are not read")
                    return
                event = decode_event(incoming.payload)
                check_sender(incoming.subject, event.sender)
                await handler(topic, event.data)
            except BadRequest as e:
                if not said_by_another(e):
                    self.dead_letters.add(sender, topic, e.message, incoming.payload)

        return await self._bus.subscribe(event_subject(topic_pattern), on_message)

    async def _result(
        self, replies: AsyncIterator[bytes], to: str, method: str, silence_s: float, total_s: float | None
    ) -> Reply:
        what = f"{to}: {method}"
        started_ms = self.clock.monotonic_ms()
        while True:
            left_s = None if total_s is None else total_s - (self.clock.monotonic_ms() - started_ms) / 1000
            patience_s = silence_s if left_s is None else min(silence_s, max(left_s, 0.0))
            try:
                payload = await within(self.clock, patience_s, _next(replies))
                reply = self._read(payload, to, method)
            except TimeoutError:
                why = (
                    f"nothing received for {silence_s:g} s, it hangs or is cut off"
                    if patience_s == silence_s
                    else f"no result after {total_s:g} s, though its agent sends heartbeats for it"
                )
                raise Unknown(f"{what}: {why}; whether it was done is not known") from None
            if reply.kind != "heartbeat":
                return reply

    def _read(self, payload: bytes, to: str, method: str) -> Reply:
        try:
            return decode_reply(payload)
        except BadRequest as e:
            self.dead_letters.add(to, f"answer to {method}", e.message, payload)
            e.add_note(f"{_SAID_BY} {to}")
            raise


async def _next(replies: AsyncIterator[bytes]) -> bytes:
    return await anext(replies)


def said_by_another(error: SternaError) -> bool:
    """Did it come as the answer of a call? Then it proves nothing about what this process was sent."""
    return any(note.startswith(_SAID_BY) for note in getattr(error, "__notes__", ()))


def _start(host: str) -> str:
    return f"start the Sterna agent on {host}"
