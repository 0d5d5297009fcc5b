"""Headers of disk images, which a guest's owner may have written."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from sterna.adapters.files.images import Unreadable, parts_of


def qcow2(backing: bytes) -> bytes:
    """Version 2, with that backing file."""
    head = b"QFI\xfb" + struct.pack(">IQI", 2, 72, len(backing))
    return head.ljust(72, b"\0") + backing


@pytest.mark.parametrize("name", [b"json:" + b"[" * 50_000, b"json:" + b'{"file":' * 7_000, b"json:nonsense"])
def test_a_backing_file_whose_name_is_no_json_cannot_be_read(tmp_path: Path, name: bytes) -> None:
    path = tmp_path / "disk.qcow2"
    path.write_bytes(qcow2(name))
    with pytest.raises(Unreadable, match="makes no sense"):
        list(parts_of(str(path), "qcow2"))


def test_one_that_is(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    path.write_bytes(qcow2(b'json:{"driver": "raw", "file": {"filename": "base.img"}}'))
    assert [part.path for part in parts_of(str(path), "qcow2")] == [str(tmp_path / "base.img")]
