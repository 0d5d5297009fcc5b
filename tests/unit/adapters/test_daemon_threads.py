"""The threads of the controller's records."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial

import pytest

from sterna.domain.errors import Temporary
from sterna.kit.daemon_threads import DaemonThreads

LONG_S = 20.0


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Whoever waits for it goes on at the end of the test."""
    gate = threading.Event()
    yield gate
    gate.set()


def test_one_thread_takes_calls_in_order_and_hands_back_what_they_return_or_raise() -> None:
    threads, done = DaemonThreads(1, "x"), list[int]()
    answers = [threads.submit(partial(done.append, n)) for n in range(50)]
    failed = threads.submit(lambda: 1 // 0)
    assert threads.submit(lambda: 7).result(LONG_S) == 7
    assert done == list(range(50)) and all(a.done() for a in answers)
    with pytest.raises(ZeroDivisionError):
        failed.result(LONG_S)
    threads.end()


def test_there_are_no_more_threads_than_were_asked_for_and_all_are_daemons(gate: threading.Event) -> None:
    threads, seen, together = DaemonThreads(3, "x"), set[threading.Thread](), threading.Barrier(3)

    def look() -> None:
        seen.add(threading.current_thread())
        together.wait(LONG_S)  # three at a time, or never

    for answer in [threads.submit(look) for _ in range(9)]:
        answer.result(LONG_S)
    assert len(seen) == 3 and all(thread.daemon for thread in seen)
    threads.end()


def test_what_is_cancelled_before_it_begins_is_skipped(gate: threading.Event) -> None:
    threads, done = DaemonThreads(1, "x"), list[str]()
    first = threads.submit(lambda: gate.wait(LONG_S))
    second = threads.submit(lambda: done.append("second"))
    assert second.cancel()
    gate.set()
    assert first.result(LONG_S)
    threads.end()
    assert done == []


def test_one_that_hangs_holds_up_no_other(gate: threading.Event) -> None:
    threads = DaemonThreads(2, "x")
    threads.submit(lambda: gate.wait(LONG_S))
    assert threads.submit(lambda: 7).result(LONG_S) == 7


def test_at_the_end_what_was_taken_is_done_and_nothing_more_is_taken(gate: threading.Event) -> None:
    threads = DaemonThreads(2, "x")
    answers = [threads.submit(lambda: gate.wait(LONG_S)) for _ in range(5)]
    threading.Timer(0.05, gate.set).start()
    threads.end()
    assert all(answer.result(0) for answer in answers)
    threads.end()
    with pytest.raises(RuntimeError, match="no more"):
        threads.submit(lambda: None)


def test_without_a_thread_it_is_said_and_with_one_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    threads = DaemonThreads(2, "x")
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none_left)
        with pytest.raises(Temporary, match="no thread left"):
            threads.submit(lambda: None)
    assert threads.submit(lambda: 1).result(LONG_S) == 1
    monkeypatch.setattr(threading.Thread, "start", none_left)
    assert threads.submit(lambda: 2).result(LONG_S) == 2
    threads.end()
