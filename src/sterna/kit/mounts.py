"""Looks at files in threads, counted for each file system: a dead one (NFS) refuses itself, and no other.

Which file system a path is on is read from the kernel's list of mounts, without touching the path. Symbolic links
on the way to it are known from the last look that succeeded.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeVar

from sterna.domain.errors import StorageSilent
from sterna.kit.threads import count_as, in_thread, left_alone

ANSWER_S = 300.0
"""For one change. Removing a large file takes seconds on a busy disk."""
LOOK_S = 10.0
"""For one look, which takes microseconds. A caller waits for it: a check for 60 s, with looks of both hosts."""
HURRY_S = 1.0
"""For a look at a file system on which something hangs just now: many looks in a row must end as well."""
FIX = "check that the storage it is on can be reached"
FAILING = frozenset(
    {
        errno.EIO,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.ENOTCONN,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.EREMOTEIO,
    }
)
"""Errors that prove nothing about the file."""
_MOUNTS = Path("/proc/self/mountinfo")
_ESCAPED = re.compile(r"\\([0-7]{3})")
_MOST_NAMED = 2
_MOST_KNOWN = 1024
_MOST_LINKS = 40
"""As the kernel follows."""
_leads_to: dict[str, str] = {}
"""Path over a symbolic link -> where it really is, as it was seen last."""

T = TypeVar("T")


class Mount(NamedTuple):
    """A mounted file system."""

    device: str
    """Major and minor number: two mounts of one NFS export are one file system."""
    point: str
    kind: str
    """Its type, as the kernel calls it: `ext4`, `nfs4`, `fuse.glusterfs`."""


NOWHERE = Mount("", "/", "")


def mount_of(path: str) -> Mount:
    """Where a path lies. Asks the kernel's list only."""
    return _mount_of(path, list(_mounts()))


def kind_of(device: int) -> str:
    """The type of the file system with this number (`st_dev`); '' where the kernel's list has none. Looks at no
    path."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    return next((mount.kind for mount in _mounts() if mount.device == wanted), "")


def unless_failing(path: str, error: OSError) -> None:
    """Raises StorageSilent where the file system itself has failed (a soft mount gives up by itself): whether
    something is there is not known then."""
    if error.errno in FAILING:
        raise StorageSilent(f"{path}: the file system does not answer: {error.strerror}", fix=FIX) from error


def by_mount(paths: Iterable[str]) -> dict[Mount, list[str]]:
    """The paths, each once, by where they lie. Asks the kernel's list only."""
    mounts, found = list(_mounts()), dict[Mount, list[str]]()
    for path in dict.fromkeys(paths):
        found.setdefault(_mount_of(path, mounts), []).append(path)
    return found


async def look_at(act: Callable[[], T], *paths: str, limit_s: float = LOOK_S) -> T:
    """As `on_disk`, for what takes no time: where something hangs on that file system already, it has HURRY_S.

    Raises StorageSilent, and what `act` raises.
    """
    of = _key(_on(paths))
    return await on_disk(act, *paths, limit_s=min(limit_s, HURRY_S) if left_alone(of) else limit_s)


async def on_disk(act: Callable[[], T], *paths: str, limit_s: float | None = None) -> T:
    """`act`, which touches these paths, in a thread. An act on several file systems is counted apart from those on
    any one of them: on which of them it hangs is not known.

    Raises StorageSilent where a file system does not answer (a dead NFS server), and what `act` raises.
    """

    def followed() -> T:
        plain = {os.path.normpath(path) for path in paths}
        for path in plain | {os.path.dirname(path) for path in plain}:
            _learn(path)
        return act()

    found = _on(paths)
    try:
        return await in_thread(followed, of=_key(found), limit_s=ANSWER_S if limit_s is None else limit_s)
    except TimeoutError as error:
        where = " or ".join(paths if len(paths) <= _MOST_NAMED else (mount.point for mount in found))
        raise StorageSilent(f"{where}: the file system does not answer: {error}", fix=FIX) from error


def _on(paths: Iterable[str]) -> list[Mount]:
    mounts = list(_mounts())
    return sorted({_mount_of(path, mounts) for path in paths})


def _key(mounts: list[Mount]) -> str:
    """By what an act on these is counted."""
    return " ".join(dict.fromkeys(mount.device for mount in mounts))


@contextmanager
def touching(path: str) -> Iterator[None]:
    """In an act of `on_disk` that looks at a path which its caller could not name (a backing file, known from a
    header): it is counted for that one's file system then. Raises StorageSilent where as many hang on it as may."""
    before = _count_as(path)
    if before is None:
        yield
        return
    try:
        _learn(path)
        _count_as(path)
        yield
    finally:
        count_as(before, whatever_hangs=True)


def ways(path: str) -> Iterator[str]:
    """In a thread: the path, and where each link on its way leads, before anything there is looked at."""
    behind: str | None = os.path.normpath(path)
    for _ in range(_MOST_LINKS):
        if behind is None:
            return
        yield behind
        behind = _note_link(PurePosixPath(behind))


def _count_as(path: str) -> str | None:
    try:
        return count_as(mount_of(path).device)
    except TimeoutError as error:
        raise StorageSilent(f"{path}: the file system does not answer: {error}", fix=FIX) from error


def _learn(path: str) -> None:
    """In a thread: it looks at every part of the way."""
    for _ in ways(path):
        pass
    real = os.path.realpath(path)
    if real == path:
        _leads_to.pop(path, None)
        return
    if len(_leads_to) >= _MOST_KNOWN:
        _leads_to.clear()
    _leads_to[path] = real


def _note_link(path: PurePosixPath) -> str | None:
    """Where the first link on the way to it leads; None without any."""
    for part in (*reversed(path.parents), path):
        try:
            target = os.readlink(part)
        except OSError:
            _leads_to.pop(str(part), None)
            continue
        leads_to = os.path.normpath(part.parent / target)
        _leads_to[str(part)] = leads_to
        return leads_to + str(path).removeprefix(str(part))
    return None


def _followed(path: str) -> str:
    """Where it leads to, as far as is known."""
    for _ in range(_MOST_LINKS):
        parts = (path, *(str(parent) for parent in PurePosixPath(path).parents))
        part = next((part for part in parts if part in _leads_to), None)
        if part is None:
            break
        path = _leads_to[part] + path.removeprefix(part)
    return path


def _mount_of(path: str, mounts: list[Mount]) -> Mount:
    real = _followed(os.path.normpath(path))
    over = [mount for mount in mounts if mount.point in ("/", real) or real.startswith(mount.point + "/")]
    longest = max((len(mount.point) for mount in over), default=0)
    return next((mount for mount in reversed(over) if len(mount.point) == longest), NOWHERE)


def _mounts() -> Iterator[Mount]:
    """In the order in which they were made: of two at one place, the later one is seen."""
    try:
        lines = _MOUNTS.read_bytes().decode(errors="surrogateescape").strip().split("\n")
    except OSError:
        return
    for line in lines:
        _, _, device, _, point, *more = line.split(" ")
        kind = more[more.index("-") + 1]
        yield Mount(device, _ESCAPED.sub(lambda found: chr(int(found[1], 8)), point), kind)
