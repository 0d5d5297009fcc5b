"""Reading, comparing and writing small read-only media (CDs, config drives). Blocking; used by `storage.py`."""

from __future__ import annotations

import os

from sterna.kit.contents import file_digest
from sterna.kit.opening import opened

_LONGEST_BYTES = 64 << 30
"""More than any disc holds that a VM is given. Another host says which file is read here."""


def digest(path: str) -> str | None:
    """SHA-256 of a regular file; None where it cannot be read, or is longer than any medium. Read once for as long
    as it stays as it is."""
    try:
        return file_digest(path, most_bytes=_LONGEST_BYTES)
    except OSError:
        return None


def read(path: str, offset: int, length: int) -> bytes:
    """A piece of it; b'' at its end. Raises OSError."""
    with opened(path) as fd:
        return os.pread(fd, length, offset)


def write(parent: int, name: str, offset: int, data: bytes) -> None:
    """A piece into an existing file of that folder, links not followed. Raises OSError."""
    with opened(name, os.O_WRONLY, links=False, folder=parent) as fd:
        if offset == 0:
            os.ftruncate(fd, 0)
        left, at = memoryview(data), offset
        while left:
            done = os.pwrite(fd, left, at)
            left, at = left[done:], at + done
        os.fsync(fd)
