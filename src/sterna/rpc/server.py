"""The answering side of one agent: which methods exist is the agent's business, how they are answered is here.

A call is answered with heartbeats while its handler works. A cast is acknowledged once it is in the
journal's inbox, and handled afterwards (`cast_queues.py`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import structlog

from sterna.domain.errors import BadRequest, Permanent, SternaError, Temporary, Unknown, Unreachable
from sterna.domain.model import Data
from sterna.domain.trust.bounds import CASTS, no_more_waiting
from sterna.kit.tasks import own_cancellation_only
from sterna.kit.waiting import within
from sterna.ports.bus import Bus, Incoming, Subscription
from sterna.ports.clock import Clock
from sterna.ports.records import Envelope, Journal
from sterna.rpc.cast_queues import CastQueues
from sterna.rpc.client import said_by_another
from sterna.rpc.dead_letters import DeadLetters
from sterna.rpc.envelope import Reply, Request, decode_request, encode
from sterna.rpc.sender_limits import ActiveRequests, QueuedCasts, SenderRates
from sterna.rpc.subjects import calls_to, casts_to, check_sender, sender_in

CallHandler = Callable[[Request], Awaitable[Data]]
CastHandler = Callable[[Request], Awaitable[None]]
CastCheck = Callable[[Request], object]
"""Raises BadRequest for a message that could never be handled."""

_REPLY_TRIES = 5
"""An answer is offered this often, one heartbeat's time apart, to a bus that is away."""

_TURNED_AWAY = 100
"""Requests of one sender without a place that are answered at a time. What comes beyond gets no answer."""

_log = structlog.get_logger()


class RpcServer:
    """Answers calls and takes casts for `host_name`."""

    def __init__(
        self,
        bus: Bus,
        host_name: str,
        journal: Journal,
        clock: Clock,
        heartbeat_s: float = 1.0,
        dead_letters: DeadLetters | None = None,
    ) -> None:
        self._bus = bus
        self._host_name = host_name
        self._journal = journal
        self._clock = clock
        self._heartbeat_s = heartbeat_s
        self.check_caller: CastCheck = lambda request: None
        """Raises BadRequest where a call or a cast is not its sender's to make."""
        self._methods: dict[str, CallHandler] = {}
        self._casts: dict[str, tuple[CastHandler, CastCheck]] = {}
        self._running: dict[tuple[str, str], asyncio.Task[Reply]] = {}
        self.dead_letters = dead_letters or DeadLetters(clock)
        self._calls, self._taking = ActiveRequests(), ActiveRequests()
        self._paces, self._waiting = SenderRates(clock), QueuedCasts()
        self._turned_away: Counter[str] = Counter()
        self._cast_queues = CastQueues(self._handle_cast, clock, self._set_aside)
        self.aside: dict[str, str] = {}
        """Casts of the inbox that are not tried again in this life, by `key_of`, and why."""
        self.on_aside: Callable[[Envelope, str], None] = lambda envelope, why: None
        """Called with each of them."""
        self._subscriptions: list[Subscription] = []

    def method(self, name: str, handler: CallHandler) -> None:
        """Calls of `name` are answered with what `handler` returns, or with the SternaError it raises."""
        self._methods[name] = handler

    def cast(self, name: str, handler: CastHandler, check: CastCheck = lambda request: None) -> None:
        """Casts of `name` are given to `handler`, again and again until it returns. It must bear repetition: the
        agent may die between its end and the note that it ended. What `check` raises BadRequest for is refused
        before it is acknowledged, and so is a cast of no known name."""
        self._casts[name] = handler, check

    async def start(self) -> None:
        """Take calls and casts. Casts left over from an earlier life are handled first."""
        for envelope in self._journal.inbox():
            self._waits(envelope)
        self._subscriptions = [
            await self._bus.subscribe(calls_to(self._host_name), self._on_call),
            await self._bus.subscribe(casts_to(self._host_name), self._on_cast),
        ]

    async def stop(self) -> None:
        """Take nothing more. Calls being worked on are cancelled and answered Unknown; casts stay in the inbox."""
        for subscription in self._subscriptions:
            await subscription.close()
        self._subscriptions = []
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._cast_queues.stop()

    # calls

    async def _on_call(self, incoming: Incoming) -> None:
        await self._in_a_place(self._calls, incoming, self._call)

    async def _in_a_place(
        self, places: ActiveRequests, incoming: Incoming, work: Callable[[Incoming], Awaitable[None]]
    ) -> None:
        """`work`, where its sender has a place for it."""
        sender = sender_in(incoming.subject)
        with places.taken(sender, len(incoming.payload)) as full:
            if not full:
                await work(incoming)
                return
        if self._turned_away[sender] < _TURNED_AWAY:
            self._turned_away[sender] += 1
            try:
                busy = Temporary(f"{self._host_name} {full}", fix="try again")
                await self._send(incoming, Reply.of_error("", busy))
            finally:
                self._turned_away[sender] -= 1
                self._turned_away += Counter()  # forgets the zeros

    async def _call(self, incoming: Incoming) -> None:
        try:
            request = _decode(incoming, "call")
        except BadRequest as e:
            self._bad(incoming, "call", e)
            await self._send(incoming, Reply.of_error("", e))
            return
        key = (request.sender, request.id)
        task = self._running.get(key)
        if task is None:
            task = asyncio.create_task(self._answer(request, incoming), name=f"call {request.method}")
            self._running[key] = task
            task.add_done_callback(lambda _: self._running.pop(key, None))
        while not task.done():
            try:
                await within(self._clock, self._heartbeat_s, _finished(task))
            except TimeoutError:
                await self._beat(incoming, request.id)
        reply = _stopped(request) if task.cancelled() else task.result()
        await self._send(incoming, reply)

    async def _answer(self, request: Request, incoming: Incoming) -> Reply:
        try:
            handler = self._methods.get(request.method)
            if handler is None:
                raise BadRequest(f"{self._host_name} knows no method {request.method!r}")
            self.check_caller(request)
            with own_cancellation_only():
                return Reply(kind="result", id=request.id, data=await handler(request))
        except SternaError as e:
            if isinstance(e, BadRequest) and not said_by_another(e):
                self._bad(incoming, f"call {request.method}", e)
            return Reply.of_error(request.id, e)
        except asyncio.CancelledError:
            return _stopped(request)
        except Exception as e:
            _log.exception("a call failed unexpectedly", method=request.method, migration_id=request.migration_id)
            return Reply.of_error(request.id, _internal(request.method, e))

    async def _beat(self, incoming: Incoming, request_id: str) -> None:
        try:
            await incoming.reply(encode(Reply(kind="heartbeat", id=request_id)))
        except Unreachable:
            _log.debug("heartbeat not sent: the bus is away", id=request_id)

    async def _send(self, incoming: Incoming, reply: Reply) -> None:
        try:
            payload = encode(reply)
        except BadRequest as e:
            reply = Reply.of_error(reply.id, Permanent(f"{self._host_name} cannot encode its answer: {e.message}"))
            payload = encode(reply)
        for _ in range(_REPLY_TRIES):
            try:
                await incoming.reply(payload)
                return
            except Unreachable:
                await self._clock.sleep(self._heartbeat_s)
        _log.warning("answer lost: the bus is away", id=reply.id)

    # casts

    async def _on_cast(self, incoming: Incoming) -> None:
        await self._in_a_place(self._taking, incoming, self._cast)

    async def _cast(self, incoming: Incoming) -> None:
        try:
            request = _decode(incoming, "cast")
            _, check = self._known(request.method)
            self.check_caller(request)
            check(request)
            self._check_room(request.sender)
            envelope = request.to_envelope(self._host_name)
            # No await between the journal and the queue: that keeps the order of arrival.
            if self._journal.inbox_put(envelope):
                self._waits(envelope)
            reply = Reply(kind="ack", id=request.id)
        except SternaError as e:
            if isinstance(e, BadRequest):
                self._bad(incoming, "cast", e)
            reply = Reply.of_error("", e)
        except Exception as e:
            _log.exception("a cast could not be journaled")
            reply = Reply.of_error("", _internal("cast", e))
        await self._send(incoming, reply)

    async def _handle_cast(self, envelope: Envelope) -> None:
        handler, check = self._known(envelope.method)  # an earlier life may have taken it
        request = Request.of_cast(envelope)
        check(request)
        await handler(request)
        self._done(envelope)

    def _check_room(self, sender: str) -> None:
        """Raises Temporary where too many of its casts wait, or come at once: its own later ones wait, then."""
        full = no_more_waiting(sender, self._waiting.load(sender))
        if not full and not self._paces.admits(sender, CASTS):
            full = f"{sender} sends more than {CASTS.per_s:g} messages a second"
        if full:
            raise Temporary(f"{self._host_name} takes it later: {full}", fix="see its audit", delay_s=1.0)

    def _waits(self, envelope: Envelope) -> None:
        self._waiting.add(key_of(envelope), envelope.sender, len(envelope.model_dump_json()))
        self._cast_queues.add(envelope)

    def _done(self, envelope: Envelope) -> None:
        self._journal.inbox_done(envelope)
        self._waiting.done(key_of(envelope))

    def forget(self, envelope: Envelope) -> None:
        """An operator's word: one that was set aside is needed by nobody any more."""
        if self.aside.pop(key_of(envelope), None) is not None:
            self._done(envelope)

    def _known(self, method: str) -> tuple[CastHandler, CastCheck]:
        known = self._casts.get(method)
        if known is None:
            raise BadRequest(
                f"{self._host_name} knows no cast {method!r}", fix="upgrade the older of the two hosts"
            )
        return known

    def _bad(self, incoming: Incoming, what: str, error: SternaError) -> None:
        self.dead_letters.add(sender_in(incoming.subject), what, error.message, incoming.payload)

    def _set_aside(self, envelope: Envelope, why: str) -> None:
        self.aside[key_of(envelope)] = why
        _log.error(
            "a cast cannot be handled and is set aside",
            method=envelope.method,
            migration_id=envelope.migration_id,
            sender=envelope.sender,
            why=why,
        )
        try:
            self.on_aside(envelope, why)
        except Exception:  # what comes after it in its queue must not wait for it
            _log.exception("reporting a cast that was set aside failed", id=envelope.id)


def key_of(envelope: Envelope) -> str:
    """Tells a cast of the inbox from all others: another sender may use the same id."""
    return f"{envelope.sender}/{envelope.id}"


def _decode(incoming: Incoming, kind: str) -> Request:
    request = decode_request(incoming.payload)
    check_sender(incoming.subject, request.sender)
    if request.kind != kind:
        raise BadRequest(f"a {request.kind} was sent where only a {kind} is taken")
    return request


def _internal(method: str, error: Exception) -> Permanent:
    return Permanent(f"internal error in {method}: {type(error).__name__}: {error}")


def _stopped(request: Request) -> Reply:
    return Reply.of_error(request.id, Unknown(f"the agent was stopped while it worked on {request.method}"))


async def _finished(task: asyncio.Task[Reply]) -> None:
    await asyncio.wait((task,))
