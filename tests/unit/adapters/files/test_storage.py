"""File storage on a temporary folder with the real qemu-img."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from sterna.adapters.files.storage import FileStorage
from sterna.domain.errors import Conflict, Permanent, Refused
from sterna.domain.files import Created
from sterna.domain.model import Disk, DiskKind

MIB = 1 << 20


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "instances").mkdir()
    return tmp_path / "instances"


def contents(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def image_info(path: Path) -> tuple[str, int]:
    command = ["qemu-img", "info", "--output=json", str(path)]
    info = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return info["format"], info["virtual-size"]


MARK = "00000000-0000-4000-8000-0000000000aa-destination"


def disk(path: Path | str, **more: object) -> Disk:
    facts: dict[str, object] = {"target": "vda", "kind": DiskKind.FILE, "path": str(path), "format": "qcow2"}
    facts |= {"capacity_bytes": 64 * MIB, "allocation_bytes": MIB, "local": True}
    return Disk.model_validate(facts | more)


@pytest.mark.parametrize("form", ["raw", "qcow2"])
async def test_makes_thin_targets_of_the_same_size_and_format(root: Path, form: str) -> None:
    storage = FileStorage(root)
    wanted = disk(root / "vm" / "disk", format=form)
    created = await storage.plan_targets("vm", (wanted,))
    assert created == Created(directories=(str(root / "vm"),), files=(str(root / "vm/disk"),))
    assert not (root / "vm").exists()
    made = await storage.reserve_targets(created, MARK)
    await storage.create_targets((wanted,), made)
    await storage.create_targets((wanted,), made)
    assert image_info(root / "vm/disk") == (form, 64 * MIB)
    assert (root / "vm/disk").stat().st_blocks * 512 < MIB
    assert (root / "vm/disk").stat().st_mode & 0o777 == 0o600
    await storage.remove(created)
    await storage.remove(created)
    assert contents(root) == []


async def test_a_half_made_target_is_made_anew(root: Path) -> None:
    storage, wanted = FileStorage(root), disk(root / "vm/disk")
    created = await storage.plan_targets("vm", (wanted,))
    made = await storage.reserve_targets(created, MARK)
    (root / "vm/disk").write_bytes(b"half")
    await storage.create_targets((wanted,), made)
    assert (root / "vm/disk").read_bytes()[:3] == b"QFI"


async def test_a_reservation_is_known_again_until_the_disk_is_made(root: Path) -> None:
    """An agent that died had no time to write down which files it made."""
    storage, wanted = FileStorage(root), disk(root / "vm/disk")
    created = await storage.plan_targets("vm", (wanted,))
    assert await storage.reserved(created, MARK) == {}
    made = await storage.reserve_targets(created, MARK)
    assert await storage.reserve_targets(created, MARK) == made == await storage.reserved(created, MARK)
    assert made == {wanted.path: await storage.identity(wanted.path or "")}
    with pytest.raises(Conflict, match="has not made it"):
        await storage.reserve_targets(created, "another migration")


async def test_a_file_that_appears_after_the_plan_is_not_touched(root: Path) -> None:
    """Also one that looks like a whole image: two agents may have one folder."""
    storage, wanted = FileStorage(root), disk(root / "vm/disk", format="raw")
    created = await storage.plan_targets("vm", (wanted,))
    (root / "vm").mkdir()
    (root / "vm/disk").write_text("precious")
    with pytest.raises(Conflict, match="has not made it"):
        await storage.reserve_targets(created, MARK)
    (root / "vm/disk").unlink()
    made = await storage.reserve_targets(created, MARK)
    (root / "vm/other").write_text("precious")
    os.truncate(root / "vm/other", 64 * MIB)
    (root / "vm/other").rename(root / "vm/disk")
    for what in (wanted, disk(root / "vm/disk", carried=True)):
        with pytest.raises(Conflict, match="not the file any more"):
            await storage.create_targets((what,), made)
    assert (root / "vm/disk").read_bytes()[:8] == b"precious"


async def test_what_is_there_already_is_not_touched(root: Path) -> None:
    storage, wanted = FileStorage(root), disk(root / "vm/disk")
    (root / "vm").mkdir()
    (root / "vm/disk").write_text("precious")
    assert [r.code for r in await storage.check_targets((wanted,))] == ["disk-file-exists"]
    with pytest.raises(Conflict):
        await storage.plan_targets("vm", (wanted,))
    with pytest.raises(Conflict):
        await storage.create_targets((wanted,), {})
    assert (root / "vm/disk").read_text() == "precious"


async def test_every_reason_at_once(root: Path, tmp_path: Path) -> None:
    storage = FileStorage(root)
    bad = disk(
        tmp_path / "elsewhere", format="vmdk", backing_path="/base", capacity_bytes=None, allocation_bytes=1 << 60
    )
    codes = {r.code for r in await storage.check_targets((bad,))}
    assert codes == {
        "disk-format",
        "disk-backing-file",
        "disk-size-unknown",
        "disk-outside-instances",
        "disk-space-short",
    }
    assert all(r.fix for r in await storage.check_targets((bad,)))
    assert await storage.check_targets(()) == []


@pytest.mark.parametrize("path", ["../outside", "vm/../../outside", "vm/./disk", "", ".", "vm//disk"])
async def test_paths_that_leave_the_instances_directory(root: Path, path: str) -> None:
    storage = FileStorage(root)
    outside = root.parent / "outside"
    outside.write_text("precious")
    given = f"{root}/{path}" if path else ""
    for act in (storage.remove(Created(files=(given,))), storage.remove(Created(directories=(given,)))):
        with pytest.raises(Permanent):
            await act
    if given:
        assert (await storage.check_targets((disk(given),)))[0].code == "disk-outside-instances"
    assert outside.read_text() == "precious"
    assert contents(root) == []


async def test_links_are_not_followed(root: Path) -> None:
    storage, outside = FileStorage(root), root.parent / "outside"
    outside.mkdir()
    (outside / "disk").write_text("precious")
    (root / "vm").symlink_to(outside)
    with pytest.raises(Permanent, match="symbolic link"):
        await storage.remove(Created(files=(str(root / "vm/disk"),)))
    with pytest.raises(Permanent, match="symbolic link"):
        await storage.plan_targets("vm", (disk(root / "vm/disk2"),))
    (root / "vm").unlink()
    (root / "vm").mkdir()
    (root / "vm/disk").symlink_to(outside / "disk")
    with pytest.raises(Permanent, match="not a regular file"):
        await storage.remove(Created(files=(str(root / "vm/disk"),)))
    assert (outside / "disk").read_text() == "precious"
    assert (await storage.check_targets((disk(root / "vm/disk"),)))[0].code == "disk-file-exists"


async def test_an_instances_directory_that_is_itself_a_link_is_the_operators_choice(root: Path) -> None:
    link = root.parent / "link"
    link.symlink_to(root)
    storage, wanted = FileStorage(link), disk(link / "vm/disk")
    created = await storage.plan_targets("vm", (wanted,))
    made = await storage.reserve_targets(created, MARK)
    await storage.create_targets((wanted,), made)
    assert (root / "vm/disk").exists()
    await storage.remove(created)
    assert contents(root) == []


async def test_a_directory_with_something_else_in_it_stays(root: Path) -> None:
    storage, wanted = FileStorage(root), disk(root / "vm/disk")
    created = await storage.plan_targets("vm", (wanted,))
    made = await storage.reserve_targets(created, MARK)
    await storage.create_targets((wanted,), made)
    (root / "vm/console.log").write_text("kept")
    await storage.remove(created)
    assert contents(root / "vm") == ["console.log"]


async def test_tokens(root: Path, tmp_path: Path) -> None:
    storage = FileStorage(root)
    path = str(tmp_path / "shared.img")
    assert not await storage.sees_token(path, "abc-1")
    await storage.leave_token(path, "abc-1")
    await storage.leave_token(path, "abc-1")
    assert await storage.sees_token(path, "abc-1")
    assert not await storage.sees_token(path, "abc-2")
    await storage.drop_token(path, "abc-1")
    await storage.drop_token(path, "abc-1")
    assert not await storage.sees_token(path, "abc-1")
    with pytest.raises(Permanent):
        await storage.leave_token(path, "../../etc/x")
    with pytest.raises(Permanent):
        await storage.leave_token("/nowhere/at/all", "abc")


async def test_readable(root: Path) -> None:
    storage = FileStorage(root)
    (root / "a").write_text("x")
    assert await storage.readable(str(root / "a"))
    assert not await storage.readable(str(root))
    assert not await storage.readable(str(root / "b"))


async def test_an_instances_directory_that_is_away_is_said_so(tmp_path: Path) -> None:
    root = tmp_path / "away"
    with pytest.raises(Permanent, match="the instances directory") as caught:
        await FileStorage(root).remove(Created(directories=(), files=(f"{root}/gone.img",)))
    assert caught.value.fix


@pytest.mark.parametrize("how", ["gone", "folder", "fifo", "json", "url", "relative", "dotted"])
async def test_the_base_is_looked_at_again_when_the_copy_is_made(root: Path, tmp_path: Path, how: str) -> None:
    """Between the check and P8 it may have changed; and P8 believes no message."""
    base, storage = tmp_path / "base.qcow2", FileStorage(root)
    base.write_bytes(b"")
    more = {"backing_path": str(base), "backing_format": "qcow2", "backing_shared": True}
    assert await storage.check_targets((disk(root / "vm/disk", **more),)) == []
    if how in ("gone", "folder", "fifo"):
        base.unlink()
    if how == "folder":
        base.mkdir()
    if how == "fifo":
        os.mkfifo(base)
    other = {"json": 'json:{"driver":"file","filename":"/etc/passwd"}', "url": "nbd://127.0.0.1/x"}
    other |= {"relative": "etc/passwd", "dotted": f"{tmp_path}/../base"}
    wanted = disk(root / "vm/disk", **(more | {"backing_path": other.get(how, str(base))}))
    created = await storage.plan_targets("vm", (wanted,))
    made = await storage.reserve_targets(created, MARK)
    with pytest.raises(Refused, match="backing file"):
        await storage.create_targets((wanted,), made)
    assert await storage.reserved(created, MARK) == made


async def test_an_instances_directory_that_is_not_there_is_a_reason(tmp_path: Path) -> None:
    root = tmp_path / "instances"
    (refusal,) = await FileStorage(root).check_targets((disk(root / "vm" / "disk"),))
    assert refusal.code == "instances-dir"
    assert str(root) in refusal.message


async def test_an_image_whose_header_makes_no_sense_is_a_reason(root: Path) -> None:
    image = root / "disk"
    image.write_bytes(b"QFI\xfb" + b"\0")  # cut off after its magic number
    (refusal,) = (await FileStorage(root).examine(disk(image))).against
    assert refusal.code == "disk-chain-unknown"
    assert str(image) in refusal.message


async def test_a_disk_behind_a_link_cannot_be_removed_after_the_move(root: Path) -> None:
    (root / "real").write_bytes(b"")
    (root / "link").symlink_to(root / "real")
    (refusal,) = await FileStorage(root).check_sources((disk(root / "link"),))
    assert refusal.code == "disk-behind-link"
    assert str(root / "link") in refusal.message
    assert await FileStorage(root).check_sources((disk(root / "real"),)) == []


def compressed(path: Path, *, text_bytes: int) -> None:
    """An image whose text takes a few KiB of its file, as cloud images come."""
    raw = path.with_suffix(".raw")
    raw.write_bytes(b"compresses well " * (text_bytes // 16))
    os.truncate(raw, 64 * MIB)
    subprocess.run(["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", raw, path], check=True, timeout=30)
    raw.unlink()


async def test_the_room_for_a_compressed_image_is_what_it_holds_and_not_its_file(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, path = FileStorage(root), root / "cloud.qcow2"
    compressed(path, text_bytes=40 * MIB)
    allocated = path.stat().st_blocks * 512
    found = disk(path, allocation_bytes=allocated)
    found = found.model_copy(update={"data_bytes": await storage.data_bytes(found)})
    assert allocated < MIB < 40 * MIB <= (found.data_bytes or 0) < 42 * MIB
    monkeypatch.setattr("sterna.adapters.files.instances_dir.InstancesDir.free_bytes", lambda _: 100 * MIB)
    path.rename(root / "away")
    (why,) = await storage.check_targets((found,))
    assert why.code == "disk-space-short"
    monkeypatch.setattr("sterna.adapters.files.instances_dir.InstancesDir.free_bytes", lambda _: 120 * MIB)
    assert await storage.check_targets((found,)) == []


async def test_what_an_overlay_holds_is_counted_without_its_base(root: Path) -> None:
    base, top = root / "base.qcow2", root / "top.qcow2"
    compressed(base, text_bytes=40 * MIB)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", top], check=True)  # noqa: ASYNC221
    found = await FileStorage(root).data_bytes(disk(top, backing_path=str(base), backing_shared=True))
    assert found is not None and found < MIB


async def test_the_data_of_a_raw_disk_is_counted_without_its_holes(root: Path) -> None:
    path = root / "disk.raw"
    path.write_bytes(b"x" * MIB)
    os.truncate(path, 64 * MIB)
    found = await FileStorage(root).data_bytes(disk(path, format="raw"))
    assert found is not None and MIB <= found < 2 * MIB
    assert await FileStorage(root).data_bytes(disk(root / "none", format="raw")) is None
