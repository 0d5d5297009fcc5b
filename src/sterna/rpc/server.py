"""The answering side of one agent: which methods exist is the agent's business, how they are answered is here.

A call is answered with heartbeats while its handler works. A cast is acknowledged once it is in the
journal's inbox, and handled afterwards (lanes.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from sterna.domain.errors import BadRequest, Permanent, SternaError, Temporary, Unknown, Unreachable
from sterna.domain.model import Data
from sterna.kit.tasks import no_leaks
from sterna.kit.waiting import within
from sterna.ports.bus import Bus, Incoming, Subscription
from sterna.ports.clock import Clock
from sterna.ports.records import Envelope, Journal
from sterna.rpc.envelope import Reply, Request, decode_request, encode
from sterna.rpc.lanes import Lanes
from sterna.rpc.subjects import calls_to, casts_to, check_sender

CallHandler = Callable[[Request], Awaitable[Data]]
CastHandler = Callable[[Request], Awaitable[None]]
CastCheck = Callable[[Request], object]
"""Raises BadRequest for a message that could never be handled."""

_REPLY_TRIES = 5
"""An answer is offered this often, one heartbeat's time apart, to a bus that is away."""

MOST_CALLS = 1_000
"""Calls worked on at once. A caller that finds no place tries again, as after any Temporary error."""

_log = structlog.get_logger()


class RpcServer:
    """Answers calls and takes casts for `host_name`."""

    def __init__(self, bus: Bus, host_name: str, journal: Journal, clock: Clock, heartbeat_s: float = 1.0) -> None:
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
        self._lanes = Lanes(self._handle_cast, clock, self._set_aside)
        self.aside: dict[str, str] = {}
        """Casts of the inbox that are not tried again in this life, by id, and why."""
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
            self._lanes.add(envelope)
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
        await self._lanes.stop()

    # calls

    async def _on_call(self, incoming: Incoming) -> None:
        try:
            request = _decode(incoming, "call")
        except BadRequest as e:
            await self._send(incoming, Reply.of_error("", e))
            return
        key = (request.sender, request.id)
        task = self._running.get(key)
        if task is None and len(self._running) >= MOST_CALLS:
            full = Temporary(f"{self._host_name} works on {len(self._running)} calls already", fix="try again")
            await self._send(incoming, Reply.of_error(request.id, full))
            return
        if task is None:
            task = asyncio.create_task(self._answer(request), name=f"call {request.method}")
            self._running[key] = task
            task.add_done_callback(lambda _: self._running.pop(key, None))
        while not task.done():
            try:
                await within(self._clock, self._heartbeat_s, _finished(task))
            except TimeoutError:
                await self._beat(incoming, request.id)
        reply = _stopped(request) if task.cancelled() else task.result()
        await self._send(incoming, reply)

    async def _answer(self, request: Request) -> Reply:
        try:
            handler = self._methods.get(request.method)
            if handler is None:
                raise BadRequest(f"{self._host_name} knows no method {request.method!r}")
            self.check_caller(request)
            with no_leaks():
                return Reply(kind="result", id=request.id, data=await handler(request))
        except SternaError as e:
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
            reply = Reply.of_error(reply.id, Permanent(f"the answer of {self._host_name} is no good: {e.message}"))
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
        try:
            request = _decode(incoming, "cast")
            _, check = self._known(request.method)
            self.check_caller(request)
            check(request)
            envelope = request.to_envelope(self._host_name)
            # No await between the journal and the lane: that keeps the order of arrival.
            if self._journal.inbox_put(envelope):
                self._lanes.add(envelope)
            reply = Reply(kind="ack", id=request.id)
        except SternaError as e:
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
        self._journal.inbox_done(envelope.id)

    def _known(self, method: str) -> tuple[CastHandler, CastCheck]:
        known = self._casts.get(method)
        if known is None:
            raise BadRequest(
                f"{self._host_name} knows no cast {method!r}", fix="upgrade the older of the two hosts"
            )
        return known

    def _set_aside(self, envelope: Envelope, why: str) -> None:
        self.aside[envelope.id] = why
        _log.error(
            "a cast cannot be handled and is set aside",
            method=envelope.method,
            migration_id=envelope.migration_id,
            sender=envelope.sender,
            why=why,
        )
        try:
            self.on_aside(envelope, why)
        except Exception:  # what comes after it in its lane must not wait for it
            _log.exception("reporting a cast that was set aside failed", id=envelope.id)


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
