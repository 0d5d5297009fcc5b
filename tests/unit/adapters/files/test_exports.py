"""Folders that this host's own file servers give to others: a third host may use what is in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from sterna.adapters.files.exports import exported
from sterna.domain.claims import Sight


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


ETAB = "{folder}\t10.0.0.0/8(rw,sync,wdelay,hide,nocrossmnt,secure,root_squash)\n"
PROC = "# Version 1.1\n# Path Client(Flags) # IPs\n{folder}\t*(rw,root_squash,sync)\n"
SAMBA = "[global]\n  workgroup = W\n[vms]\n  comment = x\n  Path = {folder}\n;  path = /\n# path = /\n"
USER_SHARE = "#VERSION 2\npath={folder}\ncomment=\n"


@pytest.mark.parametrize(
    "file, text",
    [
        ("var/lib/nfs/etab", ETAB),
        ("proc/fs/nfsd/exports", PROC),
        ("etc/samba/smb.conf", SAMBA),
        ("var/lib/samba/usershares/vms", USER_SHARE),
    ],
)
def test_a_file_in_an_exported_folder(root: Path, tmp_path: Path, file: str, text: str) -> None:
    folder = tmp_path / "instances"
    folder.mkdir()
    write(root, file, text.format(folder=folder))
    assert exported(f"{folder}/web.qcow2", root) == str(folder)
    assert exported(f"{folder}-2/web.qcow2", root) == ""
    link = tmp_path / "link"
    link.symlink_to(folder)
    assert exported(f"{link}/web.qcow2", root) == str(folder)


def test_a_folder_with_a_space_in_its_name(root: Path) -> None:
    write(root, "var/lib/nfs/etab", "/srv/my\\040vms\t*(rw)\n")
    assert exported("/srv/my vms/a.img", root) == "/srv/my vms"


def test_all_of_a_host(root: Path) -> None:
    write(root, "var/lib/nfs/etab", "/\t*(rw)\n")
    assert exported("/srv/a.img", root) == "/"


def test_a_host_that_serves_no_files(root: Path) -> None:
    assert exported("/srv/a.img", root) == ""


def test_it_is_said_in_words() -> None:
    assert Sight().of_others == ""
    assert "nas:/isos" in Sight(mount="nfs4 nas:/isos", exported="/srv").of_others
    assert "/srv, which this host exports" in Sight(exported="/srv").of_others
