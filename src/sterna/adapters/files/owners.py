"""Who a disk's file belongs to: read on the source, given to the copy on the destination (protocol P8).

QEMU may run as a user of its own, and libvirt may be set not to change owners (`dynamic_ownership = 0`).

Names are asked of the host's user database, which may be a server's (sssd, LDAP): in threads of its own, so that a
server that hangs is not taken for the file system.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sterna.domain.errors import Temporary
from sterna.domain.model import FileOwner
from sterna.kit.mounts import LOOK_S, look_at, on_disk
from sterna.kit.opening import opened
from sterna.kit.threads import in_thread

USERS_S = 10.0
"""For the user database, both names together."""

T = TypeVar("T")


async def read(path: str) -> FileOwner | None:
    """Owner, group and mode; None where the file cannot be seen. Raises StorageSilent, and Temporary where the user
    database does not answer."""
    seen = await look_at(lambda: _seen(path), path, limit_s=LOOK_S)
    if seen is None:
        return None
    return await _of_users(lambda: _named(seen), f"user {seen.uid} and group {seen.gid}")


async def give(path: Path, owner: FileOwner | None) -> None:
    """Let a file belong to them here, by name where this host has that name. None: as it is.

    Raises OSError, StorageSilent, and Temporary where the user database does not answer.
    """
    if owner is None:
        return
    wanted = f"user {owner.user or owner.uid} and group {owner.group or owner.gid}"
    uid, gid = await _of_users(lambda: _numbers(owner), wanted)
    await on_disk(lambda: _give(path, uid, gid, owner.mode), str(path))


async def _of_users(ask: Callable[[], T], about: str) -> T:
    try:
        return await in_thread(ask, name="sterna-users", limit_s=USERS_S)
    except TimeoutError as error:
        fix = "check that what nsswitch.conf names for passwd and group answers (`getent passwd`, sssd, LDAP)"
        raise Temporary(f"this host's user database does not answer about {about}: {error}", fix=fix) from error


def _seen(path: str) -> FileOwner | None:
    """Without names."""
    try:
        seen = os.stat(path)
    except OSError:
        return None
    return FileOwner(uid=seen.st_uid, gid=seen.st_gid, mode=stat.S_IMODE(seen.st_mode))


def _named(owner: FileOwner) -> FileOwner:
    user = group = None
    with contextlib.suppress(KeyError):
        user = pwd.getpwuid(owner.uid).pw_name
    with contextlib.suppress(KeyError):
        group = grp.getgrgid(owner.gid).gr_name
    return owner.model_copy(update={"user": user, "group": group})


def _numbers(owner: FileOwner) -> tuple[int, int]:
    uid, gid = owner.uid, owner.gid
    with contextlib.suppress(KeyError):
        uid = pwd.getpwnam(owner.user).pw_uid if owner.user else uid
    with contextlib.suppress(KeyError):
        gid = grp.getgrnam(owner.group).gr_gid if owner.group else gid
    return uid, gid


def _give(path: Path, uid: int, gid: int, mode: int) -> None:
    with opened(path, links=False) as file:
        os.fchown(file, uid, gid)
        os.fchmod(file, mode & 0o777)
