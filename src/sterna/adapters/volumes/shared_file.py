"""Volumes that are files on a folder both hosts see (shared storage): nothing to admit, everything to verify."""

from __future__ import annotations

import json
import os
import struct

from sterna.domain.errors import Permanent
from sterna.domain.model import Disk, DiskKind, Refusal
from sterna.kit.command import run
from sterna.kit.mounts import on_disk
from sterna.kit.opening import WrongKind, opened

_IMAGE_INFO_S = 10.0
"""Reading an image's header takes milliseconds; a hanging NFS server must not hang the agent."""
_MEASURED = frozenset({"raw", "luks", "qcow2", "qcow", "qed", "vdi", "vpc", "vhdx", "parallels"})
"""Formats whose size qemu-img tells and opens no other file for. Of a VMDK it opens every file that the descriptor
names, be that `/dev/watchdog`: that it is the same one is shown by the tokens alone."""
_QCOW2 = struct.Struct(">4sI16xQ40xQ")
"""Magic, version, size of the disk, incompatible features."""
_DATA_FILE_BIT = 1 << 2


class SharedFileVolumes:
    """`ports.volume.Volumes` for FILE disks that are not local. That the folder is one and the same is proved by
    tokens (`ports.storage`); this verifies the file itself."""

    def __init__(self, *, qemu_img: str = "qemu-img") -> None:
        self._qemu_img = qemu_img

    def handles(self, disk: Disk) -> bool:
        """Files on shared storage."""
        return disk.kind is DiskKind.FILE and disk.local is False

    async def check(self, disk: Disk, source: str) -> list[Refusal]:
        """Is the file here, may it be opened, is it the same image?"""
        problem = await self._problem(disk)
        if problem is None:
            return []
        fix = f"make {disk.path} available on this host, at the same path and with the same access"
        return [Refusal(code="shared-file-unusable", message=f"disk {disk.target}: {problem}", fix=fix)]

    async def admitted(self, disk: Disk) -> bool:
        """A folder has no admissions."""
        return False

    async def attach(self, disk: Disk, source: str) -> Disk:
        """P4: a folder has no admissions; the disk is the same on every host."""
        return disk

    async def connect(self, disk: Disk) -> Disk:
        """P9: prove that the file is here, opens read-write, and is the same image.

        Raises Permanent where it is not, Temporary where the storage gave no answer.
        """
        problem = await self._problem(disk)
        if problem is not None:
            raise Permanent(f"disk {disk.target}: {problem}", fix="check that the shared folder is mounted here")
        return disk

    async def disconnect(self, disk: Disk) -> None:
        """R3, F2: nothing of this host is connected to a file that no QEMU holds open."""

    async def detach(self, disk: Disk) -> None:
        """R3, F3: nothing was admitted."""

    async def _problem(self, disk: Disk) -> str | None:
        path = disk.path
        if not path:
            return "it has no path"
        problem, size = await on_disk(lambda: _look(path, disk.read_only), path, limit_s=_IMAGE_INFO_S)
        if problem is not None or disk.capacity_bytes is None:
            return problem
        # A LUKS image is `raw` to libvirt; its header tells the size without the key.
        kind = "luks" if disk.encrypted and disk.format == "raw" else disk.format
        if kind not in _MEASURED:
            return None
        found = size if size is not None and kind == "qcow2" else await self._size(kind, path)
        return _against_size(path, found, disk.capacity_bytes)

    async def _size(self, kind: str, path: str) -> int | str:
        """What qemu-img says, its error in words."""
        # -U: the guest on the source holds the image's lock. -f: never guess a format from what a guest wrote.
        argv = [self._qemu_img, "info", "-U", "--output=json", "-f", kind, path]
        done = await run(argv, limit_s=_IMAGE_INFO_S)
        if done.code != 0:
            return done.words
        return int(json.loads(done.out)["virtual-size"])


def _against_size(path: str, size: int | str, wanted: int) -> str | None:
    if isinstance(size, str) or size == wanted:
        return size if isinstance(size, str) else None
    return f"{path} is an image of {size} bytes here, the VM's has {wanted}"


def _look(path: str, read_only: bool) -> tuple[str | None, int | None]:
    """Why `path` cannot be opened as the guest would open it, None where it can; and its size, where that must be
    read from its header."""
    try:
        with opened(path, os.O_RDONLY if read_only else os.O_RDWR) as fd:
            return None, _size_without_data(os.pread(fd, _QCOW2.size, 0))
    except (WrongKind, IsADirectoryError):
        return f"{path} is not a regular file", None
    except OSError as error:
        return f"{path}: {error.strerror}", None


def _size_without_data(header: bytes) -> int | None:
    """Of a qcow2 image whose data is in another file: its header names that, and a qemu-img before 9.1 opens it.
    None of any other file."""
    if len(header) < _QCOW2.size:
        return None
    magic, version, size, features = _QCOW2.unpack(header)
    outside = magic == b"QFI\xfb" and version >= 3 and features & _DATA_FILE_BIT
    return int(size) if outside else None
