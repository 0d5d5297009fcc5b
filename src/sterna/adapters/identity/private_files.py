"""Files that only their owner may read: written whole or not at all, in folders of their own.

What root writes belongs to whom the folder belongs to: a service that is not root's reads its key there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from sterna.domain.errors import BadRequest, Conflict, NotFound

FOLDER, FILE = 0o700, 0o600
LOCK_S = 5.0
"""A change takes milliseconds."""
_AGAIN_S = 0.02


class Busy(Conflict):
    """Another process, or thread, changes the folder at this moment."""


def make_folder(folder: Path) -> None:
    """Make the folder, closed to others. Raises BadRequest where that fails, or it is there and open to others."""
    try:
        if not folder.is_dir():
            folder.mkdir(mode=FOLDER, parents=True)
            _give(folder, folder.parent)
    except OSError as error:
        raise _unusable(folder, error) from error
    check_folder(folder)


def check_folder(folder: Path) -> None:
    """Raises BadRequest where the folder is not there, or others may look into it. It is not closed by itself: its
    secrets may have been read."""
    try:
        found = folder.lstat()
    except OSError as error:
        raise _unusable(folder, error) from error
    if not stat.S_ISDIR(found.st_mode):
        raise BadRequest(f"{folder} is not a folder", fix="name a folder of its own for keys and certificates")
    if os.geteuid() not in (found.st_uid, 0):
        raise BadRequest(f"{folder} belongs to another user", fix="run this as that user, or as root")
    if stat.S_IMODE(found.st_mode) & ~FOLDER:
        mode = stat.S_IMODE(found.st_mode)
        raise BadRequest(f"{folder} is open to other users (mode {mode:04o})", fix=f"chmod 700 {folder}")


def write(path: Path, content: bytes, mode: int = FILE, *, group: int | None = None) -> None:
    """Write the file, whole or not at all, and on the disk when this returns. `group`: whose it is, where that is
    not the folder's. Raises BadRequest."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()  # of a process with this number that died
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE), "wb") as file:
            _give(file.fileno(), path.parent)
            if group is not None:
                os.chown(file.fileno(), -1, group)
            os.fchmod(file.fileno(), mode)  # whatever the umask; last: until then nobody else reads it
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise _unusable(path, error) from error


def _give(what: int | Path, folder: Path) -> None:
    """To the owner of the folder, where root does it. Raises OSError."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.chown(what, owner.st_uid, owner.st_gid)


def sync_folder(folder: Path) -> None:
    """What was renamed in it is on the disk when this returns. Raises OSError."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def read(path: Path, *, fix: str, secret: bool = False) -> bytes:
    """The file's content. Raises NotFound, with this `fix`, where it is not there; BadRequest where it cannot be
    read, and for a `secret` that others may read."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if secret and mode & ~FILE & 0o077:
                raise BadRequest(
                    f"{path} may be read by other users (mode {mode:04o})",
                    fix=f"chmod 600 {path}; if others had access, replace the key",
                )
            return file.read()
    except FileNotFoundError as error:
        raise NotFound(f"there is no {path}", fix=fix) from error
    except OSError as error:
        raise _unusable(path, error) from error


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """A lock on the folder's content. Raises Busy where another process holds it for LOCK_S."""
    try:
        lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE)
        _give(lock, folder)
    except OSError as error:
        raise _unusable(folder, error) from error
    try:
        _take(lock, folder)
        yield
    finally:
        os.close(lock)


def _take(lock: int, folder: Path) -> None:
    """The kernel has no wait with a limit for such a lock."""
    end = time.monotonic() + LOCK_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= end:
                raise Busy(f"another command changes {folder} now", fix="try again in a moment") from None
        time.sleep(_AGAIN_S)


def _unusable(path: Path, error: OSError) -> BadRequest:
    fix = "check that the path is right, that this user may write there, and that the disk is not full"
    return BadRequest(f"{path} cannot be used: {error.strerror or error}", fix=fix)
