"""Proof that two hosts see one file, without writing: a lock on a random place of it. Blocking.

Network and cluster file systems pass POSIX locks from host to host. The place lies far behind any end of file, and
where no other program takes locks: QEMU's are on bytes 100 to 203.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from sterna.kit.opening import open_regular

_FLOCK = "hhqqi4x"
"""struct flock on 64-bit Linux: type, whence, start, length, pid."""
FIRST_PLACE, LAST_PLACE = 2**61, 2**62
NETWORK = frozenset(
    {
        "9p",
        "acfs",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "gfs2",
        "gpfs",
        "lustre",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
        "smb3",
        "smbfs",
        "virtiofs",
    }
)
"""File systems that several machines may have, as /proc/self/mountinfo names them."""
_USER_SPACE = "fuse."
"""Those of programs: `fuse.glusterfs`, `fuse.sshfs`, `fuse.quobyte`. Most come from other machines."""


@contextmanager
def hold(path: str) -> Iterator[int | None]:
    """Hold a read lock on a random place of the file: the place; None where it cannot be locked."""
    place = FIRST_PLACE + secrets.randbelow(LAST_PLACE - FIRST_PLACE)
    fd = _open(path)
    if fd is None:
        yield None
        return
    try:
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, fcntl.F_RDLCK, os.SEEK_SET, place, 1, 0))
        except OSError:  # a file system without locks
            yield None
        else:
            yield place
    finally:
        os.close(fd)


class Lock:
    """`hold`, taken in one thread and given up in another, also while it is still being taken."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._turn = threading.Lock()
        self._held = ExitStack()
        self._over = False

    def take(self) -> int | None:
        """The place; None where it cannot be locked, or has been given up before."""
        with self._turn:
            return None if self._over else self._held.enter_context(hold(self.path))

    def give_up(self) -> None:
        """Never held from now on."""
        with self._turn:
            self._over = True
            self._held.close()


def is_held(path: str, place: int) -> bool:
    """Is there a lock on that place of the file?"""
    fd = _open(path)
    if fd is None:
        return False
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0)
        answer = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))
        return bool(answer[0] != fcntl.F_UNLCK)
    except OSError:
        return False
    finally:
        os.close(fd)


def mount_of(path: str) -> str:
    """Type and source of the file's file system, where it comes from another machine; else ''."""
    try:
        device = os.stat(path).st_dev
        with open("/proc/self/mountinfo") as mounts:
            lines = [line.split(" ") for line in mounts]
    except OSError:
        return ""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for fields in lines:
        kind, source = fields[fields.index("-") + 1 : fields.index("-") + 3]
        if fields[2] == wanted and (kind in NETWORK or kind.startswith(_USER_SPACE)):
            return f"{kind} {source}"
    return ""


def _open(path: str) -> int | None:
    try:
        return open_regular(path)
    except OSError:
        return None
