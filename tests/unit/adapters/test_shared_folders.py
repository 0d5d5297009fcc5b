"""Which files libvirt takes for shared: by the mount they are on, and by what qemu.conf names."""

from __future__ import annotations

from pathlib import Path

import pytest

from sterna.adapters.libvirt.qemu.conf import list_of
from sterna.adapters.libvirt.shared_folders import taken_for_local
from sterna.kit import mounts

MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 22 0:50 / /srv/nfs rw,relatime shared:9 - nfs4 10.0.0.1:/export rw,vers=4.2
41 40 254:1 / /srv/nfs/local rw - xfs /dev/vdb rw
42 22 0:51 / /srv/with\\040space rw - fuse.glusterfs server:/volume rw
43 22 254:2 / /srv/covered rw - ext4 /dev/vdc rw
44 22 0:52 / /srv/covered rw - ceph 10.0.0.1:/ rw
45 22 0:53 / /srv/sshfs rw - fuse.sshfs user@host:/ rw
"""


@pytest.fixture(autouse=True)
def these_mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mountinfo"
    path.write_text(MOUNTS)
    monkeypatch.setattr(mounts, "_MOUNTS", path)


@pytest.mark.parametrize(
    ("path", "local"),
    [
        ("/srv/nfs/disk.qcow2", False),
        ("/srv/nfs/deep/er/disk.qcow2", False),
        ("/srv/nfs/local/disk.qcow2", True),
        ("/srv/nfsx/disk.qcow2", True),
        ("/srv/with space/disk.qcow2", False),
        ("/srv/covered/disk.qcow2", False),
        ("/srv/sshfs/disk.qcow2", True),
        ("/var/lib/libvirt/images/disk.qcow2", True),
    ],
)
async def test_by_the_type_of_the_mount(tmp_path: Path, path: str, local: bool) -> None:
    assert await taken_for_local((path,), tmp_path / "no.conf") == ((path,) if local else ())


async def test_by_what_qemu_conf_names(tmp_path: Path) -> None:
    conf, real, link = tmp_path / "qemu.conf", tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    conf.write_text(f'shared_filesystems = [ "{link}" ]\n')
    for folder in (real, link):
        assert await taken_for_local((f"{folder}/disk",), conf) == ()
    assert await taken_for_local((f"{tmp_path}/real2/disk",), conf) == (f"{tmp_path}/real2/disk",)


@pytest.mark.parametrize(
    ("conf", "folders"),
    [
        ("", None),
        ('#shared_filesystems = [\n#  "/a",\n#]\n', None),
        ('shared_filesystems = [\n  "/a",\n  # "/b",\n  "/c"\n]\nuser = "x"\n', ("/a", "/c")),
        ('user = "y"\n  shared_filesystems=["/a/b"]', ("/a/b",)),
    ],
)
def test_the_setting_as_people_write_it(conf: str, folders: tuple[str, ...]) -> None:
    assert list_of(conf, "shared_filesystems") == folders


async def test_settings_that_cannot_be_read_decide_nothing(tmp_path: Path) -> None:
    assert await taken_for_local(("/srv/sshfs/disk",), tmp_path) == ()  # a folder: as unreadable to root as it gets
