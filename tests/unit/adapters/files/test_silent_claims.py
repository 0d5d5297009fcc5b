"""Which VMs name a file, where what they name is on a file system that does not answer."""

import asyncio
import os
import struct
from pathlib import Path

import pytest

from sterna.adapters.files.storage import FileStorage
from sterna.adapters.files.usage import Place, Reach, users_of
from sterna.domain.claims import Claim
from sterna.kit import mounts, threads
from tests.unit.adapters.files.dying import Dead, others


async def test_a_dead_file_system_of_another_vms_file_hides_no_claim(
    dead: Dead, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often that is asked for, and whatever else of that VM's answers."""
    monkeypatch.setattr(threads, "MOST_LEFT", 2)
    files, wanted = FileStorage(root), str(root / "disk")
    (root / "disk").touch()
    claims = tuple(others(f"{dead.dead}/{name}") for name in ("a", "b", "disk"))
    with dead.soon_given_up():
        for _ in range(3):
            assert await files.used_by((wanted,), claims) == {}
        assert await files.used_by((wanted,), (*claims, others(wanted))) == {wanted: ("another VM",)}
    assert await files.owner_of(wanted) is not None


async def test_before_a_removal_it_counts_unless_it_was_seen_to_lead_elsewhere(dead: Dead, root: Path) -> None:
    """A link on it, or an image, may lead to the file."""
    files, wanted, there = FileStorage(root), str(root / "disk"), f"{dead.dead}/iso"
    (root / "disk").touch()
    with dead.soon_given_up():
        found = await files.used_by((wanted,), (others(there),), perhaps=True)
    assert found == {wanted: (f"perhaps another VM: {there} does not answer",)}
    dead.answers.set()
    assert await files.used_by((wanted,), (others(there),)) == {}
    dead.answers.clear()
    with dead.soon_given_up():
        assert await files.used_by((wanted,), (others(there),), perhaps=True) == {}
        as_an_image = (others(there, image=True, format="qcow2"),)
        assert await files.used_by((wanted,), as_an_image, perhaps=True)


async def test_what_the_last_look_found_still_counts(dead: Dead, root: Path) -> None:
    files, wanted, link = FileStorage(root), str(root / "disk"), f"{dead.dead}/link"
    dead.answers.set()
    (root / "disk").touch()
    os.symlink(wanted, link)
    assert await files.used_by((wanted,), (others(link),)) == {wanted: ("another VM",)}
    dead.answers.clear()
    with dead.soon_given_up():
        assert await files.used_by((wanted,), (others(link),)) == {wanted: ("another VM",)}


async def test_on_the_files_own_file_system_it_counts_for_a_check_too(dead: Dead, root: Path) -> None:
    """A hard link, perhaps."""
    beside, silent = f"{dead.healthy}/disk", others(f"{dead.dead}/other")
    (Path(dead.healthy) / "disk").touch()
    dead.mounted(("0:51", dead.dead), ("0:51", dead.healthy))
    with dead.soon_given_up():
        found = await FileStorage(root).used_by((beside,), (silent, others(f"{dead.healthy}/other")))
        assert found == {beside: (f"perhaps another VM: {silent.path} does not answer",)}


async def test_one_link_to_a_dead_file_system_hides_no_other_claim_beside_it(dead: Dead, root: Path) -> None:
    """Nobody knows where it leads before it was followed once."""
    wanted = str(root / "disk")
    (root / "disk").touch()
    (root / "hard").hardlink_to(wanted)
    names = [f"{n:02}" for n in range(20)]
    for name in names[:10]:
        (root / name).symlink_to(f"{dead.dead}/{name}")
    claims = tuple(others(root / name) for name in names)
    with dead.soon_given_up():
        assert await FileStorage(root).used_by((wanted,), claims) == {}
        mine = Claim(path=str(root / "hard"), owner="a third one")
        assert await FileStorage(root).used_by((wanted,), (*claims, mine)) == {wanted: ("a third one",)}


async def test_one_that_only_an_images_header_names_hides_none_either(
    dead: Dead, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base of another VM's image: nobody could tell before."""
    monkeypatch.setattr(threads, "MOST_LEFT", 2)
    files, image, wanted = FileStorage(root), root / "top.qcow2", str(root / "disk")
    base = f"{dead.dead}/base".encode()
    image.write_bytes(struct.pack(">4sIQI", b"QFI\xfb", 2, 72, len(base)).ljust(72, b"\0") + base)
    claims = (others(image, image=True, format="qcow2"),)
    (root / "disk").touch()
    with dead.soon_given_up():
        for _ in range(4):
            assert await files.used_by((wanted,), claims) == {}
        assert await files.used_by((str(image),), claims) == {str(image): ("another VM",)}
        found = await files.used_by((wanted,), claims, perhaps=True)
        assert found == {wanted: (f"perhaps another VM: {dead.dead}/base does not answer",)}
    assert await files.owner_of(str(image)) is not None
    dead.answers.set()
    async with asyncio.timeout(10):
        while threads._Alone.left:  # noqa: ASYNC110 - a thread's end tells nobody
            await asyncio.sleep(0.01)
    assert await files.used_by((wanted,), claims, perhaps=True) == {}


async def test_whoever_names_a_file_beside_a_token_is_found_past_a_dead_file_system(dead: Dead, root: Path) -> None:
    files, disk = FileStorage(root), str(root / "disk")
    (root / "disk").touch()
    await files.leave_token(disk, "t1")
    gone, namesake = others(f"{dead.dead}/iso"), others(f"{dead.dead}/disk")
    mine = Claim(path=disk, owner="mine")
    with dead.soon_given_up():
        assert await files.named_by("disk", "t1", (gone, namesake, mine)) == ("mine",)
        unknown = f"perhaps another VM: {gone.path} does not answer"
        assert await files.named_by("disk", "t1", (gone,), perhaps=True) == (unknown,)
    dead.answers.set()
    assert await files.named_by("disk", "t1", (gone, namesake), perhaps=True) == ()
    dead.answers.clear()
    with dead.soon_given_up():
        found = await files.named_by("disk", "t1", (gone, namesake), perhaps=True)
    assert found == (f"perhaps another VM: {namesake.path} does not answer",)


def test_a_folder_that_does_not_answer_may_be_shared_with_all_that_is_mounted_below_it() -> None:
    dead, healthy = mounts.Mount("0:50", "/srv", "nfs4"), mounts.Mount("0:51", "/srv/vms", "ext4")
    reached = [Reach(others(path), (), silent=path, mount=dead, before=()) for path in ("/srv/", "/srv/vm", "/")]
    file = Place("/srv/vms/disk", "/srv/vms/disk", "51:1", folder=False)
    assert users_of(file, healthy, reached, perhaps=False) == ("perhaps another VM: /srv/ does not answer",)
