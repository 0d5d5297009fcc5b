"""Who a disk's file belongs to: read on the source, given to the copy on the destination (protocol P8). Blocking.

QEMU may run as a user of its own, and libvirt may be told to leave owners alone (`dynamic_ownership = 0`).
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import stat
from pathlib import Path

from sterna.domain.model import FileOwner


def read(path: str) -> FileOwner | None:
    """Owner, group and mode; None where the file cannot be seen."""
    try:
        seen = os.stat(path)
    except OSError:
        return None
    user = group = None
    with contextlib.suppress(KeyError):
        user = pwd.getpwuid(seen.st_uid).pw_name
    with contextlib.suppress(KeyError):
        group = grp.getgrgid(seen.st_gid).gr_name
    return FileOwner(user=user, uid=seen.st_uid, group=group, gid=seen.st_gid, mode=stat.S_IMODE(seen.st_mode))


def give(path: Path, owner: FileOwner | None) -> None:
    """Let a file belong to them here, by name where this host has that name. None: as it is. Raises OSError."""
    if owner is None:
        return
    uid, gid = owner.uid, owner.gid
    with contextlib.suppress(KeyError):
        uid = pwd.getpwnam(owner.user).pw_uid if owner.user else uid
    with contextlib.suppress(KeyError):
        gid = grp.getgrnam(owner.group).gr_gid if owner.group else gid
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(file, uid, gid)
        os.fchmod(file, owner.mode & 0o777)
    finally:
        os.close(file)
