"""Digests of files that somebody else has named: bounded in bytes, in time and in how many are read at once.
Blocking."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sterna.kit.opening import opened

_PIECE_BYTES = 1 << 20
_SMALL_BYTES = 64 << 20
"""A config drive or a firmware image is read in less than a second: it does not wait for long ones."""
_SMALL_AT_ONCE, _LARGE_AT_ONCE = 8, 2
"""Of one file system."""
_LONGEST_S = 600.0
"""For one file, with its wait for a turn. No caller waits for it so long; the next look has what it found."""
_MOST_KNOWN = 512

_AsItIs = tuple[str, int, int, int, int, int]
"""Path, device, inode, size, and when it and its inode were changed."""
_known: OrderedDict[_AsItIs, str] = OrderedDict()
_turns: dict[tuple[int, bool], threading.BoundedSemaphore] = {}
_lock = threading.Lock()
"""Of both."""


def file_digest(path: str, *, most_bytes: int) -> str | None:
    """SHA-256 of a regular file; None of a longer one. Read once for as long as it stays as it is.

    Raises OSError, for what is not a regular file as well; TimeoutError, which is one, where it takes too long.
    """
    deadline = time.monotonic() + _LONGEST_S
    with opened(path) as fd:
        file = _as_it_is(path, fd)
    _, device, _, size, *_ = file
    if size > most_bytes:
        return None
    if (found := _remembered(file)) is not None:
        return found
    with _turn(device, large=size > _SMALL_BYTES, deadline=deadline):
        return _remembered(file) or _read(file, lambda: _demand_time(deadline))


def _read(file: _AsItIs, go_on: Callable[[], object]) -> str:
    path, _, _, left, *_ = file
    with opened(path) as fd:
        found = hashlib.sha256()
        while left and (piece := os.read(fd, min(left, _PIECE_BYTES))):  # some never end, whatever size they say
            go_on()
            found.update(piece)
            left -= len(piece)
        if left or _as_it_is(path, fd) != file:
            raise OSError(errno.EAGAIN, "it changes while it is read", path)
    with _lock:
        _known[file] = found.hexdigest()
        if len(_known) > _MOST_KNOWN:
            _known.popitem(last=False)
    return found.hexdigest()


def _remembered(file: _AsItIs) -> str | None:
    with _lock:
        return _known.get(file)


def _as_it_is(path: str, fd: int) -> _AsItIs:
    seen = os.fstat(fd)
    return path, seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns


def _demand_time(deadline: float) -> float:
    """What is left of it. Raises TimeoutError after it."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError(errno.ETIMEDOUT, f"it was not read within {_LONGEST_S:g} s")
    return left


@contextmanager
def _turn(device: int, *, large: bool, deadline: float) -> Iterator[None]:
    with _lock:
        number = _LARGE_AT_ONCE if large else _SMALL_AT_ONCE
        turn = _turns.setdefault((device, large), threading.BoundedSemaphore(number))
    while not turn.acquire(timeout=_demand_time(deadline)):
        pass
    try:
        yield
    finally:
        turn.release()
