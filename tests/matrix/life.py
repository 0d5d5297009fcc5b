"""One life of an agent, and how it is cut: everything it may touch goes through here.

kill -9 is faithful: from the instant of death no call of that life reaches the world, the bus or the journal any
more, whatever `finally` blocks and cancelled tasks still try. A frozen life (SIGSTOP) stands still at its next
touch of anything, and goes on from there when it is thawed.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar, copy_context
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic_core import from_json

from sterna.ports.bus import BusState, Handler, Incoming, Subscription
from sterna.ports.clock import Clock
from sterna.rpc.subjects import event_subject
from sterna.sim.ports.bus import MemoryBus

if TYPE_CHECKING:
    from tests.matrix.stage import Stage

LIFE: ContextVar[Life | None] = ContextVar("life", default=None)
"""Whose code is running: an agent's life, or None for the world, the test and the client."""
STEP: ContextVar[str] = ContextVar("step", default="-")
"""Which step that code works on, for the names of moments."""
TOUCH: ContextVar[str] = ContextVar("touch", default="")
"""Which port call is under way, so that changes of the world inside it can be named."""


class Wire(NamedTuple):
    """As much of a message on the bus as a moment's name needs."""

    kind: str
    method: str
    id: str


class Died(asyncio.CancelledError):
    """What code of a dead life meets wherever it turns."""


class Life:
    """From one start of an agent to its death."""

    def __init__(self, stage: Stage, host: str, number: int) -> None:
        self.stage, self.host, self.name = stage, host, f"{host}-{number}"
        self.dead = False
        self.tasks: set[asyncio.Task[Any]] = set()
        self._thawed = asyncio.Event()
        self._thawed.set()

    def die(self) -> None:
        """At once: nothing of this life has any effect from here on."""
        self.dead = True
        self._thawed.set()
        self.stage.broker.cut(self.name)
        current = _current_task()
        for task in self.tasks:
            if task is not current:
                task.cancel()

    def freeze(self) -> None:
        """Stand still."""
        self._thawed.clear()

    def thaw(self) -> None:
        """Go on."""
        self._thawed.set()

    @property
    def frozen(self) -> bool:
        """Does it stand still?"""
        return not self._thawed.is_set()

    def check(self) -> None:
        """Raises Died."""
        if self.dead:
            raise Died(f"{self.name} is dead")

    async def gate(self) -> None:
        """Pass if alive, wait while frozen. Raises Died."""
        self.check()
        while not self._thawed.is_set():
            await self._thawed.wait()
        self.check()

    def moment(self, what: str) -> None:
        """Something happens here now: a fault may strike. Raises what it brings, or Died."""
        self.check()
        self.stage.moment(self.host, what)
        self.check()

    def adopt_current_task(self) -> None:
        """The running task is this life's."""
        task = _current_task()
        if task is not None:
            self.tasks.add(task)

    async def strike(self, name: str, row: str, moment: str) -> None:
        """The runner's own hook: before and after each step."""
        STEP.set(name)
        self.check()
        if moment == "before":
            self.stage.ledger.begins(self.host, name, self.name)
        self.moment(f"{name} {moment}")
        await self.gate()


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def task_factory(loop: asyncio.AbstractEventLoop, coro: Any, **more: Any) -> asyncio.Task[Any]:
    """Tasks made by the code of a life belong to it."""
    life = LIFE.get()
    if life is None and TOUCH.get():  # what a port call set going in the world is no longer the agent's doing
        more["context"] = copy_context()
        more["context"].run(TOUCH.set, "")
    task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **more)
    if life is not None:
        life.tasks.add(task)
        task.add_done_callback(life.tasks.discard)
        if life.dead:
            task.cancel()
    return task


class GuardedPort:
    """A port as one life sees it."""

    def __init__(self, life: Life, port: object, label: str) -> None:
        self._life, self._port, self._label = life, port, label

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        if not callable(found):
            return found
        what = f"{self._label}.{name}"
        if inspect.iscoroutinefunction(found):
            return self._calling(found, what)
        if name == "events":
            return lambda *a: self._events(found(*a))
        return found

    def _calling(self, call: Callable[..., Any], what: str) -> Callable[..., Any]:
        life = self._life

        async def guarded(*args: Any, **named: Any) -> Any:
            await life.gate()
            label = f"{STEP.get()}/{what}"
            life.moment(f"{label} before")
            await life.gate()
            tokens = LIFE.set(None), TOUCH.set(f"{life.host}|{label}")
            try:
                result = await call(*args, **named)
            finally:
                TOUCH.reset(tokens[1])
                LIFE.reset(tokens[0])
            life.moment(f"{label} after")
            await life.gate()
            return result

        return guarded

    @asynccontextmanager
    async def _events(self, subscribing: Any) -> AsyncIterator[Any]:
        await self._life.gate()
        async with subscribing as feed:
            yield self._guarded_feed(feed)

    async def _guarded_feed(self, feed: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for event in feed:
            await self._life.gate()
            yield event


class HostClock:
    """A host's own clock: its wall may jump, its monotonic time does not."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.ahead = timedelta()
        self.sleep = clock.sleep
        self.monotonic_ms = clock.monotonic_ms

    def now(self) -> datetime:
        return self._clock.now() + self.ahead


class GuardedClock:
    """The clock as one life sees it."""

    def __init__(self, life: Life, clock: Any) -> None:
        self._life, self._clock = life, clock

    def now(self) -> Any:
        return self._clock.now()

    def monotonic_ms(self) -> Any:
        return self._clock.monotonic_ms()

    async def sleep(self, seconds: float) -> None:
        await self._life.gate()
        await self._clock.sleep(seconds)
        await self._life.gate()


class GuardedBus:
    """The bus connection of one life."""

    def __init__(self, life: Life, bus: MemoryBus) -> None:
        self._life, self._bus = life, bus

    async def subscribe(self, subject: str, handler: Handler) -> Subscription:
        await self._life.gate()
        life = self._life

        async def on_message(incoming: Incoming) -> None:
            LIFE.set(life)
            life.adopt_current_task()
            await life.gate()
            request = request_in(incoming.subject, incoming.payload)
            if request is None:
                await handler(incoming)
                return
            STEP.set(label_of(request))
            life.moment(f"{label_of(request)} received")
            await life.gate()
            await handler(GuardedIncoming(life, incoming, request))

        return await self._bus.subscribe(subject, on_message)

    async def publish(self, subject: str, payload: bytes) -> None:
        await self._life.gate()
        await self._bus.publish(subject, payload)

    @asynccontextmanager
    async def request(self, subject: str, payload: bytes) -> AsyncIterator[AsyncIterator[bytes]]:
        life, request = self._life, _peek(payload)
        label = label_of(request)
        await life.gate()
        life.moment(f"{label} sent")
        await life.gate()
        if request.kind == "cast":
            life.stage.ledger.casts(life.host, request.id)
        else:
            life.stage.ledger.calls(life.host, STEP.get(), label)
        if life.stage.loses(f"{label} request"):
            yield _never()
            return
        life.stage.stirred()
        async with self._bus.request(subject, payload) as replies:
            yield self._answers(replies, label)

    def state(self) -> BusState:
        self._life.check()
        return self._bus.state()

    async def close(self) -> None:
        self._life.check()
        await self._bus.close()

    async def _answers(self, replies: AsyncIterator[bytes], label: str) -> AsyncIterator[bytes]:
        async for payload in replies:
            await self._life.gate()
            if _peek(payload).kind != "heartbeat":
                self._life.stage.stirred()
                self._life.moment(f"{label} answered")
                await self._life.gate()
            yield payload


class GuardedIncoming:
    """A message as its receiver sees it; its answer may be lost on the way."""

    def __init__(self, life: Life, incoming: Incoming, request: Wire) -> None:
        self._life, self._incoming, self._request = life, incoming, request
        self._label = label_of(request)

    @property
    def subject(self) -> str:
        return self._incoming.subject

    @property
    def payload(self) -> bytes:
        return self._incoming.payload

    async def reply(self, payload: bytes) -> None:
        await self._life.gate()
        kind = _peek(payload).kind
        if kind != "heartbeat":
            self._life.moment(f"{self._label} replying")
            await self._life.gate()
            if kind == "ack":
                self._life.stage.ledger.acknowledges(self._life.host, self._request.id)
            if self._life.stage.loses(f"{self._label} answer"):
                return
        await self._incoming.reply(payload)


def request_in(subject: str, payload: bytes) -> Wire | None:
    """The call or cast in a message; None for hints."""
    if subject.startswith(event_subject("")):
        return None
    return _peek(payload)


def _peek(payload: bytes) -> Wire:
    raw = from_json(payload)
    return Wire(str(raw.get("kind")), str(raw.get("method", "")), str(raw.get("id", "")))


def label_of(request: Wire) -> str:
    """`call pre_live_migration`, `cast destination_report`."""
    return f"{request.kind} {request.method}"


async def _never() -> AsyncIterator[bytes]:
    await asyncio.Event().wait()
    yield b""


__all__ = ["LIFE", "STEP", "TOUCH", "Died", "Life"]
