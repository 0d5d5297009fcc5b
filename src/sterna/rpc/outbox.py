"""Casts on their way out: in the journal first, sent again and again until the receiver has journaled them.

One courier per receiver, so that a dead host delays only its own casts, and each receiver gets them in order. A
cast that its receiver refuses does not block those behind it: it is kept, and sent again when either agent has been
restarted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from sterna.domain.errors import BadRequest, Permanent, SternaError, Temporary, Unknown
from sterna.domain.trust.bounds import no_more_waiting
from sterna.kit.tasks import own_cancellation_only
from sterna.kit.waiting import Backoff, paused, within
from sterna.ports.bus import Bus
from sterna.ports.clock import Clock
from sterna.ports.records import Envelope, Journal
from sterna.rpc.envelope import Request, decode_reply, encode
from sterna.rpc.sender_limits import QueuedCasts
from sterna.rpc.subjects import cast_subject

_FIRST_S = 0.2
_LONGEST_S = 5.0
"""Longest pause between two tries: so long may a cast wait after its receiver has come back."""
_ACK_S = 5.0
"""A cast that its receiver does not answer for this long is sent again."""

_log = structlog.get_logger()


class Outbox:
    """Delivers casts for `host_name`, across restarts of either side and of the bus."""

    def __init__(self, journal: Journal, bus: Bus, host_name: str, clock: Clock) -> None:
        self._journal = journal
        self._bus = bus
        self._host_name = host_name
        self._clock = clock
        self._couriers: dict[str, asyncio.Task[None]] = {}
        self._wake: dict[str, asyncio.Event] = {}
        self._empty: dict[str, asyncio.Event] = {}
        self._started = False
        self._waiting = QueuedCasts()
        self._boots: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        """Casts that their receiver will not take in its present life, by id, and why."""
        self.on_refused: Callable[[Envelope, str], None] = lambda envelope, why: None
        """Called with each of them."""
        self.on_waiting: Callable[[str], None] = lambda to: None
        """Called with a receiver that has not taken what it was sent: a sign of life of it would `hurry` us."""

    @property
    def pending(self) -> int:
        """Casts that wait for their receivers, refused ones too."""
        return len(self._waiting)

    def waits_for(self, to: str) -> bool:
        """Is there anything that it has not taken yet?"""
        return bool(self._journal.outbox(to))

    def put(self, envelope: Envelope) -> None:
        """Journal the cast, then wake its courier. When this returns the cast will arrive, whatever dies.

        Must be called in the event loop's thread. Raises BadRequest where the cast could never be sent (too
        large, not plain JSON, no receiver), Temporary where too many wait for its receiver already.
        """
        envelope = envelope.model_copy(update={"sender": self._host_name})
        encode(Request.of_cast(envelope))
        cast_subject(envelope.to, self._host_name)
        full = no_more_waiting(envelope.to, self._waiting.load(envelope.to))
        if full and envelope.id not in self._waiting:
            raise Temporary(f"no message can be left for it: {full}", fix=f"find out why {envelope.to} takes none")
        if self._journal.outbox_put(envelope):
            self._waits(envelope)
        if self._started:
            self._rouse(envelope.to)

    def hurry(self, to: str, boot: str = "") -> None:
        """`to` has shown a sign of life: try its casts now instead of after the pause. In another life (`boot`),
        perhaps of another version, it is asked again to take what it refused; also in the first one that is heard
        of, since an earlier one may have refused it."""
        if boot and self._boots.get(to) != boot:
            for envelope in self._journal.outbox(to):
                if self.refused.pop(envelope.id, None) is not None and self._started:
                    self._rouse(to)
            self._boots[to] = boot  # last: the journal may not be readable now
        if to in self._wake:
            self._wake[to].set()

    async def start(self) -> None:
        """Begin sending, what an earlier life left first."""
        self._started = True
        for envelope in self._journal.outbox():
            self._waits(envelope)
            self._rouse(envelope.to)

    async def stop(self) -> None:
        """Stop sending; what is not acknowledged stays in the journal."""
        self._started = False
        couriers = list(self._couriers.values())
        for courier in couriers:
            courier.cancel()
        await asyncio.gather(*couriers, return_exceptions=True)
        self._couriers.clear()

    async def drained(self, to: str) -> None:
        """Wait until the receiver `to` has acknowledged everything."""
        while self._journal.outbox(to):
            empty = self._empty.setdefault(to, asyncio.Event())
            empty.clear()  # it may be set from the last time
            await empty.wait()

    def _waits(self, envelope: Envelope) -> None:
        self._waiting.add(envelope.id, envelope.to, len(envelope.model_dump_json()))

    def _rouse(self, to: str) -> None:
        self._wake.setdefault(to, asyncio.Event()).set()
        if to not in self._couriers:
            self._couriers[to] = asyncio.create_task(self._deliver(to), name=f"casts to {to}")

    async def _deliver(self, to: str) -> None:
        woken = self._wake[to]
        backoff, logged = Backoff(_FIRST_S, _LONGEST_S), ""
        while True:
            woken.clear()
            try:
                waiting = [e for e in self._journal.outbox(to) if e.id not in self.refused]
                if not waiting:
                    break
                for envelope in waiting:
                    with own_cancellation_only():
                        if await self._taken(envelope):
                            self._journal.outbox_done(envelope.id)
                            self._waiting.done(envelope.id)
                    backoff.reset()
                    logged = ""
            except Exception as e:
                unexpected = not isinstance(e, SternaError)
                if str(e) != logged:  # once, not every five seconds while a host is down
                    _log.info("cast waits", to=to, error=str(e), exc_info=unexpected)
                logged = str(e)
                self.on_waiting(to)
                await paused(self._clock, backoff.seconds, woken)
                backoff.grow()
        # no await since the outbox was seen empty, so that `put` cannot fall into the gap
        del self._couriers[to]
        self._empty.setdefault(to, asyncio.Event()).set()

    async def _taken(self, envelope: Envelope) -> bool:
        """False where the receiver will never take it, as it is now: it is kept, since thrown away it would leave
        something behind on a host."""
        try:
            await self._send(envelope)
        except Permanent as e:
            self.refused[envelope.id] = e.message
            _log.error("a cast is refused", to=envelope.to, method=envelope.method, why=e.message)
            self.on_refused(envelope, e.message)
            self.on_waiting(envelope.to)
            return False
        return True

    async def _send(self, envelope: Envelope) -> None:
        subject = cast_subject(envelope.to, self._host_name)
        async with self._bus.request(subject, encode(Request.of_cast(envelope))) as replies:

            async def first() -> bytes:
                return await anext(replies)

            try:
                reply = decode_reply(await within(self._clock, _ACK_S, first()))
            except TimeoutError:
                raise Unknown(f"{envelope.to} did not acknowledge the cast {envelope.method}") from None
        if reply.kind == "error":
            raise reply.raised()
        if reply.kind != "ack":
            raise BadRequest(f"{envelope.to} answered the cast {envelope.method} with `{reply.kind}`")
