"""Files that nobody else may read: written whole or not at all, in folders of the owner's own."""

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


def make_folder(folder: Path) -> None:
    """Make the folder, nobody else's. Raises BadRequest where it cannot be, or is there and open to others."""
    try:
        folder.mkdir(mode=FOLDER, parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, error) from error
    check_folder(folder)


def check_folder(folder: Path) -> None:
    """Raises BadRequest where the folder is not there, or others may look into it; it is not closed by itself, as its
    secrets may have been read."""
    try:
        found = folder.lstat()
    except OSError as error:
        raise _unusable(folder, error) from error
    if not stat.S_ISDIR(found.st_mode):
        raise BadRequest(f"{folder} is not a folder", fix="name a folder of its own for keys and certificates")
    if found.st_uid != os.geteuid():
        raise BadRequest(f"{folder} belongs to another user", fix=f"chown {os.geteuid()} {folder}")
    if stat.S_IMODE(found.st_mode) & ~FOLDER:
        mode = stat.S_IMODE(found.st_mode)
        raise BadRequest(f"{folder} is open to other users (mode {mode:04o})", fix=f"chmod 700 {folder}")


def write(path: Path, content: bytes, mode: int = FILE) -> None:
    """Write the file, whole or not at all, and on the disk when this returns. Raises BadRequest."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()  # of a process with this number that died
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
            os.fchmod(file.fileno(), mode)  # whatever the umask
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise _unusable(path, error) from error


def sync_folder(folder: Path) -> None:
    """What was renamed in it is on the disk when this returns. Raises OSError."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def read(path: Path, *, fix: str, secret: bool = False) -> bytes:
    """The file's content. `secret`: raises BadRequest where others may read it. Raises NotFound, with this `fix`, where
    it is not there, BadRequest where it cannot be read."""
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
    """Nobody else changes what is in the folder. Raises Conflict where somebody does for LOCK_S."""
    try:
        lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE)
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
                raise Conflict(f"another command changes {folder} now", fix="try again in a moment") from None
        time.sleep(_AGAIN_S)


def _unusable(path: Path, error: OSError) -> BadRequest:
    fix = "see that the path is right, that this user may write there, and that the disk is not full"
    return BadRequest(f"{path} cannot be used: {error.strerror or error}", fix=fix)
