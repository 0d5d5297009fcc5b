"""Blocking calls off the event loop, in daemon threads of their own.

asyncio's default executor is shared and joined at exit: one call that hangs (a migration that runs on, a dead
NFS server) would stop everything else, and would keep a process that got SIGTERM from ending.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
Job = Callable[[], None]


class Worker:
    """One named daemon thread that runs what it is given, in order."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def run(self, act: Callable[[], T]) -> T:
        """`act`'s result, or its exception. A cancelled caller stops waiting; what has begun goes on to its end,
        what has not is skipped."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._jobs.put(lambda: _answer(loop, answer, act))
        return await answer

    def post(self, act: Job) -> None:
        """Run `act` later, without an answer; it must not raise."""
        self._jobs.put(act)

    def stop(self) -> None:
        """End the thread after what is queued. Not waited for."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


async def in_thread(act: Callable[[], T], *, name: str = "sterna-file") -> T:
    """`act` in a fresh daemon thread (some 50 us): for the rare call that may hang for good."""
    worker = Worker(name)
    try:
        return await worker.run(act)
    finally:
        worker.stop()


def _answer(loop: asyncio.AbstractEventLoop, answer: asyncio.Future[T], act: Callable[[], T]) -> None:
    if answer.cancelled():
        return
    try:
        result = act()
    except BaseException as error:  # the waiting task gets it, whatever it is
        _tell(loop, answer, error)
    else:
        _tell(loop, answer, result)


def _tell(loop: asyncio.AbstractEventLoop, answer: asyncio.Future[T], result: T | BaseException) -> None:
    def set_result() -> None:
        if answer.done():
            return
        if isinstance(result, BaseException):
            answer.set_exception(result)
        else:
            answer.set_result(result)

    try:
        loop.call_soon_threadsafe(set_result)
    except RuntimeError:
        return  # the loop is closed: nobody waits any more
