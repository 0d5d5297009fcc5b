"""Which files a definition names, and what an image stands on. The images are real ones, made by qemu-img."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from pathlib import Path

import pytest

from sterna.adapters.files.images import Unreadable, parts_of
from sterna.adapters.files.storage import FileStorage
from sterna.adapters.libvirt.claims import claims_of, luns_of
from sterna.adapters.libvirt.xml.metadata import parse_xml
from sterna.domain.claims import Claim, Proof, Sight, compare

UUID = "6f0a3c3e-0000-4000-8000-000000000001"
DOMAIN = f"""
<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
 <name>web</name><uuid>{UUID}</uuid>
 <metadata><app:x xmlns:app='urn:x'>/not/a/file</app:x></metadata>
 <os><type>hvm</type><loader type='pflash'>/code.fd</loader><nvram template='/vars.fd'>/nvram.fd</nvram>
  <kernel>/vmlinuz</kernel><initrd>/initrd</initrd><dtb>/board.dtb</dtb>
  <acpi><table type='slic'>/slic</table></acpi>
 </os>
 <sysinfo type='fwcfg'><entry name='opt/x' file='/fwcfg'/></sysinfo>
 <devices>
  <emulator>/usr/bin/qemu</emulator>
  <disk type='file' device='disk'><driver type='qcow2'/><source file='/disk.qcow2'>
    <dataStore type='file'><format type='raw'/><source file='/disk.data'/></dataStore></source>
   <backingStore type='file'><format type='raw'/><source file='/base.img'/><backingStore/></backingStore>
   <mirror type='file' job='copy'><format type='qcow2'/><source file='/mirror.qcow2'/></mirror>
   <target dev='vda'/></disk>
  <disk type='block' device='lun'><source dev='/dev/sdb'/><target dev='sda'/></disk>
  <disk type='file' device='floppy'><source file='/floppy.img'/><target dev='fda'/></disk>
  <disk type='dir' device='floppy'><source dir='/folder'/><target dev='fdb'/></disk>
  <filesystem type='mount'><source dir='/share'/><target dir='x'/></filesystem>
  <serial type='file'><source path='/serial.log'/><log file='/serial2.log' append='on'/></serial>
  <tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>
  <memory model='nvdimm'><source><path>/nvdimm</path></source></memory>
  <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
  <interface type='bridge'><script path='/ifup'/><rom file='/rom'/></interface>
 </devices>
 <qemu:commandline><qemu:arg value='-drive'/><qemu:arg value='if=none,file=/raw.img,format=raw'/>
  <qemu:arg value='{{"driver": "file","filename": "/json.img"}}'/></qemu:commandline>
</domain>"""


def test_every_file_that_a_definition_names_is_claimed() -> None:
    claims = {c.path: c for c in claims_of(parse_xml(DOMAIN), "VM web (running)", UUID)}
    named = {
        "/code.fd",
        "/vars.fd",
        "/nvram.fd",
        "/vmlinuz",
        "/initrd",
        "/board.dtb",
        "/slic",
        "/fwcfg",
        "/usr/bin/qemu",
    }
    named |= {
        "/disk.qcow2",
        "/disk.data",
        "/base.img",
        "/mirror.qcow2",
        "/dev/sdb",
        "/floppy.img",
        "/folder",
        "/share",
    }
    named |= {"/serial.log", "/serial2.log", "/nvdimm", "/dev/urandom", "/ifup", "/rom", "/raw.img", "/json.img"}
    assert set(claims) == named | {f"/var/lib/libvirt/swtpm/{UUID}"}
    images = {c.path: c.format for c in claims.values() if c.image}
    assert images == {
        "/disk.qcow2": "qcow2",
        "/disk.data": "raw",
        "/base.img": "raw",
        "/mirror.qcow2": "qcow2",
        "/dev/sdb": None,
        "/floppy.img": None,
    }


IQN = "iqn.2026-11.org.sterna:web"
LUNS = {
    f"<disk type='network'><source protocol='iscsi' name='{IQN}/1'/></disk>": [f"iscsi://{IQN}/1"],
    f"<disk type='network'><source protocol='iscsi' name='{IQN}'/></disk>": [f"iscsi://{IQN}/0"],
    f"<hostdev type='scsi'><source protocol='iscsi' name='{IQN}/2'/></hostdev>": [f"iscsi://{IQN}/2"],
    f"<disk type='block'><source dev='/dev/disk/by-path/ip-10.0.0.1:3260-iscsi-{IQN}-lun-1'/></disk>": [
        f"iscsi://{IQN}/1"
    ],
    f"<serial><source path='file=iscsi://10.0.0.1:3260/{IQN}/1,if=virtio'/></serial>": [f"iscsi://{IQN}/1"],
    "<disk type='network'><source protocol='rbd' name='pool/image'/></disk>": [],
    "<disk type='file'><source file='/disk.qcow2'/></disk>": [],
}


@pytest.mark.parametrize("inner", LUNS)
def test_a_lun_is_claimed_however_a_definition_names_it(inner: str) -> None:
    assert list(luns_of(parse_xml(f"<domain><devices>{inner}</devices></domain>"))) == LUNS[inner]


def test_the_memory_file_and_the_disks_of_an_external_snapshot_are_claimed() -> None:
    snapshot = """<domainsnapshot><name>s</name><memory snapshot='external' file='/saved.mem'/>
     <disks><disk name='vda' snapshot='external'><driver type='qcow2'/><source file='/over.qcow2'/></disk></disks>
     <domain><devices><disk type='file'><source file='/before.qcow2'/><target dev='vda'/></disk></devices></domain>
    </domainsnapshot>"""
    assert {c.path for c in claims_of(parse_xml(snapshot), "x", UUID)} == {
        "/saved.mem",
        "/over.qcow2",
        "/before.qcow2",
    }


def make(path: Path, *options: str, form: str = "qcow2", size: str | None = "1M") -> str:
    argv = ["qemu-img", "create", "-q", "-f", form, *options, str(path), *([size] if size else [])]
    subprocess.run(argv, check=True, cwd=path.parent)
    return str(path)


def test_what_an_image_stands_on_is_read_from_the_headers(tmp_path: Path) -> None:
    base = make(tmp_path / "base.img", form="raw")
    middle = make(tmp_path / "middle.qcow2", "-b", "base.img", "-F", "raw")  # relative
    top = make(tmp_path / "top.qcow2", "-b", middle, "-F", "qcow2")
    assert [(p.path, p.format, p.data) for p in parts_of(top, "qcow2")] == [
        (middle, "qcow2", False),
        (base, "raw", False),
    ]
    assert list(parts_of(top, "raw")) == []  # as libvirt takes it: a guest may have written that header
    assert list(parts_of(str(tmp_path / "none"), "qcow2")) == []


@pytest.mark.parametrize("raw", ["off", "on"])
def test_an_external_data_file_is_found(tmp_path: Path, raw: str) -> None:
    image = make(tmp_path / "a.qcow2", "-o", f"data_file={tmp_path}/a.data,data_file_raw={raw}")
    (part,) = parts_of(image, "qcow2")
    assert part.path == f"{tmp_path}/a.data" and part.data


def test_other_ways_to_name_a_backing_file(tmp_path: Path) -> None:
    base = make(tmp_path / "base.img", form="raw")
    told = f'json:{{"driver": "raw", "file": {{"driver": "file", "filename": "{base}"}}}}'
    for number, name in enumerate((told, f"file:{base}")):
        top = make(tmp_path / f"{number}.qcow2", "-u", "-b", name, "-F", "raw")
        assert [p.path for p in parts_of(top, "qcow2")] == [base]
    far = make(tmp_path / "far.qcow2", "-u", "-b", "nbd://localhost:10809/x", "-F", "raw")
    (part,) = parts_of(far, "qcow2")
    assert not part.is_file
    qed = make(tmp_path / "a.qed", "-b", base, "-F", "raw", form="qed")
    assert [p.path for p in parts_of(qed, "qed")] == [base]


def test_the_extents_and_the_parent_of_a_vmdk_are_found(tmp_path: Path) -> None:
    image = make(tmp_path / "a.vmdk", "-o", "subformat=monolithicFlat", form="vmdk")
    assert [p.path for p in parts_of(image, "vmdk")] == [f"{tmp_path}/a-flat.vmdk"]


def test_a_header_that_makes_no_sense_is_not_taken_for_an_image_that_stands_alone(tmp_path: Path) -> None:
    (tmp_path / "bad.qcow2").write_bytes(b"QFI\xfb\0\0\0\3")
    with pytest.raises(Unreadable):
        list(parts_of(str(tmp_path / "bad.qcow2"), "qcow2"))


def test_a_chain_that_leads_back_to_itself_ends(tmp_path: Path) -> None:
    image = make(tmp_path / "a.qcow2")
    subprocess.run(["qemu-img", "rebase", "-u", "-b", image, "-F", "qcow2", image], check=True)
    assert [p.path for p in parts_of(image, "qcow2")] == [image]


async def users_of(files: list[str], claims: list[Claim], *, locks: bool = False) -> dict[str, tuple[str, ...]]:
    return await FileStorage("/").used_by(tuple(files), tuple(claims), locks=locks)


def claim(path: Path | str, **more: object) -> Claim:
    return Claim(path=str(path), owner="VM web (shutoff)", **more)  # type: ignore[arg-type]


async def test_one_file_under_many_names_is_one_file(tmp_path: Path) -> None:
    disk = make(tmp_path / "disk.qcow2")
    (tmp_path / "link").symlink_to(disk)
    (tmp_path / "folder").symlink_to(tmp_path)
    os.link(disk, tmp_path / "hard")
    top = make(tmp_path / "top.qcow2", "-b", "disk.qcow2", "-F", "qcow2")
    for path in (
        disk,
        tmp_path / "link",
        tmp_path / "folder/disk.qcow2",
        tmp_path / "hard",
        f"{tmp_path}/x/../disk.qcow2",
    ):
        assert await users_of([disk], [claim(path)]) == {disk: ("VM web (shutoff)",)}, path
    assert await users_of([disk], [claim(tmp_path)]) == {disk: ("VM web (shutoff)",)}  # a folder with all in it
    (user,) = (await users_of([disk], [claim(top, image=True, format="qcow2")]))[disk]
    assert user == f"VM web (shutoff), as a backing file of {top}"
    assert await users_of([disk], [claim(top), claim("/"), claim(tmp_path / "disk.qcow2.bak")]) == {}
    assert await users_of([str(tmp_path / "later.qcow2")], [claim(tmp_path / "later.qcow2")])  # not made yet


async def test_a_lock_of_a_process_counts_where_it_is_asked_for(tmp_path: Path) -> None:
    """QEMU and its tools hold shared locks on some bytes of every image they use."""
    disk = make(tmp_path / "disk.qcow2")
    fd = os.open(disk, os.O_RDWR)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 100, 1, 0))
        assert await users_of([disk], []) == {}
        assert "lock" in (await users_of([disk], [], locks=True))[disk][0]
    finally:
        os.close(fd)
    assert await users_of([disk], [], locks=True) == {}


@pytest.mark.parametrize(
    ("theirs", "proof"),
    [
        (Sight(), Proof.APART),
        (Sight(seen=True, token_inode=7), Proof.MISSING),
        (Sight(seen=True, token_inode=7, file_inode=8, same_device=True), Proof.SAME),
        (Sight(seen=True, token_inode=7, file_inode=9, same_device=True), Proof.OTHER),
        (Sight(seen=True, token_inode=7, file_inode=8, same_device=False), Proof.OTHER),
        (Sight(seen=True, token_inode=70, file_inode=80, same_device=True), Proof.SAME),  # inodes of its own
    ],
)
def test_whether_two_hosts_see_one_file(theirs: Sight, proof: Proof) -> None:
    assert compare(Sight(seen=True, token_inode=7, file_inode=8, same_device=True), theirs) is proof


async def test_what_an_unreadable_image_may_stand_on_is_not_removed(tmp_path: Path) -> None:
    disk, overlay = tmp_path / "disk.raw", tmp_path / "overlay.qcow2"
    disk.write_bytes(b"data")
    overlay.write_bytes(b"QFI\xfb" + b"\xff" * 500)
    claims = [claim(overlay, image=True, format="qcow2")]
    assert await users_of([str(disk)], claims) == {}  # a plan does not refuse every disk for one broken image
    (user,) = (await users_of([str(disk)], claims, locks=True))[str(disk)]
    assert user.startswith("perhaps VM web (shutoff): ") and str(overlay) in user
    missing = [claim(tmp_path / "gone.qcow2", image=True, format="qcow2")]
    assert await users_of([str(disk)], missing, locks=True) == {}
