"""What speaks against a copy of a local disk on this host: its place, its format, its base, the room. Blocking."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from sterna.adapters.files.instances_dir import InstancesDir
from sterna.domain.claims import misplaced
from sterna.domain.errors import Permanent
from sterna.domain.model import Disk, DiskKind, Refusal
from sterna.kit.opening import WrongKind, opened

_MARGIN = 0.1
"""A copy may take a little more than its source: qcow2 tables, other block size, writes during the copy."""
_RESERVE_BYTES = 64 << 20
"""Left free beyond the copies, for the host itself."""
FORMATS = ("raw", "qcow2")
_BASE_FIX = "see its path, its owner and its mode on the destination"


def against(folder: InstancesDir, disk: Disk) -> list[Refusal]:
    """What is wrong with one disk's copy, room apart."""
    label = f"{disk.device} {disk.target}"
    if disk.kind is not DiskKind.FILE or disk.path is None:
        fix = "use a file, or a volume both hosts can reach"
        return [Refusal(code="disk-not-a-file", message=f"{label} is local and not a file", fix=fix)]
    found = []
    if disk.format not in FORMATS:
        message = f"{label} has format {disk.format}; {' and '.join(FORMATS)} can be copied"
        found.append(Refusal(code="disk-format", message=message, fix="convert it with qemu-img convert"))
    found += against_backing(disk)
    if disk.capacity_bytes is None:
        message = f"the size of {label} is not known"
        found.append(Refusal(code="disk-size-unknown", message=message, fix="check that the source can read it"))
    try:
        path = folder.inside(disk.path)
    except Permanent as error:
        return [*found, misplaced(disk, error.message, error.fix)]
    if path.exists() or path.is_symlink():
        fix = f"remove {path} on the destination, if nothing needs it"
        found.append(Refusal(code="disk-file-exists", message=f"{label}: {path} already exists", fix=fix))
    return found


def unremovable(folder: InstancesDir, disk: Disk) -> Iterator[Refusal]:
    """What would keep F10 from removing this disk here."""
    try:
        folder.inside(disk.path or "")
    except Permanent as error:
        yield misplaced(disk, f"{error.message}: it could not be removed after the migration", error.fix)
        return
    if Path(disk.path or "").is_symlink():
        message = f"disk {disk.target}: {disk.path} is a symbolic link, and what it leads to is only on this host"
        fix = "give the VM the path that the link leads to, below the instances directory"
        yield Refusal(code="disk-behind-link", message=message, fix=fix)


def room(folder: InstancesDir, disks: tuple[Disk, ...]) -> list[Refusal]:
    """Is there room for copies of these disks?"""
    needed = sum(_to_be_written(d) for d in disks)
    needed = int(needed * (1 + _MARGIN)) + _RESERVE_BYTES
    try:
        free = folder.free_bytes()
    except OSError as error:
        message = f"{folder.root}: {error.strerror}"
        return [Refusal(code="instances-dir", message=message, fix="create the instances directory")]
    if not os.access(folder.root, os.W_OK):
        message = f"{folder.root} cannot be written"
        return [Refusal(code="instances-dir", message=message, fix="correct its owner and mode")]
    if free >= needed:
        return []
    message = f"the copies of local disks need {needed} bytes in {folder.root}, {free} are free"
    return [Refusal(code="disk-space-short", message=message, fix="free space there, or choose another host")]


def _to_be_written(disk: Disk) -> int:
    """Bytes its copy will take. QEMU fills the holes of raw images and of preallocated qcow2 with zeros (measured),
    unless they are looked for; those of other qcow2, and of what lies above a shared base, are not sent. What is
    compressed in the image, or by its file system, is not in the copy."""
    capacity, allocated = disk.capacity_bytes, disk.allocation_bytes
    if capacity is None or allocated is None:
        return allocated or capacity or 0
    preallocated = (disk.length_bytes or 0) >= capacity
    filled = not disk.backing_shared and not disk.holes_kept and (disk.format == "raw" or preallocated)
    return max(capacity, allocated) if filled else max(allocated, disk.data_bytes or 0)


def against_backing(disk: Disk) -> list[Refusal]:
    """A base must be what both hosts see, under the same name."""
    if not disk.backing_path:
        return []
    label = f"disk {disk.target} is local and has a backing file, {disk.backing_path}"
    if not disk.backing_shared:
        fix = "put the backing file on shared storage, or flatten the disk first (virsh blockpull)"
        return [Refusal(code="disk-backing-file", message=f"{label}, that is not seen here", fix=fix)]
    if disk.backing_format not in FORMATS or disk.format != "qcow2":
        message = f"{label} ({disk.format} on {disk.backing_format or 'an unknown format'})"
        return [Refusal(code="disk-backing-file", message=message, fix="flatten it first (virsh blockpull)")]
    problem = _unusable_base(disk.backing_path)
    return [Refusal(code="disk-backing-file", message=f"{label}, that {problem}", fix=_BASE_FIX)] if problem else []


def bases(disks: tuple[Disk, ...]) -> list[str]:
    """The files that copies of these disks would stand on."""
    return [disk.backing_path for disk in disks if disk.backing_path]


def _unusable_base(path: str) -> str:
    """Why nothing can stand on that file here; '' where it can. qemu-img would take a URL or `json:` as well."""
    if not os.path.isabs(path) or os.path.normpath(path) != path:
        return "is not a plain absolute path"
    try:
        with opened(path, devices=True):
            return ""
    except (WrongKind, IsADirectoryError):
        return "is neither a file nor a block device here"
    except OSError as error:
        return f"cannot be read here ({error.strerror})"
