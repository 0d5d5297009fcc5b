"""What an image on this host stands on: its backing files and external data, read from the headers themselves.

A definition names the top image only. Headers are read here, not by `qemu-img`: they are a few hundred bytes, and
the images of running guests are locked. A raw image is never probed: a guest could have written any header into it.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sterna.kit.mounts import touching
from sterna.kit.opening import opened

LONGEST_CHAIN = 200
"""As many images as QEMU itself opens in a chain, and more than any that works."""
_QCOW2_MAGIC = b"QFI\xfb"
_QED_MAGIC = b"QED\0"
_COW_TEXT = b"# Disk DescriptorFile"
_HEADER_BYTES = 64 << 10
_EXTENSION_BACKING_FORMAT = 0xE2792ACA
_EXTENSION_DATA_FILE = 0x44415441
_DATA_FILE_BIT = 1 << 2
"""Incompatible feature: the guest's data is in another file."""
_WITH_SNAPSHOTS = 2
"""The version of the format that first had internal snapshots."""


@dataclass(frozen=True)
class Part:
    """Something an image stands on."""

    path: str
    """Absolute, or as the header has it where it is not a file of this host (`nbd://...`)."""
    format: str | None
    data: bool = False
    """The guest's data itself, outside of the image; else a backing file."""

    @property
    def is_file(self) -> bool:
        """Can it be looked at on this host?"""
        return self.path.startswith("/")


class Unreadable(Exception):
    """The header is not valid for the format, or may not be read: what the image stands on is unknown."""


def parts_of(path: str, form: str | None) -> Iterator[Part]:
    """Everything below this image, nearest first, each before it is looked at itself. A missing image stands on
    nothing.

    Raises Unreadable; StorageSilent where a file system does not answer.
    """
    todo, seen = [(path, form)], {os.path.realpath(path)}
    while todo:
        image, image_form = todo.pop(0)
        with touching(image):
            below = _directly_below(image, image_form)
        for part in below:
            yield part
            real = _real(part.path) if part.is_file else part.path
            if part.is_file and real not in seen and len(seen) < LONGEST_CHAIN:
                seen.add(real)
                todo.append((part.path, "raw" if part.data else part.format or "probe"))


def _real(path: str) -> str:
    with touching(path):
        return os.path.realpath(path)


def snapshots_in(path: str, form: str | None) -> int:
    """How many internal snapshots a qcow2 image has; 0 for one that is missing or of another format.

    Raises Unreadable; StorageSilent where its file system does not answer.
    """
    with touching(path):
        header = _header(path, form)
    if not header.startswith(_QCOW2_MAGIC):
        return 0
    try:
        version, snapshots = struct.unpack_from(">4xI52xI", header)
    except struct.error as error:
        raise Unreadable(f"{path} has a header that makes no sense ({error})") from error
    return int(snapshots) if version >= _WITH_SNAPSHOTS else 0


def _header(path: str, form: str | None) -> bytes:
    """b'' of an image that is raw or missing. Raises Unreadable."""
    if form in (None, "raw", "luks", "file", "host_device"):
        return b""
    try:
        with opened(path, devices=True) as fd:
            return os.pread(fd, _HEADER_BYTES, 0)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return b""
    except OSError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror}") from error


def _directly_below(path: str, form: str | None) -> list[Part]:
    header = _header(path, form)
    try:
        return list(_parse(path, header))
    except (struct.error, ValueError, RecursionError) as error:
        raise Unreadable(f"{path} has a header that makes no sense ({error})") from error


def _parse(path: str, header: bytes) -> Iterator[Part]:
    if header.startswith(_QCOW2_MAGIC):
        yield from _qcow2(path, header)
    elif header.startswith(_QED_MAGIC):
        features, offset, size = struct.unpack_from("<16xQ32xII", header)  # a backing file is feature 1
        if features & 1:
            yield _part(path, header[offset : offset + size].decode(), "raw" if features & 4 else None)
    elif _COW_TEXT in header[:_HEADER_BYTES]:
        yield from _vmdk(path, header)


def _qcow2(path: str, header: bytes) -> Iterator[Part]:
    version, offset, size = struct.unpack_from(">4xIQI", header)
    features, length = (0, 72) if version < 3 else (
        struct.unpack_from(">72xQ", header)[0],
        struct.unpack_from(">100xI", header)[0],
    )  # fmt: skip
    extensions = dict(_extensions(header, length)) if version >= 2 else {}
    if features & _DATA_FILE_BIT:
        name = extensions.get(_EXTENSION_DATA_FILE, b"").decode()
        if not name:
            raise ValueError("an external data file without a name")
        yield _part(path, name, "raw", data=True)
    if offset:
        named = extensions.get(_EXTENSION_BACKING_FORMAT, b"").decode() or None
        yield _part(path, header[offset : offset + size].decode(), named)


def _extensions(header: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    while at + 8 <= len(header):
        kind, size = struct.unpack_from(">II", header, at)
        if kind == 0:
            return
        yield kind, header[at + 8 : at + 8 + size]
        at += 8 + (size + 7) // 8 * 8


def _vmdk(path: str, header: bytes) -> Iterator[Part]:
    """A descriptor in words: `RW 4192256 SPARSE "disk-s001.vmdk"`, `parentFileNameHint="base.vmdk"`."""
    for line in header.decode(errors="replace").splitlines():
        name = line.partition('"')[2].partition('"')[0]
        if line.startswith("parentFileNameHint="):
            yield _part(path, name, "vmdk")
        elif line.startswith(("RW ", "RDONLY ")) and name and os.path.basename(path) != name:
            yield _part(path, name, "raw", data=True)


def _part(image: str, name: str, form: str | None, *, data: bool = False) -> Part:
    """With the path as QEMU takes it: from the folder of the image that names it."""
    if name.startswith("json:"):
        name = _in_json(json.loads(name.removeprefix("json:"))) or name
    name = name.removeprefix("file:")
    if "://" in name or name.startswith(("nbd:", "json:", "rbd:", "fat:")):
        return Part(name, form, data)
    return Part(os.path.join(os.path.dirname(image), name), form, data)


def _in_json(output: Any) -> str:
    """The file name in QEMU's JSON form of one, however deep; '' where it is something else."""
    if not isinstance(output, dict):
        return ""
    for key in ("filename", "file.filename"):
        if isinstance(output.get(key), str):
            return str(output[key])
    inner = output.get("file")
    return inner if isinstance(inner, str) else _in_json(inner)
