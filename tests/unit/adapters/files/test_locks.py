"""Locks on files are given up in threads, whatever happens to their holder or their server."""

import asyncio
import contextlib
import errno
import fcntl
import gc
import os
import threading
from pathlib import Path

import pytest

from sterna.adapters.files import file_lock, storage
from sterna.adapters.files.storage import FileStorage
from sterna.domain.errors import Temporary
from sterna.kit import mounts, threads
from tests.unit.adapters.files.dying import held
from tests.unit.adapters.files.watched import Watch


def is_free(path: Path) -> bool:
    """Does nobody hold any part of the file?"""
    with open(path, "rb+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True


async def test_a_lock_is_given_up_in_a_thread_when_its_task_is_cancelled(watch: Watch, root: Path) -> None:
    path, inside = root / "shared.qcow2", asyncio.Event()

    async def hold_it() -> None:
        async with FileStorage(root).held(str(path)):
            assert not is_free(path)
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hold_it())
    await asyncio.wait_for(inside.wait(), 5)
    watch.on_loop.clear()  # by `is_free`
    task.cancel()
    assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)
    assert watch.on_loop == []
    assert is_free(path)


async def test_nor_does_a_lock_stay_that_is_taken_after_its_task_was_cancelled(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server answers late."""
    path, asked, answer, real = root / "shared.qcow2", threading.Event(), threading.Event(), file_lock._open
    path.write_bytes(b"content")
    opened = []

    def late(path: str) -> int | None:
        asked.set()
        assert answer.wait(10)
        opened.append(real(path))
        return opened[-1]

    async def hold_it() -> None:
        async with FileStorage(root).held(str(path)):
            raise AssertionError("never reached")

    monkeypatch.setattr(file_lock, "_open", late)
    task = asyncio.create_task(hold_it())
    assert await asyncio.to_thread(asked.wait, 5)
    task.cancel()
    for _ in range(10):  # the task comes to its end, or to where it waits for the thread
        await asyncio.sleep(0)
    answer.set()
    assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)
    assert opened != [None]
    assert is_free(path)


async def test_a_server_that_does_not_take_the_lock_back_holds_up_nobody(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, answer, real = root / "shared.qcow2", threading.Event(), os.close
    path.write_bytes(b"content")
    in_time = []

    def hang(fd: int) -> None:
        only_looked_at = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_PATH  # of that the server is told nothing
        if os.readlink(f"/proc/self/fd/{fd}") == str(path) and not only_looked_at:
            in_time.append(answer.wait(10))
        real(fd)

    monkeypatch.setattr(storage, "_GIVE_UP_S", 0.1, raising=False)
    monkeypatch.setattr(os, "close", hang)
    before = set(threading.enumerate())
    async with asyncio.timeout(5):
        await held(FileStorage(root), str(path))
    assert not answer.is_set()
    answer.set()
    for thread in set(threading.enumerate()) - before:
        await asyncio.to_thread(thread.join, 5)
    assert in_time == [True]
    assert is_free(path)


async def test_a_lock_is_given_up_though_as_many_threads_hang_as_may(
    none_left: None, watch: Watch, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in the loop's thread, nor by the garbage collector there."""
    path, held_up = root / "shared.qcow2", threading.Event()
    closed: list[str] = []
    real = os.close

    def closing(fd: int) -> None:
        if os.readlink(f"/proc/self/fd/{fd}") == str(path):
            closed.append(threading.current_thread().name)
        real(fd)

    monkeypatch.setattr(threads, "MOST_LEFT", 1)
    async with asyncio.timeout(20):
        async with FileStorage(root).held(str(path)) as place:
            assert place is not None
            monkeypatch.setattr(os, "close", closing)
            with pytest.raises(Temporary, match="no answer"):
                await mounts.on_disk(held_up.wait, str(path), limit_s=0.05)
            with pytest.raises(Temporary, match="hang already"):
                await mounts.on_disk(held_up.wait, str(path), limit_s=0.05)
        gc.collect()
        assert closed == ["sterna-unlock"]
        assert watch.on_loop == []
        assert is_free(path)
    held_up.set()


@pytest.mark.parametrize("body", [None, ZeroDivisionError])
async def test_what_goes_wrong_in_giving_up_is_not_the_holders_business(
    root: Path, monkeypatch: pytest.MonkeyPatch, body: type[Exception] | None
) -> None:
    path, tried = root / "shared.qcow2", []
    path.write_bytes(b"content")

    def fails(lock: file_lock.Lock) -> None:
        tried.append(lock)
        raise OSError(errno.EIO, "the server lost it")

    monkeypatch.setattr(file_lock.Lock, "give_up", fails)
    with pytest.raises(body) if body else contextlib.nullcontext():
        async with FileStorage(root).held(str(path)) as place:
            assert place is not None
            if body:
                raise body
    assert len(tried) == 1
    tried[0]._held.close()
