"""Blocking calls in threads: one that never returns ends its own caller's wait, and nobody else's."""

import asyncio
import gc
import threading
import weakref
from functools import partial

import pytest

from sterna.domain.errors import Temporary
from sterna.kit import threads
from sterna.kit.bounded import Bounded
from sterna.kit.threads import MOST_STUCK, Worker, in_thread

LIMIT_S = 0.1


async def test_a_call_that_never_returns_ends_at_its_limit_and_the_next_one_is_performed() -> None:
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


async def test_a_caller_that_gave_up_leaves_no_hanging_call_in_the_way_of_the_next() -> None:
    held = threading.Event()
    worker = Worker("test", limit_s=LIMIT_S)
    stuck = asyncio.create_task(worker.run(held.wait))
    await asyncio.sleep(0)
    stuck.cancel()
    async with asyncio.timeout(5):
        assert await worker.run(lambda: 7) == 7
    held.set()
    worker.stop()


async def test_what_is_unlimited_is_waited_for() -> None:
    held = threading.Event()
    worker = Worker("test", limit_s=LIMIT_S)
    long = asyncio.create_task(worker.run(held.wait, unlimited=True))
    done, _ = await asyncio.wait({long}, timeout=3 * LIMIT_S)
    assert not done
    held.set()
    async with asyncio.timeout(5):
        assert await long
    worker.stop()


async def test_hanging_threads_do_not_pile_up_and_are_used_again_when_they_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threads, "MOST_STUCK", 2)
    held, ended, inside = threading.Event(), threading.Semaphore(0), []

    def hang() -> None:
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


@pytest.mark.parametrize("limit_s", [LIMIT_S, None])
async def test_what_is_given_up_while_it_is_queued_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, limit_s: float | None
) -> None:
    """Once as many threads hang as may, nothing takes the calls out of the queue any more."""
    monkeypatch.setattr(threads, "MOST_STUCK", 0)
    held, began = threading.Event(), threading.Event()

    def hang() -> None:
        began.set()
        held.wait()

    worker = Worker("test", limit_s=limit_s)
    first = asyncio.create_task(worker.run(hang))
    assert await in_thread(lambda: began.wait(5))
    given_up = []
    async with asyncio.timeout(10):
        for _ in range(3):
            act = partial(int)
            given_up.append(weakref.ref(act))
            asked = asyncio.create_task(worker.run(act))
            del act
            await asyncio.sleep(0)
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
            del asked
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        gc.collect()
        assert [kept() for kept in given_up] == [None] * 3
    held.set()
    worker.stop()


async def test_a_thread_of_its_own_has_a_limit_too() -> None:
    held = threading.Event()
    with pytest.raises(TimeoutError):
        await in_thread(held.wait, limit_s=LIMIT_S)
    held.set()


def test_a_late_result_whose_handling_fails_gives_its_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_host_without_a_free_thread_costs_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    bounded = Bounded("test")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(MOST_STUCK):
            with pytest.raises(Temporary, match="no thread left"):
                bounded.call(lambda: 7, 5)
    assert bounded.call(lambda: 7, 5) == 7


async def test_a_thread_whose_place_nobody_can_take_is_not_counted_as_hanging(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The host has no thread left: the one that hangs goes on with what is queued when it comes back."""
    held = threading.Event()
    worker = Worker("test", limit_s=LIMIT_S)

    def none_left(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    stuck = asyncio.create_task(worker.run(held.wait))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_left)
        async with asyncio.timeout(5):
            with pytest.raises(TimeoutError):
                await stuck
    assert worker.hanging == 0
    held.set()
    async with asyncio.timeout(5):
        assert await worker.run(lambda: 7) == 7
    worker.stop()


async def test_nor_is_one_whose_last_act_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _args: None)
    held, over = threading.Event(), threading.Event()

    def fails() -> None:
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


async def test_a_host_without_a_free_thread_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    with pytest.raises(Temporary, match="no thread left"):
        Worker("test")
    with pytest.raises(Temporary, match="no thread left"):
        await in_thread(lambda: 7)


async def test_a_call_that_comes_back_while_it_is_given_up_takes_no_other_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next call is performed in the thread that its caller looks at: it ends at its limit, too."""
    held, for_ever, began = threading.Event(), threading.Event(), threading.Event()
    worker = Worker("test", limit_s=LIMIT_S)
    new_line = worker._new_line

    def meanwhile() -> object:
        held.set()
        began.wait(0.5)  # the old thread is free again, and could take what is queued
        return new_line()

    def hang() -> None:
        began.set()
        for_ever.wait()

    first = asyncio.create_task(worker.run(held.wait))
    await asyncio.sleep(0)
    with monkeypatch.context() as patch:
        patch.setattr(worker, "_new_line", meanwhile)
        second = asyncio.create_task(worker.run(hang))
        await asyncio.wait({first}, timeout=5)
    third = asyncio.create_task(worker.run(lambda: 7))
    async with asyncio.timeout(5):
        with pytest.raises(TimeoutError, match="within"):
            await second
        assert await third == 7
    for_ever.set()
    worker.stop()
    await asyncio.gather(first, return_exceptions=True)


async def test_what_is_queued_behind_a_call_that_hangs_keeps_its_order() -> None:
    held, done = threading.Event(), list[int]()
    worker = Worker("test", limit_s=LIMIT_S)
    hangs = asyncio.create_task(worker.run(held.wait))
    tasks = [asyncio.create_task(worker.run(partial(done.append, n))) for n in range(20)]
    async with asyncio.timeout(5):
        await asyncio.gather(hangs, *tasks, return_exceptions=True)
    assert done == list(range(20))
    held.set()
    worker.stop()


async def test_a_worker_that_was_stopped_takes_no_call() -> None:
    done = []
    worker = Worker("test", limit_s=LIMIT_S)
    before = asyncio.create_task(worker.run(lambda: done.append("before")))
    await asyncio.sleep(0)
    worker.stop()
    worker.stop()
    async with asyncio.timeout(5):
        await before
        with pytest.raises(Temporary, match="stopped"):
            await worker.run(lambda: done.append("after"))
        with pytest.raises(Temporary, match="stopped"):
            await worker.run(lambda: done.append("after"), unlimited=True)
    assert done == ["before"]


async def left_alone(name: str, count: int) -> None:
    """Until so many of these threads are."""
    async with asyncio.timeout(5):
        while sum(t.name == name for t in threading.enumerate()) != count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_threads_that_are_left_alone_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "MOST_LEFT", 3)
    held, begun = threading.Event(), []

    def hang() -> None:
        begun.append(1)
        held.wait()

    async def ask(limit_s: float = 0.02) -> None:
        await in_thread(hang, name="test-left", limit_s=limit_s)

    given_up = asyncio.create_task(ask(60))
    await left_alone("test-left", 1)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    for _ in range(2):
        with pytest.raises(TimeoutError, match="within"):
            await ask()
    for _ in range(3):
        with pytest.raises(TimeoutError, match="3 calls hang already"):
            await ask()
    assert len(begun) == 3
    assert await in_thread(lambda: 7, name="test-other", limit_s=5) == 7
    held.set()
    await left_alone("test-left", 0)
    assert await in_thread(lambda: 7, name="test-left", limit_s=5) == 7


async def test_a_thread_that_has_answered_is_not_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it has not quite ended when its caller goes on."""
    monkeypatch.setattr(threads, "MOST_LEFT", 1)
    ends, perform = threading.Event(), threads._Call.perform

    def lingers(call: threads._Call[object]) -> None:
        perform(call)
        ends.wait(10)

    monkeypatch.setattr(threads._Call, "perform", lingers)
    for _ in range(3):
        assert await in_thread(lambda: 7, name="test-lingers", limit_s=5) == 7
    ends.set()


async def test_many_that_are_waited_for_may_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "MOST_LEFT", 3)
    together = threading.Barrier(10)
    calls = [in_thread(lambda: together.wait(5), name="test-many", limit_s=10) for _ in range(10)]
    assert sorted(await asyncio.gather(*calls)) == list(range(10))
