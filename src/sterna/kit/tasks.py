"""Awaiting several things at once, and telling a task's own cancellation from that of something it awaits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from sterna.domain.errors import Unknown

A = TypeVar("A")
B = TypeVar("B")


async def all_of(works: Iterable[Awaitable[A]]) -> list[A]:
    """The results of all, awaited at once. When all have ended, raises the error of the first that failed."""
    done = await asyncio.gather(*works, return_exceptions=True)
    for result in done:
        if isinstance(result, BaseException):
            raise result
    return done  # type: ignore[return-value]  # no exception is left among them


async def both(one: Awaitable[A], other: Awaitable[B]) -> tuple[A, B]:
    """The same for two awaitables of different types."""
    done: list[Any] = await all_of((one, other))
    return done[0], done[1]


def is_cancelled() -> bool:
    """Was the current task cancelled?"""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


@contextmanager
def own_cancellation_only() -> Iterator[None]:
    """Inside, CancelledError is raised only if the current task itself was cancelled.

    If something that is awaited was cancelled, that would end this task silently: it becomes Unknown. An error that
    follows a cancellation (of clean-up, on a dead file system) does not replace it: the task would go on."""
    try:
        yield
    except Exception as error:
        if is_cancelled():
            raise asyncio.CancelledError(f"and after that: {error}") from error
        raise
    except asyncio.CancelledError as leaked:
        if is_cancelled():
            raise
        raise Unknown("what was waited for was cancelled; whether it was done is not known") from leaked
