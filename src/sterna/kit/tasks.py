"""Several things at once; and protection from cancellations that were not meant for this task."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from sterna.domain.errors import Unknown

A = TypeVar("A")
B = TypeVar("B")


async def all_of(works: Iterable[Awaitable[A]]) -> list[A]:
    """All at once. Raises what the first of them raises, once none goes on."""
    done = await asyncio.gather(*works, return_exceptions=True)
    for result in done:
        if isinstance(result, BaseException):
            raise result
    return done  # type: ignore[return-value]  # no exception is left among them


async def both(one: Awaitable[A], other: Awaitable[B]) -> tuple[A, B]:
    """The same, of two kinds."""
    done: list[Any] = await all_of((one, other))
    return done[0], done[1]


def is_cancelled() -> bool:
    """Was the current task cancelled?"""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


@contextmanager
def no_leaks() -> Iterator[None]:
    """Inside, only a cancellation of the current task comes out as one. A cancellation of something that is
    awaited, which would end this task silently, becomes Unknown. An error after a cancellation (of clean-up, on a
    dead file system) does not take its place: the task would go on."""
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
