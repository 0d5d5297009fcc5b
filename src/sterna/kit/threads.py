"""Blocking calls off the event loop, in daemon threads of their own.

asyncio's default executor is shared and joined at exit: one call that hangs (a migration that runs on, a dead
NFS server) would stop everything else, and would keep a process that got SIGTERM from ending.

A call may have a limit. A thread cannot be stopped, so a call that exceeds its limit is left alone with its thread:
its caller gets TimeoutError, and what was queued behind it goes on in a new thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from sterna.domain.errors import Temporary

T = TypeVar("T")
Job = Callable[[], None]
MOST_STUCK = 8
"""Threads of one worker that may hang at a time. After that, calls fail at their limit without a new thread."""
MOST_LEFT = 64
"""Threads of one name, and of one file system or service, that `in_thread` may have left alone at a time. One step
that is tried for ever on a dead NFS leaves one every 5 minutes. Those that are waited for do not count: many guests
have as many calls at once."""


def start_thread(target: Job, name: str) -> None:
    """A daemon thread. Raises Temporary where the host has none left."""
    try:
        threading.Thread(target=target, name=name, daemon=True).start()
    except RuntimeError as error:
        fix = "find out what takes them (`ps -eL`), and what the service may have (`systemctl show -p TasksMax`)"
        raise Temporary(f"this host has no thread left: {error}", fix=fix) from error


@dataclass(eq=False)
class _Call(Generic[T]):
    """One call: the act, its waiting caller, and how long the act itself may take."""

    act: Callable[[], T]
    limit_s: float | None = None
    loop: asyncio.AbstractEventLoop | None = None
    answer: asyncio.Future[T] | None = None
    began: float = 0.0

    @property
    def unwanted(self) -> bool:
        return self.answer is not None and self.answer.cancelled()

    def perform(self) -> None:
        """In the worker's thread."""
        if self.answer is None:
            self.act()
            return
        try:
            result = self.act()
        except BaseException as error:  # the waiting task gets it, whatever it is
            self.end(error)
        else:
            self.end(result)

    def end(self, result: T | BaseException) -> None:
        """From any thread: the caller gets this, if it has nothing yet."""
        loop, answer = self.loop, self.answer
        if loop is None or answer is None:
            return

        def set_result() -> None:
            if answer.done():
                return
            if isinstance(result, BaseException):
                answer.set_exception(result)
            else:
                answer.set_result(result)

        with contextlib.suppress(RuntimeError):  # the event loop is closed: no caller waits any more
            loop.call_soon_threadsafe(set_result)


@dataclass(eq=False)
class _Line:
    """One thread, its queue, and the call it performs. All of it changes under the worker's lock."""

    came: threading.Condition
    calls: deque[_Call[Any] | None] = field(default_factory=deque)
    current: _Call[Any] | None = None

    def overdue_s(self) -> float | None:
        """By how much the current call is over its limit (negative: before it); None where nothing limits it."""
        call = self.current
        return None if call is None or call.limit_s is None else time.monotonic() - call.began - call.limit_s


class Worker:
    """One named daemon thread that runs what it is given, in order."""

    def __init__(self, name: str, *, limit_s: float | None = None, at_end: Job | None = None) -> None:
        """`limit_s` is each call's. `at_end` runs in a thread that ends, also in one that was left alone with a
        call and has come back: two threads may be alive then, so what they use must be each thread's own."""
        self._name, self._limit_s, self._at_end = name, limit_s, at_end
        self._lock = threading.Lock()
        self._stopped = False
        self._stuck: set[_Line] = set()
        self._line = self._new_line()

    async def run(self, act: Callable[[], T], *, unlimited: bool = False) -> T:
        """`act`'s result, or its exception. A caller that is cancelled, or that gives up, stops waiting; what has
        begun goes on to its end, what has not is dropped.

        Raises TimeoutError when `act` takes longer than the limit, unless it is `unlimited`. Raises Temporary after
        `stop`.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        call = _Call(act, None if unlimited else self._limit_s, loop, answer)
        self._put(call)
        try:
            if self._limit_s is None:
                return await answer
            while not answer.done():
                line = self._line
                over = line.overdue_s()
                if over is not None and over >= 0 and not self._replace(line):
                    raise TimeoutError(f"no answer, and no thread to go on with: {self.hanging} others hang")
                await asyncio.wait({answer}, timeout=self._limit_s if over is None else max(0.01, 0.01 - over))
            return answer.result()
        finally:
            if answer.cancel() or answer.cancelled():
                self._drop(call)

    def post(self, act: Job) -> None:
        """Run `act` later, without an answer; it must not raise. Raises Temporary after `stop`."""
        self._put(_Call(act, self._limit_s))

    def stop(self) -> None:
        """End the thread after what is queued. Not waited for."""
        with self._lock:
            if not self._stopped:
                self._stopped = True
                self._enqueue(None)

    @property
    def hanging(self) -> int:
        """Threads that were left alone with a call and have not come back."""
        with self._lock:
            return len(self._stuck)

    def _put(self, call: _Call[Any]) -> None:
        """Raises Temporary after `stop`: no thread would ever begin it, and its limit counts from its begin."""
        with self._lock:
            if self._stopped:
                raise Temporary(f"{self._name} has been stopped", fix="try again")
            self._enqueue(call)

    def _enqueue(self, call: _Call[Any] | None) -> None:
        """None: the thread ends. Under the lock."""
        self._line.calls.append(call)
        self._line.came.notify()

    def _drop(self, call: _Call[Any]) -> None:
        """No caller waits for it any more: where it has not begun, it is dropped. A queue behind threads that hang
        would grow for ever."""
        with self._lock, contextlib.suppress(ValueError):  # it has begun
            self._line.calls.remove(call)

    def _new_line(self) -> _Line:
        """Raises Temporary where the host has no thread left."""
        line = _Line(threading.Condition(self._lock))
        start_thread(lambda: self._work(line), self._name)
        return line

    def _replace(self, line: _Line) -> bool:
        """Leave this line's thread alone with its call; what is queued goes on in a new one. False where as many
        hang already as may."""
        with self._lock:
            call, over = line.current, line.overdue_s()
            if line is not self._line or call is None or over is None or over < 0:
                return True  # it has come to its end, or another caller did this
            if len(self._stuck) >= MOST_STUCK:
                return False
            try:
                new = self._new_line()
            except Temporary:  # no thread left: this one goes on serving when it comes back
                return False
            self._stuck.add(line)
            new.calls.extend(line.calls)
            line.calls = deque([None])
            self._line = new
        call.end(TimeoutError(f"no answer within {call.limit_s:g} s"))
        return True

    def _work(self, line: _Line) -> None:
        while (call := self._take(line)) is not None:
            call.perform()
            with self._lock:
                line.current = None
        try:
            if self._at_end is not None:
                self._at_end()
        finally:
            with self._lock:
                self._stuck.discard(line)

    def _take(self, line: _Line) -> _Call[Any] | None:
        """This line's next call, which is its current one from then on; None: its thread ends.

        Under the lock: a line that has been replaced takes nothing more. Callers look at the present line only.
        """
        with self._lock:
            while True:
                while not line.calls:
                    line.came.wait()
                call = line.calls.popleft()
                if call is None:
                    return None
                if not call.unwanted:
                    call.began, line.current = time.monotonic(), call
                    return call


_own = threading.local()
"""In a thread of `in_thread`: `alone`, what it is counted by."""


class _Alone:
    """A call's own thread. While it is left alone, it is counted under its key."""

    left: ClassVar[Counter[tuple[str, str]]] = Counter()
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, key: tuple[str, str], call: _Call[Any]) -> None:
        """Raises Temporary where the host has no thread left."""
        self._key, self._call = key, call
        self._is_left = self._is_over = False
        start_thread(self._work, key[0])

    def leave(self) -> None:
        """No caller waits for it any more."""
        with self._lock:
            self._is_left = not self._is_over
            if self._is_left:
                self.left[self._key] += 1

    def count_as(self, of: str, *, whatever_hangs: bool) -> str:
        """What it was counted as before. Raises TimeoutError while as many of that thing as may hang."""
        with self._lock:
            name, before = self._key
            if of == before:
                return before
            if not whatever_hangs and self.left[name, of] >= MOST_LEFT:
                raise TimeoutError(f"{MOST_LEFT} calls hang already")
            if self._is_left:
                self.left[name, of] += 1
                self._forget()
            self._key = name, of
            return before

    def _forget(self) -> None:
        """Under the lock."""
        self.left[self._key] -= 1
        if not self.left[self._key]:
            del self.left[self._key]

    def _work(self) -> None:
        _own.alone = self
        try:
            self._call.perform()
        finally:
            with self._lock:
                self._is_over = True
                if self._is_left:
                    self._forget()


async def in_thread(
    act: Callable[[], T], *, name: str = "sterna-file", of: str = "", limit_s: float | None = None
) -> T:
    """`act` in a fresh daemon thread (some 50 us): for the rare call that may never return. `of`: the one thing it
    asks, so that another one's silence does not keep it from being asked.

    Raises TimeoutError when it takes longer than `limit_s`, and its thread is left alone; at once while MOST_LEFT
    threads of this name, of this thing, are. Raises Temporary where the host has no thread left.
    """
    key = name, of
    if limit_s is not None and _Alone.left[key] >= MOST_LEFT:
        raise TimeoutError(f"{MOST_LEFT} calls hang already")
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()
    alone = _Alone(key, _Call(act, limit_s, loop, answer))
    try:
        await asyncio.wait({answer}, timeout=limit_s)
        if not answer.done():
            raise TimeoutError(f"no answer within {limit_s:g} s")
        return answer.result()
    finally:
        if not answer.done():
            answer.cancel()
            alone.leave()


def left_alone(of: str, *, name: str = "sterna-file") -> int:
    """How many threads of `in_thread` hang at that thing and are not waited for any more."""
    return _Alone.left[name, of]


def count_as(of: str, *, whatever_hangs: bool = False) -> str | None:
    """In a thread of `in_thread`: what it does next is asked of that thing. What it was asked of before; None in
    any other thread. Raises TimeoutError while as many calls of that thing hang as may, unless `whatever_hangs`."""
    alone: _Alone | None = getattr(_own, "alone", None)
    return None if alone is None else alone.count_as(of, whatever_hangs=whatever_hangs)
