"""Files of a running guest's disks that another file has taken the place of (`adapters/libvirt/replaced.py`)."""

from __future__ import annotations

import os
from pathlib import Path

from lxml import etree

from sterna.adapters.libvirt import replaced

DOMAIN = """<domain><name>tern</name><os><nvram>/vars.fd</nvram></os><devices>
 <disk type='file' device='disk'><source file='/disk.qcow2'>
  <dataStore type='file'><source file='/data'/></dataStore>
  </source><backingStore type='file'><source file='/base.img'/></backingStore>
  <mirror type='file'><source file='/mirror'/></mirror><target dev='vda'/></disk>
 <disk type='file' device='cdrom'><source file='/a.iso'/><target dev='sda'/></disk>
 <disk type='block' device='disk'><source dev='/dev/sdb'/><target dev='vdb'/></disk>
 <disk type='file' device='cdrom'><target dev='sdb'/></disk>
</devices></domain>"""


def test_the_files_that_its_qemu_keeps_open() -> None:
    assert replaced.kept_open(etree.fromstring(DOMAIN)) == {
        "/disk.qcow2": "disk vda",
        "/data": "disk vda",
        "/base.img": "disk vda",
        "/a.iso": "disk sda",
        "/vars.fd": "NVRAM",
    }


async def test_another_file_in_the_place_of_one_is_a_reason(tmp_path: Path) -> None:
    files = {str(tmp_path / name): f"disk {name}" for name in ("vda", "vdb", "vdc")}
    with open(tmp_path / "vda", "w"), open(tmp_path / "vdb", "w"):  # noqa: ASYNC230
        (tmp_path / "restored").write_text("yesterday")
        (tmp_path / "restored").rename(tmp_path / "vdb")
        (why,) = await replaced.refusals("tern", files, os.getpid())
    assert why.code == "file-replaced"
    assert str(tmp_path / "vdb") in why.message and "disk vdb" in why.message and "tern" in why.fix
