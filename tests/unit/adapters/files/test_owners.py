"""The copy of a local disk belongs to whom the disk belongs, by name where the other host has the name."""

import os
import pwd
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sterna.adapters.files import owners
from sterna.adapters.files.storage import FileStorage
from sterna.domain.errors import StorageSilent, Temporary
from sterna.domain.model import Disk, DiskKind, FileOwner
from sterna.kit import threads

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


async def test_what_nobody_sees_belongs_to_nobody(tmp_path: Path) -> None:
    assert await owners.read(str(tmp_path / "missing")) is None


async def test_it_is_read_with_names_where_there_are_names(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"")
    path.chmod(0o640)
    seen = await owners.read(str(path))
    assert seen is not None
    assert (seen.uid, seen.gid, seen.mode) == (os.geteuid(), path.stat().st_gid, 0o640)
    assert seen.user is None or seen.user


@ROOT
@pytest.mark.parametrize(
    ("owner", "uid", "gid"),
    [
        (FileOwner(user="daemon", uid=4711, group="daemon", gid=4712, mode=0o640), 1, 1),
        (FileOwner(user="nobody-of-that-name", uid=4711, group=None, gid=4712, mode=0o604), 4711, 4712),
    ],
)
@pytest.mark.parametrize("again", [False, True])
async def test_p8_gives_the_empty_target_away(
    tmp_path: Path, owner: FileOwner, uid: int, gid: int, again: bool
) -> None:
    storage, path = FileStorage(tmp_path), tmp_path / "vm" / "disk"
    disk = Disk(target="vda", kind=DiskKind.FILE, path=str(path), capacity_bytes=1 << 20, local=True, owner=owner)
    created = await storage.plan_targets("vm", (disk,))
    made = await storage.reserve_targets(created, "m1")
    await storage.create_targets((disk,), made)
    if again:  # the answer of the first attempt was lost
        os.chown(path, 0, 0)
        await storage.create_targets((disk,), made)
    seen = path.stat()
    assert (seen.st_uid, seen.st_gid, stat.S_IMODE(seen.st_mode)) == (uid, gid, owner.mode)


@ROOT
async def test_a_link_is_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "passwd"
    other.write_bytes(b"")
    (tmp_path / "disk").symlink_to(other)
    with pytest.raises(OSError, match="symbolic links"):
        await owners.give(tmp_path / "disk", FileOwner(uid=4711, gid=4711, mode=0o666))
    assert other.stat().st_uid == 0


@pytest.fixture
def silent_users(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A user database that answers when the test is over."""
    over = threading.Event()

    def hang(_user: object) -> None:
        over.wait(60)
        raise KeyError

    monkeypatch.setattr(owners, "USERS_S", 0.05)
    monkeypatch.setattr(threads, "MOST_LEFT", 2)
    monkeypatch.setattr(pwd, "getpwuid", hang)
    monkeypatch.setattr(pwd, "getpwnam", hang)
    yield
    over.set()


async def test_a_user_database_that_hangs_is_not_taken_for_the_file_system(
    silent_users: None, tmp_path: Path
) -> None:
    storage, path = FileStorage(tmp_path), tmp_path / "vm" / "disk"
    path.parent.mkdir()
    path.write_bytes(b"")
    owner = FileOwner(user="qemu", uid=107, gid=107, mode=0o600)
    disk = Disk(target="vda", kind=DiskKind.FILE, path=str(path), capacity_bytes=1 << 20, local=True)
    for _ in range(3):
        with pytest.raises(Temporary, match="user database does not answer about user") as read:
            await storage.owner_of(str(path))
        with pytest.raises(Temporary, match="user database does not answer about user qemu") as given:
            await owners.give(path, owner)
        assert not isinstance(read.value, StorageSilent) and not isinstance(given.value, StorageSilent)
        assert "getent passwd" in read.value.fix
    assert await storage.readable(str(path))  # as many calls hang as may, none of them at the file system
    assert (await storage.examine(disk)).path == str(path)


@pytest.mark.parametrize(
    ("facts", "fits"),
    [
        ({"format": "qcow2", "length_bytes": 1 << 20}, True),
        ({"format": "qcow2", "length_bytes": 1 << 60}, False),
        ({"format": "qcow2", "length_bytes": 1 << 60, "backing_shared": True}, True),
        ({"format": "raw", "length_bytes": 1 << 60}, False),
        ({"format": "raw", "length_bytes": 1 << 60, "holes_kept": True}, True),
        ({"format": "qcow2", "length_bytes": 1 << 60, "holes_kept": True}, True),
    ],
)
async def test_room_is_judged_by_what_the_copy_will_take(tmp_path: Path, facts: dict[str, Any], fits: bool) -> None:
    """As measured with QEMU 10.0: 8 of 96 MiB written arrive as 96, but for thin qcow2 and sought zeros."""
    sizes = {"capacity_bytes": 1 << 60, "allocation_bytes": 1 << 20, "local": True}
    disk = Disk(target="vda", kind=DiskKind.FILE, path=str(tmp_path / "vm" / "disk"), **sizes | facts)
    codes = [refusal.code for refusal in await FileStorage(tmp_path).check_targets((disk,))]
    assert codes == ([] if fits else ["disk-space-short"])
