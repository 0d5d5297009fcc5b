"""Who else uses a file of this host, by whatever name. Looks are blocking; called by `storage.py`, `reach.py`.

Two names are the same file where they lead to one path, or to one inode: symbolic and hard links, bind mounts and
other spellings are all seen through.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterable
from typing import NamedTuple

from sterna.adapters.files.images import Unreadable, parts_of, snapshots_in
from sterna.domain.claims import Claim
from sterna.domain.model import Disk, DiskKind, Refusal
from sterna.kit.mounts import NOWHERE, Mount, unless_failing
from sterna.kit.opening import opened

_FLOCK = "hhqqi4x"
"""struct flock on 64-bit Linux: type, whence, start, length, pid."""
LOCKED = "a process of this host that holds a lock on it"


class Place(NamedTuple):
    """What a path leads to."""

    path: str
    real: str
    inode: str | None
    """With its device; None where there is nothing."""
    folder: bool
    role: str = ""
    """How a claim comes to it, in words."""

    @property
    def name(self) -> str:
        """Its file's own, behind all links."""
        return os.path.basename(self.real)

    def names(self, file: Place) -> bool:
        """Is it that file, or a folder that holds it (one that a guest shares with its host)? `/` does not
        count."""
        same = self.real == file.real or (self.inode is not None and self.inode == file.inode)
        return same or (self.folder and holds(self.real, file.real))


class Reach(NamedTuple):
    """What a claim comes to, as far as that could be seen."""

    claim: Claim
    places: tuple[Place, ...]
    unreadable: str = ""
    """Why nobody knows what else: an image may stand on any file."""
    silent: str = ""
    """The path that does not answer; '' where all did."""
    mount: Mount = NOWHERE
    """Where that path is."""
    before: tuple[Place, ...] | None = None
    """Where something does not answer: what the last look found that went to its end; None: there was none."""

    def may_name(self, file: Place, on: Mount, *, strictly: bool) -> bool:
        """May the path that does not answer be, or hold, or lead to a file `on` that mount?

        Another file system can have no second name for a file, only a link or an image that leads to it: `strictly`
        counts that, unless an earlier look has shown where it leads.
        """
        if not self.silent:
            return False
        near = self.mount.device == on.device or holds(self.silent, file.real)
        return near or (strictly and self.before is None)


def examine(disk: Disk) -> Disk:
    """The disk with all it stands on and the snapshots inside it, as its images' headers say."""
    if disk.kind is not DiskKind.FILE or not disk.path:
        return disk
    try:
        parts = list(parts_of(disk.path, disk.format))
        snapshots = snapshots_in(disk.path, disk.format)
    except Unreadable as error:
        fix = "see its mode and its content (qemu-img info --backing-chain)"
        why = Refusal(code="disk-chain-unknown", message=f"disk {disk.target}: {error}", fix=fix)
        return disk.model_copy(update={"against": (why,)})
    chain = dict.fromkeys((*(part.path for part in parts), *disk.chain))
    data = disk.data_file or next((part.path for part in parts if part.data), None)
    return disk.model_copy(update={"chain": tuple(chain), "data_file": data, "snapshots": snapshots})


def identity_of(path: str) -> str | None:
    """Device, inode and file system of what `path` itself is, links not followed; None where there is nothing.

    Raises StorageSilent where its file system fails, OSError where this process cannot look.
    """
    try:
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)  # opens neither device nor pipe
    except OSError as error:
        unless_failing(path, error)
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        return None
    try:
        return identity_by(fd)
    except OSError as error:
        unless_failing(path, error)
        raise
    finally:
        os.close(fd)


def identity_by(fd: int) -> str:
    """As `identity_of`, of what is open. Raises OSError."""
    found = os.fstat(fd)
    return f"{found.st_dev}:{found.st_ino}:{os.fstatvfs(fd).f_fsid}"


def place_of(path: str, role: str = "") -> Place:
    """What that path leads to now. Raises StorageSilent where its file system fails."""
    real = os.path.realpath(path)
    try:
        found = os.stat(path)
    except OSError as error:
        unless_failing(path, error)
        return Place(path, real, None, folder=False, role=role)
    return Place(path, real, f"{found.st_dev}:{found.st_ino}", stat.S_ISDIR(found.st_mode), role)


def holds(folder: str, path: str) -> bool:
    """Is that path below this folder, by its name? `/` does not count."""
    return folder != "/" and path.startswith(f"{folder.rstrip('/')}/")


def users_of(file: Place, on: Mount, reached: Iterable[Reach], *, perhaps: bool) -> tuple[str, ...]:
    """Who else needs a file that lies `on` that mount, and as what. Pure.

    `perhaps`: also who may need it for all that can be seen.
    """
    found: dict[str, None] = {}
    for reach in reached:
        named = [place for place in (*reach.places, *(reach.before or ())) if place.names(file)]
        found |= {f"{reach.claim.owner}{place.role}": None for place in named}
        if not named and reach.may_name(file, on, strictly=perhaps):
            found[f"perhaps {reach.claim.owner}: {reach.silent} does not answer"] = None
    return tuple(found)


def named_by(name: str, beside: frozenset[str], reached: Iterable[Reach], *, perhaps: bool) -> tuple[str, ...]:
    """Who comes to a file of that name which is one of those `beside` a token. Pure.

    `perhaps`: also who may. A path that was never looked at may lead anywhere. Of a file that the last look found
    under that name, it is not known whether it is this one.
    """
    found: dict[str, None] = {}
    for reach in reached:
        for place in reach.places:
            if place.real in beside and place.name == name:
                found[f"{reach.claim.owner}{place.role}"] = None
        known = reach.before is not None and not any(place.name == name for place in reach.before)
        if perhaps and reach.silent and not known:
            found[f"perhaps {reach.claim.owner}: {reach.silent} does not answer"] = None
    return tuple(found)


def unreadable(reached: Iterable[Reach]) -> tuple[str, ...]:
    """Owners of images that are there and cannot be read (root may not, on NFS with root_squash), and why not."""
    return tuple(dict.fromkeys(f"perhaps {r.claim.owner}: {r.unreadable}" for r in reached if r.unreadable))


def locked(files: Iterable[str]) -> list[str]:
    """Those on which a process of this host holds a lock."""
    return [file for file in files if _locked(file)]


def _locked(path: str) -> bool:
    """Does a process hold one of the locks that QEMU and its tools take on the images they use?"""
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        with opened(path) as fd:
            answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked)
    except OSError:
        return False
    return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)
