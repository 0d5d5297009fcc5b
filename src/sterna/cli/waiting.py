"""Time limits for blocking calls, such as reading a response or a file."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def within(seconds: float, act: Callable[[], T]) -> T:
    """`act`'s result, or its exception. Raises TimeoutError after that time; `act` then goes on in its thread."""
    answer = Future[T]()

    def work() -> None:
        try:
            answer.set_result(act())
        except BaseException as e:  # raised to the caller that waits
            answer.set_exception(e)

    threading.Thread(target=work, daemon=True).start()
    return answer.result(seconds)
