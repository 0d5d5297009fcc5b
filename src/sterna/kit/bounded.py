"""Calls from a thread into a library that may hang, each with a limit of its own. Blocking."""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from sterna.domain.errors import Temporary
from sterna.kit.threads import MOST_STUCK, start_thread

T = TypeVar("T")


class Bounded:
    """For a thread that must not hang: blocking calls in threads of their own, each with a limit.

    At most MOST_STUCK at a time `of` one thing (a server): one that does not answer does not block calls of
    another.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._changed = threading.Condition()
        self._running: Counter[str] = Counter()
        self._hanging: Counter[str] = Counter()

    @property
    def hanging(self) -> int:
        """Calls whose limit is over and which have not come back."""
        with self._changed:
            return self._hanging.total()

    def call(
        self, act: Callable[[], T], limit_s: float, late: Callable[[T], object] | None = None, of: str = ""
    ) -> T:
        """`act`'s result, or its exception. `late` gets the result of a call that came back after its limit.

        Raises TimeoutError after `limit_s`, which may have been spent in waiting for a place; at once while as many
        calls hang as may. Raises Temporary where the host has no thread left.
        """
        deadline = time.monotonic() + limit_s
        self._begin(of, deadline)
        answer: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()
        given_up = threading.Event()

        def work() -> None:
            try:
                perform()
            finally:  # whatever `late` raises: a place that is lost never comes back
                self._end(of, hung=given_up.is_set())

        def perform() -> None:
            result, error = None, None
            try:
                result = act()
            except BaseException as raised:  # raised to the caller that waits
                error = raised
            with self._changed:
                answer.put((result, error))
                in_time = not given_up.is_set()
            if not in_time and error is None and late is not None:
                late(result)  # type: ignore[arg-type]  # it is what `act` returned

        try:
            start_thread(work, self._name)
        except Temporary:
            self._end(of, hung=False)
            raise
        try:
            result, error = answer.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            with self._changed:
                if answer.empty():
                    given_up.set()
                    self._hanging[of] += 1
                    self._changed.notify_all()
                    raise TimeoutError(f"no answer within {limit_s:g} s") from None
                result, error = answer.get_nowait()
        if error is not None:
            raise error
        return result  # type: ignore[return-value]  # without an error it is what `act` returned

    def _begin(self, of: str, deadline: float) -> None:
        """Take a place. Raises TimeoutError where none becomes free."""
        with self._changed:
            while self._running[of] >= MOST_STUCK:
                left_s = deadline - time.monotonic()
                if self._hanging[of] >= MOST_STUCK:
                    raise TimeoutError(f"{MOST_STUCK} calls hang already")
                if left_s <= 0:
                    raise TimeoutError(f"{MOST_STUCK} calls before it had no answer")
                self._changed.wait(left_s)
            self._running[of] += 1

    def _end(self, of: str, *, hung: bool) -> None:
        with self._changed:
            self._hanging[of] -= hung
            self._running[of] -= 1
            for counter in (self._hanging, self._running):
                if not counter[of]:
                    del counter[of]
            self._changed.notify_all()
