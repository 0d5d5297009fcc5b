"""Writes that wait for the same thread share one transaction: one turn, one commit, for all of them.

Each has a savepoint, so that one that fails takes back nothing but its own. Used by `fleet.py`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine

from sterna.adapters.sql.fleet_database import has_ended, own_errors, take_turn
from sterna.kit.daemon_threads import DaemonThreads
from sterna.kit.errors import copy_of

MOST = 64
"""Writes in one transaction."""
SHARED_S = 0.2
"""A transaction that has lasted for so long takes no further write along: other controllers wait for it, and on
SQLite all who read."""

Work = Callable[[Connection], Any]


class _Write(NamedTuple):
    work: Work
    answer: Future[Any]


class GroupCommit:
    """The writes of one engine, on one thread."""

    def __init__(self, engine: Engine, thread: DaemonThreads) -> None:
        self._engine, self._thread = engine, thread
        self._waiting: deque[_Write] = deque()
        self._lock = threading.Lock()

    def submit(self, work: Work) -> Future[Any]:
        """Its result, once it is committed. Skipped where the answer is cancelled before it has begun.

        Raises what `DaemonThreads.submit` does: then it is not done.
        """
        write = _Write(work, Future())
        with self._lock:
            self._waiting.append(write)
        try:
            self._thread.submit(self._write_some)  # where another one has taken this work along, it finds nothing
        except Exception:
            if self._take_back(write):
                raise
        return write.answer

    def _take_back(self, write: _Write) -> bool:
        """False where it has begun: another one has taken it along."""
        with self._lock:
            waits = write in self._waiting
            if waits:
                self._waiting.remove(write)
        return waits

    def _next(self) -> _Write | None:
        """The first that is still wanted. From now on it cannot be cancelled."""
        with self._lock:
            while self._waiting:
                one = self._waiting.popleft()
                if one.answer.set_running_or_notify_cancel():
                    return one
        return None

    def _write_some(self) -> None:
        first = self._next()
        if first is None:
            return
        begun = [first]
        try:
            with own_errors(), self._engine.begin() as connection:
                take_turn(connection)
                results = self._results(connection, begun)
        except BaseException as error:  # nothing was committed: whoever waits for what was begun gets it
            results = [copy_of(error) for _ in begun]
        for write, result in zip(begun, results, strict=True):
            if isinstance(result, BaseException):
                write.answer.set_exception(result)
            else:
                write.answer.set_result(result)

    def _results(self, connection: Connection, begun: list[_Write]) -> list[Any]:
        """What the first one of `begun` returns, and what each that is taken along (added to `begun`) returns or
        raises. Raises what ends the transaction."""
        until = time.monotonic() + SHARED_S
        results = [begun[0].work(connection)]
        while len(begun) < MOST and time.monotonic() < until and (another := self._next()) is not None:
            begun.append(another)
            results.append(_result(connection, another.work))
        return results


def _result(connection: Connection, work: Work) -> Any:
    """What it returns or raises. Raises what ends the whole transaction."""
    savepoint = connection.begin_nested()
    try:
        with own_errors():
            result = work(connection)
    except Exception as error:
        if has_ended(connection):
            raise
        savepoint.rollback()
        return error
    savepoint.commit()
    return result
