"""A few daemon threads that take calls from one queue.

What `ThreadPoolExecutor` does, but the interpreter does not wait for these threads at exit: one that hangs in the
kernel would keep the process from ending.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

from sterna.domain.errors import Temporary

T = TypeVar("T")


class DaemonThreads:
    """At most `most` threads, which begin with the first calls."""

    def __init__(self, most: int, name: str) -> None:
        self._most, self._name = most, name
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._ended = False

    def submit(self, act: Callable[[], T]) -> Future[T]:
        """Run it as soon as a thread is free; skipped where the answer is cancelled before.

        Raises RuntimeError after `end`, Temporary where the host has no thread left.
        """
        answer: Future[T] = Future()
        with self._lock:
            if self._ended:
                raise RuntimeError("these threads take no more calls")
            if len(self._threads) < self._most:
                self._begin_another()
            self._calls.put(partial(_perform, answer, act))
        return answer

    def end(self) -> None:
        """Take no more calls, and return when those that were taken are done: never, where one hangs."""
        with self._lock:
            if not self._ended:
                self._ended = True
                for _ in self._threads:
                    self._calls.put(None)
        for thread in self._threads:
            thread.join()

    def _begin_another(self) -> None:
        thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            if not self._threads:
                raise Temporary(f"this host has no thread left: {error}") from error
        else:
            self._threads.append(thread)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            del call  # do not keep a reference until the next call


def _perform(answer: Future[T], act: Callable[[], T]) -> None:
    if not answer.set_running_or_notify_cancel():
        return
    try:
        result = act()
    except BaseException as error:  # raised to the caller that waits
        answer.set_exception(error)
    else:
        answer.set_result(result)
