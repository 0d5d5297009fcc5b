"""Which disks travel, by what the other host sees (`migration/sharing.py`): real images, another host's answers."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sterna.adapters.files.storage import FileStorage
from sterna.domain.claims import Sight, left_behind, with_medium
from sterna.domain.model import Disk, DiskKind
from sterna.domain.references import Kind, Reference
from sterna.migration.media import LARGEST_MEDIUM
from sterna.migration.sharing import decide_local, prove_written


def other_inode(sight: Sight) -> Sight:
    assert sight.file_inode is not None
    return sight.model_copy(update={"file_inode": sight.file_inode + 1})


def other_device(sight: Sight) -> Sight:
    return sight.model_copy(update={"same_device": not sight.same_device})


def nothing(_: Sight) -> Sight:
    return Sight()


class Elsewhere:
    """Another host with the same folder, which sees something else in it."""

    def __init__(self, storage: FileStorage, seen: Callable[[Sight], Sight]) -> None:
        self._storage, self._seen = storage, seen

    async def sees(self, path: str, token: str, place: int | None = None) -> Sight:
        return self._seen(await self._storage.sight(path, token, place))

    async def digest(self, path: str) -> str | None:
        return await self._storage.digest(path)


def image(path: Path, *options: str) -> Disk:
    command = ["qemu-img", "create", "-q", "-f", "qcow2", *options, str(path), "1M"]
    subprocess.run(command, check=True, timeout=30)
    return Disk(target="vda", kind=DiskKind.FILE, path=str(path), format="qcow2")


def snapshot(disk: Disk, action: str, name: str) -> None:
    subprocess.run(["qemu-img", "snapshot", action, name, str(disk.path)], check=True, timeout=30)


async def decided(disk: Disk, seen: Callable[[Sight], Sight]) -> Disk:
    storage = FileStorage(Path(disk.path or "").parent)
    (found,) = await decide_local(storage, Elsewhere(storage, seen), (disk,), "token")
    return found


async def test_a_file_that_both_hosts_see_stays_where_it_is(tmp_path: Path) -> None:
    found = await decided(image(tmp_path / "disk"), lambda sight: sight)
    assert (found.local, found.against) == (False, ())


async def test_a_file_that_the_other_host_does_not_see_is_copied(tmp_path: Path) -> None:
    found = await decided(image(tmp_path / "disk"), nothing)
    assert (found.local, found.against) == (True, ())


@pytest.mark.parametrize("seen", [other_inode, other_device])
async def test_another_file_under_the_same_name_is_refused(tmp_path: Path, seen: Callable[[Sight], Sight]) -> None:
    found = await decided(image(tmp_path / "disk"), seen)
    (refusal,) = found.against
    assert (found.local, refusal.code) == (False, "disk-not-the-same")
    assert str(tmp_path / "disk") in refusal.message


CD = Disk(target="sda", kind=DiskKind.FILE, device="cdrom", optional=True, read_only=True)


async def decided_medium(folder: Path, instances: Path, seen: Callable[[Sight], Sight], **more: object) -> Disk:
    path = folder / "cd.iso"
    path.write_bytes(b"medium")
    disk = CD.model_copy(update={"path": str(path), "length_bytes": 6, **more})
    storage = FileStorage(instances)
    (found,) = await decide_local(storage, Elsewhere(storage, seen), (disk,), "token")
    return found


async def test_an_optional_medium_that_cannot_be_sent_stays_behind(tmp_path: Path) -> None:
    found = await decided_medium(tmp_path, tmp_path / "instances", nothing)
    assert (found.kind, found.local, found.against) == (DiskKind.EMPTY, False, ())
    assert left_behind(found) == str(tmp_path / "cd.iso")
    assert with_medium(found).place == CD.model_copy(update={"path": str(tmp_path / "cd.iso")}).place


@pytest.mark.parametrize("more", [{"length_bytes": LARGEST_MEDIUM + 1}, {"format": "qcow2"}])
async def test_one_that_is_too_large_or_no_plain_file_stays_behind(tmp_path: Path, more: dict[str, object]) -> None:
    assert left_behind(await decided_medium(tmp_path, tmp_path, nothing, **more))


@pytest.mark.parametrize(
    "more", [{"optional": False}, {"device": "disk"}, {"device": "floppy", "read_only": False}]
)
async def test_a_medium_that_the_vm_needs_never_stays_behind(tmp_path: Path, more: dict[str, object]) -> None:
    found = await decided_medium(tmp_path, tmp_path / "instances", nothing, **more)
    assert (found.kind, found.local) == (DiskKind.FILE, True)


async def test_one_that_can_be_sent_is_sent(tmp_path: Path) -> None:
    assert (await decided_medium(tmp_path, tmp_path, nothing)).carried


async def test_one_that_is_there_stays_in_its_drive(tmp_path: Path) -> None:
    found = await decided_medium(tmp_path, tmp_path / "instances", lambda sight: sight)
    assert (found.kind, found.local, found.against) == (DiskKind.FILE, False, ())


async def test_another_medium_of_that_name_is_refused_even_if_it_is_optional(tmp_path: Path) -> None:
    def larger(sight: Sight) -> Sight:
        return sight.model_copy(update={"seen": False, "size": 7})

    found = await decided_medium(tmp_path, tmp_path / "instances", larger)
    assert [refusal.code for refusal in found.against] == ["medium-differs"]


@pytest.mark.parametrize("version", ["0.10", "1.1"])
async def test_an_image_with_snapshots_inside_is_not_copied_without_them(tmp_path: Path, version: str) -> None:
    disk = image(tmp_path / "disk", "-o", f"compat={version}")
    for name in ("before", "after"):
        snapshot(disk, "-c", name)
    found = await decided(disk, nothing)
    assert [(r.code, "qemu-img snapshot -d" in r.fix) for r in found.against] == [("disk-snapshots", True)]
    assert "2 snapshots" in found.against[0].message and str(disk.path) in found.against[0].message
    assert (await decided(disk, lambda sight: sight)).against == ()  # they stay in it
    for name in ("before", "after"):
        snapshot(disk, "-d", name)
    assert (await decided(disk, nothing)).against == ()


@pytest.mark.parametrize(("seen", "shared"), [(lambda sight: sight, True), (nothing, False), (other_inode, False)])
async def test_a_file_that_qemu_writes_by_an_argument_of_its_own_is_compared_as_a_disk_is(
    tmp_path: Path, seen: Callable[[Sight], Sight], shared: bool
) -> None:
    (tmp_path / "raw").write_text("content")
    storage = FileStorage(tmp_path)
    written, read = (
        Reference(kind=Kind.ARGUMENT, name=str(tmp_path / "raw"), where="qemu:arg", written=is_written)
        for is_written in (True, False)
    )
    found = await prove_written(storage, Elsewhere(storage, seen), (written, read), "token")
    assert [ref.shared for ref in found] == [shared, False]
    assert await storage.tokens(str(tmp_path / "raw")) == ()


async def test_an_image_with_its_data_in_another_file_is_not_copied(tmp_path: Path) -> None:
    disk = image(tmp_path / "disk", "-o", f"data_file={tmp_path / 'data'}")
    (refusal,) = (await decided(disk, nothing)).against
    assert refusal.code == "disk-data-file"
    assert str(tmp_path / "data") in refusal.message
    assert (await decided(disk, lambda sight: sight)).against == ()
