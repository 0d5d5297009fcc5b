"""Writes that wait for the same thread share one transaction: one turn, one commit, for all of them.

Each has a savepoint, so that one that fails takes back nothing but its own. Used by `fleet.py`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from sqlalchemy import Connection, Engine

from sterna.adapters.sql.fleet_database import own_errors, take_turn
from sterna.kit.daemon_threads import DaemonThreads

MOST = 64
"""Writes in one transaction: it is over within a fraction of a second, and other controllers wait for it."""

Work = Callable[[Connection], Any]


class Together:
    """The writes of one engine, on one thread."""

    def __init__(self, engine: Engine, thread: DaemonThreads) -> None:
        self._engine, self._thread = engine, thread
        self._waiting: deque[tuple[Work, Future[Any]]] = deque()
        self._lock = threading.Lock()

    def submit(self, work: Work) -> Future[Any]:
        """Its result, once it is committed. Skipped where the answer is cancelled before it has begun."""
        answer: Future[Any] = Future()
        with self._lock:
            self._waiting.append((work, answer))
        self._thread.submit(self._write_some)  # where another one has taken this work along, it finds nothing
        return answer

    def _write_some(self) -> None:
        with self._lock:
            taken = [self._waiting.popleft() for _ in range(min(MOST, len(self._waiting)))]
        wanted = [(work, answer) for work, answer in taken if answer.set_running_or_notify_cancel()]
        if not wanted:
            return
        try:
            with own_errors(), self._engine.begin() as connection:
                take_turn(connection)
                results = _results(connection, [work for work, _ in wanted])
        except BaseException as error:  # nothing was committed: whoever waits gets it
            results = [error] * len(wanted)
        for (_, answer), result in zip(wanted, results, strict=True):
            if isinstance(result, BaseException):
                answer.set_exception(result)
            else:
                answer.set_result(result)


def _results(connection: Connection, works: Sequence[Work]) -> list[Any]:
    """What each returns, or raises where it is not the only one."""
    if len(works) == 1:
        return [works[0](connection)]
    results: list[Any] = []
    for work in works:
        try:
            with own_errors(), connection.begin_nested():
                results.append(work(connection))
        except Exception as error:
            results.append(error)
    return results
