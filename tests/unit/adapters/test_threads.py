"""Blocking calls in threads: one that never returns ends its own caller's wait, and nobody else's."""

import asyncio
import threading

import pytest

from sterna.adapters import threads
from sterna.adapters.threads import MOST_STUCK, Bounded, Worker, in_thread

LIMIT_S = 0.1


async def test_a_call_that_never_returns_ends_at_its_limit_and_the_next_one_is_performed():
    held = threading.Event()
    worker = Worker("test", limit_s=LIMIT_S)
    stuck = asyncio.create_task(worker.run(held.wait))
    behind = asyncio.create_task(worker.run(threading.current_thread))
    async with asyncio.timeout(5):
        with pytest.raises(TimeoutError, match=r"within 0\.1 s"):
            await stuck
        assert await behind is not threading.main_thread()
        assert await worker.run(lambda: 7) == 7
    held.set()
    worker.stop()


async def test_a_caller_that_gave_up_leaves_no_hanging_call_in_the_way_of_the_next():
    held = threading.Event()
    worker = Worker("test", limit_s=LIMIT_S)
    stuck = asyncio.create_task(worker.run(held.wait))
    await asyncio.sleep(0)
    stuck.cancel()
    async with asyncio.timeout(5):
        assert await worker.run(lambda: 7) == 7
    held.set()
    worker.stop()


async def test_what_is_unlimited_is_waited_for():
    held = threading.Event()
    worker = Worker("test", limit_s=LIMIT_S)
    long = asyncio.create_task(worker.run(held.wait, unlimited=True))
    done, _ = await asyncio.wait({long}, timeout=3 * LIMIT_S)
    assert not done
    held.set()
    async with asyncio.timeout(5):
        assert await long
    worker.stop()


async def test_hanging_threads_do_not_pile_up_and_are_used_again_when_they_come_back(monkeypatch):
    monkeypatch.setattr(threads, "MOST_STUCK", 2)
    held, ended, inside = threading.Event(), threading.Semaphore(0), []

    def hang():
        inside.append(threading.current_thread())
        held.wait()

    worker = Worker("test", limit_s=LIMIT_S, at_end=ended.release)
    async with asyncio.timeout(10):
        for _ in range(6):
            with pytest.raises(TimeoutError):
                await worker.run(hang)
        assert len(inside) == 3  # two left alone, and the one whose place nobody takes
        held.set()
        assert await in_thread(lambda: ended.acquire(timeout=5) and ended.acquire(timeout=5))
        assert await worker.run(lambda: 7) == 7
    worker.stop()


async def test_a_thread_of_its_own_has_a_limit_too():
    held = threading.Event()
    with pytest.raises(TimeoutError):
        await in_thread(held.wait, limit_s=LIMIT_S)
    held.set()


def test_a_late_result_whose_handling_fails_gives_its_place_back(monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda args: None)  # its thread ends with the error
    bounded, handled = Bounded("test"), threading.Semaphore(0)

    def fail(result: object) -> None:
        handled.release()
        raise OSError("cannot be closed")

    for _ in range(MOST_STUCK):
        held = threading.Event()
        with pytest.raises(TimeoutError, match="within"):
            bounded.call(held.wait, 0.01, late=fail)
        before = set(threading.enumerate())
        held.set()
        assert handled.acquire(timeout=5)
        for thread in before - {threading.current_thread()}:
            if thread.name == "test":
                thread.join(5)
    assert bounded.call(lambda: 7, 5) == 7


def test_a_host_without_a_free_thread_costs_no_place(monkeypatch):
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    bounded = Bounded("test")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(MOST_STUCK):
            with pytest.raises(RuntimeError):
                bounded.call(lambda: 7, 5)
    assert bounded.call(lambda: 7, 5) == 7


async def test_a_thread_whose_place_nobody_can_take_is_not_counted_as_hanging(monkeypatch):
    """The host has no thread left: the one that hangs goes on with what is queued when it comes back."""
    held = threading.Event()
    worker = Worker("test", limit_s=LIMIT_S)

    def none_left():
        raise RuntimeError("can't start new thread")

    stuck = asyncio.create_task(worker.run(held.wait))
    with monkeypatch.context() as patch:
        patch.setattr(worker, "_new_line", none_left)
        async with asyncio.timeout(5):
            with pytest.raises(TimeoutError):
                await stuck
    assert worker.hanging == 0
    held.set()
    async with asyncio.timeout(5):
        assert await worker.run(lambda: 7) == 7
    worker.stop()


async def test_nor_is_one_whose_last_act_fails(monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda _args: None)
    held, over = threading.Event(), threading.Event()

    def fails():
        over.set()
        raise OSError("cannot be closed")

    worker = Worker("test", limit_s=LIMIT_S, at_end=fails)
    async with asyncio.timeout(5):
        with pytest.raises(TimeoutError):
            await worker.run(held.wait)
        assert worker.hanging == 1
        held.set()
        while worker.hanging:  # noqa: ASYNC110 - a thread's end tells nobody
            await asyncio.sleep(0.01)
    assert over.is_set()
    worker.stop()
