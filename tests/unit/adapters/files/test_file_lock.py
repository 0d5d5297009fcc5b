"""The proof of sharing that writes nothing: nobody is fooled by two files that are alike."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from sterna.adapters.files.file_lock import hold, is_held, mount_of
from sterna.adapters.files.media import digest
from sterna.domain.claims import Proof, Sight, compare_unwritten


def test_a_lock_is_seen_on_the_same_file_only_and_only_while_it_is_held(tmp_path: Path) -> None:
    one, other, link = tmp_path / "one", tmp_path / "other", tmp_path / "link"
    one.write_bytes(b"x" * 4096)
    shutil.copy2(one, other)
    link.symlink_to(one)
    one.chmod(0o400)
    with hold(str(one)) as place:
        assert place is not None
        assert is_held(str(one), place) and is_held(str(link), place)
        assert not is_held(str(other), place)
        assert not is_held(str(one), place + 1)
    assert not is_held(str(one), place)


def test_two_askers_do_not_disturb_each_other(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with hold(str(file)) as first, hold(str(file)) as second:
        assert first != second
        assert all(place is not None and is_held(str(file), place) for place in (first, second))


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe"])
def test_what_is_no_file_cannot_be_held(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "it"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    with hold(str(path)) as place:
        assert place is None
    assert not is_held(str(path), 1)


def test_a_local_file_system_has_no_other_machine(tmp_path: Path) -> None:
    assert mount_of(str(tmp_path)) == ""
    assert mount_of("/nowhere/at/all") == ""


HERE = Sight(file_inode=7, size=100, mount="nfs4 nas:/isos")


@pytest.mark.parametrize(
    ("mine", "theirs", "proof"),
    [
        (Sight(file_inode=7, size=1), Sight(file_inode=7, size=1, held=True), Proof.SAME),
        # clones of one image: alike in all that can be compared
        (Sight(file_inode=7, size=1), Sight(file_inode=7, size=1), Proof.APART),
        (Sight(file_inode=7, size=1), Sight(), Proof.APART),
        (HERE, HERE.model_copy(update={"held": True}), Proof.SAME),
        (HERE, HERE, Proof.SAME),
        (HERE, HERE.model_copy(update={"file_inode": 8}), Proof.OTHER),
        (HERE, HERE.model_copy(update={"file_inode": None}), Proof.MISSING),
        (HERE, HERE.model_copy(update={"mount": "nfs4 10.0.0.1:/isos"}), None),
        (HERE, HERE.model_copy(update={"mount": ""}), None),
    ],
)
def test_without_a_token(mine: Sight, theirs: Sight, proof: Proof | None) -> None:
    assert compare_unwritten(mine, theirs) is proof


def test_a_digest_follows_the_content(tmp_path: Path) -> None:
    file, same = tmp_path / "a", tmp_path / "b"
    file.write_bytes(b"one")
    same.write_bytes(b"one")
    first = digest(str(file))
    assert first == digest(str(same))
    file.write_bytes(b"two")
    assert digest(str(file)) not in (None, first)
    assert digest(str(tmp_path / "none")) is None
