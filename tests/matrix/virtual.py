"""An event loop whose time is a SimClock's: whenever nothing is left to run, time jumps to whoever sleeps shortest.

Timers of asyncio itself (`wait_for`, `call_later`) run on the same virtual time, and work for a thread is done at
once, so that nothing in a case waits for anything real. Faster than a driver task on a common loop, too.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from typing import Any, TypeVar, TypeVarTuple

from sterna.kit.daemon_threads import DaemonThreads
from sterna.sim.world.clock import SimClock

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Timer(asyncio.TimerHandle):
    """With what the loop of asyncio keeps in it."""

    _scheduled: bool
    _when: float


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs one case; its order of events is the same each time."""

    _ready: deque[asyncio.Handle]
    _scheduled: list[Timer]

    def __init__(self, clock: SimClock, limit_s: float) -> None:
        super().__init__()
        self._virtual, self._limit_s = clock, limit_s

    def time(self) -> float:
        """Virtual seconds."""
        return self._virtual.monotonic_ms() / 1000

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """At once: no thread, no race."""
        done: asyncio.Future[T] = self.create_future()
        try:
            done.set_result(func(*args))
        except BaseException as error:
            done.set_exception(error)
        return done

    def _run_once(self) -> None:
        ready = self._ready
        if not ready:
            self._jump()
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _jump(self) -> None:
        """Raises TimeoutError past the limit, RuntimeError where nobody sleeps."""
        timers = self._scheduled
        while timers and timers[0]._cancelled:
            heapq.heappop(timers)._scheduled = False
        sleeper, timer = self._virtual.next_due(), timers[0]._when if timers else None
        due = min((t for t in (sleeper, timer) if t is not None), default=None)
        if due is None:
            raise RuntimeError("everything waits for something that nothing will bring about")
        if due > self._limit_s:
            raise TimeoutError(f"nothing ended the wait within {self._limit_s:g} virtual seconds")
        if due == sleeper:
            self._virtual.wake_next()
            return
        self._virtual.move_to(due)
        handle = heapq.heappop(timers)
        handle._scheduled = False
        self._ready.append(handle)

    def _process_events(self, event_list: Any) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """There is no other thread."""


class AtOnce(DaemonThreads):
    """Work for a thread is done by whoever asks for it: on virtual time no other thread would ever get to it."""

    def submit(self, act: Callable[[], T]) -> Future[T]:
        """Done when it returns."""
        answer: Future[T] = Future()
        try:
            answer.set_result(act())
        except BaseException as error:
            answer.set_exception(error)
        return answer


def run(clock: SimClock, limit_s: float, factory: Any, main: Coroutine[Any, Any, None]) -> None:
    """Run `main` to its end on virtual time. What it leaves running is cancelled."""
    loop = VirtualLoop(clock, limit_s)
    loop.set_task_factory(factory)
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(main)
    finally:
        asyncio.set_event_loop(None)
        loop.close()
