"""Tokens: small files by which two hosts find out whether they see the same folder. Blocking; used by `storage.py`.

A token lies beside what a path LEADS to, not beside the path: a symbolic link does not show where the data is.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from sterna.adapters.files.exports import exported
from sterna.adapters.files.file_lock import is_held, mount_of
from sterna.domain.claims import Sight
from sterna.domain.errors import Permanent
from sterna.kit.mounts import unless_failing
from sterna.kit.opening import opened

_BEGINS = ".sterna-"
_TOKEN = re.compile(r"[A-Za-z0-9-]{1,64}")
_MOST_BYTES = 65
"""Of a token's file: one more than any token has."""


def leave(path: str, token: str) -> None:
    """Write it. Raises OSError, Permanent."""
    place = _place(path, token)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with opened(place, os.O_WRONLY, links=False) as fd:
        os.ftruncate(fd, 0)
        os.write(fd, token.encode())
        os.fsync(fd)


def sight(path: str, token: str, place: int | None = None) -> Sight:
    """What this host sees of the token, of the file beside it, and of a lock on that `place` of the file.

    The directory is listed first, so that a network file system does not answer from a negative cache.
    """
    token_file = _place(path, token)
    with contextlib.suppress(OSError):
        os.listdir(token_file.parent)
    inode = _read(token_file, token)
    found = Sight(seen=inode is not None, token_inode=inode, mount=mount_of(path), exported=exported(path))
    with contextlib.suppress(OSError):
        seen = os.stat(path)
        same = seen.st_dev == os.stat(token_file.parent).st_dev
        held = place is not None and is_held(path, place)
        file = {"file_inode": seen.st_ino, "size": seen.st_size, "same_device": same, "held": held}
        return found.model_copy(update=file)
    return found


def drop(path: str, token: str) -> None:
    """Remove it; missing is not an error, also where nothing could be removed. Raises OSError, Permanent."""
    place = _place(path, token)
    try:
        place.unlink(missing_ok=True)
    except OSError:
        if os.path.lexists(place):
            raise


def tokens(path: str) -> tuple[str, ...]:
    """Those beside `path`. Raises OSError."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        names = os.listdir(_folder(path))
        return tuple(sorted(n.removeprefix(_BEGINS) for n in names if _is_token(n)))
    return ()


def sweep(path: str, prefix: str, keep: frozenset[str]) -> None:
    """Remove those of this prefix, but `keep`. Raises OSError, Permanent."""
    begins, kept = _place(path, prefix).name, {_place(path, token).name for token in keep}
    folder = _folder(path)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for name in os.listdir(folder):
            if name.startswith(begins) and name not in kept:
                (folder / name).unlink(missing_ok=True)


def beside(files: Iterable[str], token: str) -> frozenset[str]:
    """Those of these files that lie beside that token. Links are followed already."""
    return frozenset(file for file in files if _read(_place(file, token), token) is not None)


def _read(place: Path, token: str) -> int | None:
    """The token's inode, where it is there and says what it should.

    Raises StorageSilent where the file system fails: it may be there.
    """
    try:
        with opened(place, links=False) as fd:
            return os.fstat(fd).st_ino if os.read(fd, _MOST_BYTES) == token.encode() else None
    except OSError as error:
        unless_failing(str(place), error)
        return None


def _folder(path: str) -> Path:
    return Path(os.path.realpath(path)).parent


def _place(path: str, token: str) -> Path:
    if not _TOKEN.fullmatch(token):
        raise Permanent(f"{token!r} is not a valid token: letters, digits and '-', at most 64")
    return _folder(path) / f"{_BEGINS}{token}"


def _is_token(name: str) -> bool:
    return name.startswith(_BEGINS) and bool(_TOKEN.fullmatch(name.removeprefix(_BEGINS)))
