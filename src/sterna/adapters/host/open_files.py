"""Which files a program of this host has open, and how. Blocking.

A file that was moved over, or deleted, stays what the program reads and writes: its name leads to another one then.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_DELETED = " (deleted)"
"""What the kernel puts behind the name of an open file that has none any more."""


def access(path: str, pid: int) -> int | None:
    """How the process has the file open: O_RDONLY, O_WRONLY or O_RDWR; None where it has not, or may not be asked.

    A file that had this name when it was opened counts, also where another one has it now. Asks nothing of the
    process's other files: they may be on a file system that does not answer.
    """
    modes = set(_modes(path, pid))
    if not modes:
        return None
    return modes.pop() if len(modes) == 1 else os.O_RDWR


def is_another(path: str, pid: int) -> bool:
    """Has the process open what this path led to once, and does it lead to another file now?

    False where there is nothing by now, and where the process may not be asked. Only of a path that it is known to
    keep open.
    """
    try:
        file = os.stat(path)
    except OSError:
        return False
    real, descriptors = os.path.realpath(path), _descriptors(pid)
    return bool(descriptors) and not any(_may_be(file, real, pid, fd) for fd in descriptors)


def _may_be(file: os.stat_result, real: str, pid: int, fd: str) -> bool:
    """One file has two device numbers where its file system is mounted twice."""
    with contextlib.suppress(OSError):
        inode = _fdinfo(pid, fd).get("ino")
        named = os.readlink(f"/proc/{pid}/fd/{fd}") == real
        return (named and inode == str(file.st_ino)) or _is(file, pid, fd, maybe=named, inode=inode)
    return False


def _modes(path: str, pid: int) -> Iterator[int]:
    real = os.path.realpath(path)
    file: os.stat_result | None = None
    with contextlib.suppress(OSError):
        file = os.stat(path)
    for fd in _descriptors(pid):
        with contextlib.suppress(OSError):
            fields = _fdinfo(pid, fd)
            name = os.readlink(f"/proc/{pid}/fd/{fd}")
            if name == real + _DELETED or _is(file, pid, fd, maybe=name == real, inode=fields.get("ino")):
                yield int(fields["flags"], 8) & os.O_ACCMODE


def _is(file: os.stat_result | None, pid: int, fd: str, *, maybe: bool, inode: str | None) -> bool:
    """Is that open file this one? Raises OSError."""
    if file is None or not (maybe or inode is None or inode == str(file.st_ino)):
        return False
    seen = os.stat(f"/proc/{pid}/fd/{fd}")
    return (seen.st_dev, seen.st_ino) == (file.st_dev, file.st_ino)


def _descriptors(pid: int) -> list[str]:
    with contextlib.suppress(OSError):
        return os.listdir(f"/proc/{pid}/fd")
    return []


def _fdinfo(pid: int, fd: str) -> dict[str, str]:
    """What the kernel says of an open file: `flags`, since Linux 5.14 `ino`."""
    lines = Path(f"/proc/{pid}/fdinfo/{fd}").read_text().splitlines()
    return {name: rest.strip() for name, _, rest in (line.partition(":") for line in lines)}
