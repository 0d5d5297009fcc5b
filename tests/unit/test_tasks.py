"""A cancellation that nobody sent is an error like any other; one that somebody sent stays what it is."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from sterna.domain.errors import Unknown
from sterna.kit.tasks import own_cancellation_only
from tests.cancelling import cancelled


async def test_a_cancellation_of_what_is_waited_for_becomes_an_error() -> None:
    with pytest.raises(Unknown, match="was cancelled"), own_cancellation_only():
        await cancelled()


async def test_a_cancellation_of_the_task_itself_goes_on() -> None:
    ended = []

    async def work() -> None:
        with own_cancellation_only():
            await asyncio.Event().wait()
        ended.append("not told to stop")

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not ended


async def test_an_error_of_what_cleans_up_afterwards_does_not_take_its_place() -> None:
    """A loop that goes on after errors would go on."""
    turns: list[str] = []

    async def work() -> None:
        while len(turns) < 3:
            turns.append("one more")
            with suppress(ZeroDivisionError), own_cancellation_only():
                try:
                    await asyncio.Event().wait()
                finally:
                    raise ZeroDivisionError

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
        task.cancel()
    assert task.cancelled() and turns == ["one more"]


async def test_nor_is_a_limit_around_it_mistaken() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            with own_cancellation_only():
                await asyncio.Event().wait()


async def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError), own_cancellation_only():
        raise ZeroDivisionError
