"""Which files libvirt takes for shared: it refuses to leave any other file where it is.

libvirt goes by the type of the file system, and by the folders that `qemu.conf` names (`shared_filesystems`).
Source: libvirt, qemuMigrationSrcIsSafe and virFileIsSharedFS.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from sterna.adapters.libvirt.qemu.conf import QEMU_CONF, list_of
from sterna.kit.mounts import LOOK_S, look_at, mount_of

SHARED_TYPES = frozenset(
    {
        "acfs",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "fuse.glusterfs",
        "fuse.quobyte",
        "gfs2",
        "gpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "smb3",
        "smbfs",
    }
)
"""As /proc/self/mountinfo names those that libvirt knows."""


async def taken_for_local(paths: tuple[str, ...], conf: Path = QEMU_CONF) -> tuple[str, ...]:
    """Those of these files that libvirt here does not take for shared; none where its settings cannot be read.

    Raises Temporary where a file system does not answer.
    """
    named = _named(conf)
    if named is None:
        return ()

    def look() -> tuple[str, ...]:
        folders = [PurePosixPath(os.path.realpath(folder)) for folder in named]
        return tuple(path for path in paths if not _is_shared(path, folders))

    return await look_at(look, *paths, *named, limit_s=LOOK_S)


def _named(conf: Path) -> tuple[str, ...] | None:
    try:
        return list_of(conf.read_text(), "shared_filesystems") or ()
    except FileNotFoundError:
        return ()
    except OSError:
        return None


def _is_shared(path: str, folders: Sequence[PurePosixPath]) -> bool:
    real = os.path.realpath(path)
    return any(PurePosixPath(real).is_relative_to(f) for f in folders) or mount_of(real).kind in SHARED_TYPES
