"""Volumes that are files on a folder both hosts see (shared storage): nothing to admit, everything to verify."""

from __future__ import annotations

import json
import os
import stat

from sterna.domain.errors import Permanent
from sterna.domain.model import Disk, DiskKind, Refusal
from sterna.kit.command import run
from sterna.kit.mounts import on_disk

_IMAGE_INFO_S = 10.0
"""Reading an image's header takes milliseconds; a hanging NFS server must not hang the agent."""


class SharedFileVolumes:
    """`ports.volume.Volumes` for FILE disks that are not local. That the folder is one and the same is proved by
    tokens (`ports.storage`); this verifies the file itself."""

    def __init__(self, *, qemu_img: str = "qemu-img") -> None:
        self._qemu_img = qemu_img

    def handles(self, disk: Disk) -> bool:
        """Files on shared storage."""
        return disk.kind is DiskKind.FILE and disk.local is False

    async def check(self, disk: Disk) -> list[Refusal]:
        """Is the file here, may it be opened, is it the same image?"""
        problem = await self._problem(disk)
        if problem is None:
            return []
        fix = f"make {disk.path} available on this host, at the same path and with the same access"
        return [Refusal(code="shared-file-unusable", message=f"disk {disk.target}: {problem}", fix=fix)]

    async def admitted(self, disk: Disk) -> bool:
        """A folder has no admissions."""
        return False

    async def attach(self, disk: Disk) -> Disk:
        """P4: a folder has no admissions; the disk is the same on every host."""
        return disk

    async def connect(self, disk: Disk) -> Disk:
        """P9: prove that the file is here, opens read-write, and is the same image.

        Raises Permanent where it is not, Temporary where the storage gave no answer.
        """
        problem = await self._problem(disk)
        if problem is not None:
            raise Permanent(f"disk {disk.target}: {problem}", fix="see that the shared folder is mounted here")
        return disk

    async def disconnect(self, disk: Disk) -> None:
        """R3, F2: nothing of this host is connected to a file that no QEMU holds open."""

    async def detach(self, disk: Disk) -> None:
        """R3, F3: nothing was admitted."""

    async def _problem(self, disk: Disk) -> str | None:
        path = disk.path
        if not path:
            return "it has no path"
        problem = await on_disk(lambda: _open_problem(path, disk.read_only), path, limit_s=_IMAGE_INFO_S)
        if problem is not None or disk.capacity_bytes is None:
            return problem
        # -U: the guest on the source holds the image's lock. -f: never guess a format from what a guest wrote.
        # A LUKS image is `raw` to libvirt; its header tells the size without the key.
        kind = "luks" if disk.encrypted and disk.format == "raw" else disk.format
        argv = [self._qemu_img, "info", "-U", "--output=json", "-f", kind, path]
        done = await run(argv, limit_s=_IMAGE_INFO_S)
        if done.code != 0:
            return done.words
        size = int(json.loads(done.out)["virtual-size"])
        if size != disk.capacity_bytes:
            return f"{path} is an image of {size} bytes here, the VM's has {disk.capacity_bytes}"
        return None


def _open_problem(path: str, read_only: bool) -> str | None:
    """Why `path` cannot be opened as the guest would open it; None where it can."""
    try:
        fd = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        return f"{path}: {error.strerror}"
    try:
        return None if stat.S_ISREG(os.fstat(fd).st_mode) else f"{path} is not a regular file"
    finally:
        os.close(fd)
