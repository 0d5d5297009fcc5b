"""Reading, comparing and writing small read-only media (CDs, config drives). Blocking; used by `storage.py`."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache


def digest(path: str) -> str | None:
    """SHA-256 of a regular file; None where it cannot be read. Read once for as long as it stays as it is."""
    try:
        seen = os.stat(path)
        return _digest(path, seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
    except OSError:
        return None


@lru_cache(maxsize=256)
def _digest(path: str, *_as_it_is: int) -> str:
    with open(path, "rb", opener=_without_waiting) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe in its place must not hang us


def read(path: str, offset: int, length: int) -> bytes:
    """A piece of it; b'' at its end. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return os.pread(fd, length, offset)
    finally:
        os.close(fd)


def write(parent: int, name: str, offset: int, data: bytes) -> None:
    """A piece into an existing file of that folder, links not followed. Raises OSError."""
    fd = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=parent)
    try:
        if offset == 0:
            os.ftruncate(fd, 0)
        left, at = memoryview(data), offset
        while left:
            done = os.pwrite(fd, left, at)
            left, at = left[done:], at + done
        os.fsync(fd)
    finally:
        os.close(fd)
