"""Who else uses a file of this host, by whatever name. Blocking; called by `storage.py`.

Two names are the same file where they lead to one path, or to one inode: symbolic and hard links, bind mounts and
other spellings are all seen through.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import struct
from collections.abc import Iterable, Iterator

from sterna.adapters.files.images import Unreadable, parts_of
from sterna.domain.claims import Claim
from sterna.domain.model import Disk, DiskKind, Refusal

_FLOCK = "hhqqi4x"
"""struct flock on 64-bit Linux: type, whence, start, length, pid."""
_SOMEBODY = "a process of this host"


def examine(disk: Disk) -> Disk:
    """The disk with all it stands on, as its images' headers say."""
    if disk.kind is not DiskKind.FILE or not disk.path:
        return disk
    try:
        parts = parts_of(disk.path, disk.format)
    except Unreadable as error:
        fix = "see its mode and its content (qemu-img info --backing-chain)"
        why = Refusal(code="disk-chain-unknown", message=f"disk {disk.target}: {error}", fix=fix)
        return disk.model_copy(update={"against": (why,)})
    chain = dict.fromkeys((*(part.path for part in parts), *disk.chain))
    data = disk.data_file or next((part.path for part in parts if part.data), None)
    return disk.model_copy(update={"chain": tuple(chain), "data_file": data})


def identity_of(path: str) -> str | None:
    """Device and inode of what `path` itself is, links not followed; None where there is nothing."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return f"{found.st_dev}:{found.st_ino}"


def users_of(files: Iterable[str], claims: Iterable[Claim], *, locks: bool = False) -> dict[str, tuple[str, ...]]:
    """For each of `files` that somebody else uses: by whom, and as what.

    With `locks`, as right before a removal, also whoever holds one, and whoever may need it: an image that cannot
    be read may stand on any file.
    """
    wanted, claims = {path: frozenset(_keys(path)) for path in files}, tuple(claims)
    found: dict[str, dict[str, None]] = {}
    for path, owner in reached(claims):
        keys = set(_keys(path))
        for file, own in wanted.items():
            if keys & own or _inside(file, path):
                found.setdefault(file, {})[owner] = None
    perhaps = [f"perhaps {owner}: {why}" for owner, why in _unreadable(claims)] if locks else []
    for file in wanted if locks else ():
        if _locked(file):
            found.setdefault(file, {})[f"{_SOMEBODY} that holds a lock on it"] = None
        if perhaps:
            found.setdefault(file, {}).update(dict.fromkeys(perhaps))
    return {file: tuple(owners) for file, owners in found.items()}


def reached(claims: Iterable[Claim]) -> Iterator[tuple[str, str]]:
    """Every file that is needed, named or not, and by whom and as what in words."""
    for claim in claims:
        for path, role in _reach(claim):
            yield path, f"{claim.owner}{role}"


def _reach(claim: Claim) -> Iterator[tuple[str, str]]:
    """Every file that this claim needs, and how it comes to it."""
    yield claim.path, ""
    if not claim.image:
        return
    try:
        parts = parts_of(claim.path, claim.format)
    except Unreadable:
        return
    for part in parts:
        if part.is_file:
            yield part.path, f", as a {'data' if part.data else 'backing'} file of {claim.path}"


def _unreadable(claims: Iterable[Claim]) -> Iterator[tuple[str, str]]:
    """Owners of images that are there and cannot be read (root may not, on NFS with root_squash), and why not."""
    for claim in claims:
        if claim.image:
            try:
                parts_of(claim.path, claim.format)
            except Unreadable as error:
                yield claim.owner, str(error)


def _keys(path: str) -> Iterator[str]:
    yield os.path.realpath(path)
    with contextlib.suppress(OSError):
        found = os.stat(path)
        yield f"{found.st_dev}:{found.st_ino}"


def _inside(file: str, claimed: str) -> bool:
    """Is `claimed` a folder that holds the file (one that a guest shares with its host)? `/` says nothing."""
    real, folder = os.path.realpath(file), os.path.realpath(claimed)
    return folder != "/" and real.startswith(folder + "/") and os.path.isdir(folder)


def _locked(path: str) -> bool:
    """Does a process hold one of the locks that QEMU and its tools take on the images they use?"""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return False
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked)
        return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)
    except OSError:
        return False
    finally:
        os.close(fd)
