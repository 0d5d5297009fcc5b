"""A file system whose server does not answer: it refuses itself, in time, and no other."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sterna.adapters.files import owners, reach, storage
from sterna.adapters.files.storage import FileStorage
from sterna.adapters.libvirt import shared_folders
from sterna.adapters.volumes.shared_file import SharedFileVolumes
from sterna.controller.intents.migrate_vm import CHECK_LONGEST_S
from sterna.domain.errors import StorageSilent, Temporary
from sterna.kit import mounts, threads
from tests.unit.adapters.files.dying import Dead, disk, held, others


async def test_a_dead_file_system_refuses_itself_and_no_other(
    dead: Dead, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "MOST_LEFT", 2)
    files = FileStorage(root)
    (Path(dead.healthy) / "disk").touch()
    for words in ("no answer", "no answer", "hang already", "hang already"):
        why = f"{dead.dead}/disk: the file system does not answer: .*{words}"
        with pytest.raises(Temporary, match=why), dead.soon_given_up():
            await files.owner_of(f"{dead.dead}/disk")
    assert await files.owner_of(f"{dead.healthy}/disk") is not None
    assert await files.is_empty(str(root / "vm")) is False
    with pytest.raises(Temporary, match="hang already"):
        await SharedFileVolumes().check(disk(f"{dead.dead}/disk", local=False), "host1")


ASKED_IN_CHECKS: dict[str, Callable[[FileStorage, str], Any]] = {
    "check_targets": lambda files, path: files.check_targets((disk(path),)),
    "check_sources": lambda files, path: files.check_sources((disk(path),)),
    "plan_targets": lambda files, path: files.plan_targets("vm", (disk(path),)),
    "directories_of": lambda files, path: files.directories_of("vm"),
    "is_empty": lambda files, path: files.is_empty(path),
    "leave_token": lambda files, path: files.leave_token(path, "t1"),
    "sight": lambda files, path: files.sight(path, "t1"),
    "tokens": lambda files, path: files.tokens(path),
    "sweep_tokens": lambda files, path: files.sweep_tokens(path, "t", frozenset()),
    "held": held,
    "examine": lambda files, path: files.examine(disk(path, format="qcow2")),
    "identity": lambda files, path: files.identity(path),
    "used_by": lambda files, path: files.used_by((path,), (), locks=True),
    "owner_of": lambda files, path: files.owner_of(path),
    "readable": lambda files, path: files.readable(path),
    "taken_for_local": lambda files, path: shared_folders.taken_for_local((path,), Path("/none")),
}


@pytest.mark.parametrize("name", ASKED_IN_CHECKS)
async def test_a_look_ends_before_whoever_waits_for_the_check_leaves(
    name: str, dead: Dead, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit of a change is another one, and is not reached here."""
    path = f"{dead.dead}/instances/disk"
    for module in (storage, owners, reach, shared_folders):
        monkeypatch.setattr(module, "LOOK_S", 0.05, raising=False)
    with pytest.raises(StorageSilent, match=dead.dead) as silent:
        async with asyncio.timeout(5):
            await ASKED_IN_CHECKS[name](FileStorage(f"{dead.dead}/instances"), path)
    assert silent.value.fix
    assert mounts.LOOK_S + storage._DROP_S + reach.LOOK_S * len(reach._LANES) < CHECK_LONGEST_S


async def test_many_looks_in_a_row_at_a_dead_file_system_take_little_longer_than_one(
    dead: Dead, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something hangs there already: an audit asks about each path of each VM."""
    monkeypatch.setattr(storage, "LOOK_S", 0.2)
    monkeypatch.setattr(mounts, "HURRY_S", 0.01)
    files = FileStorage(dead.healthy)
    for limit in ("0.2", "0.01", "0.01"):
        with pytest.raises(StorageSilent, match=f"no answer within {limit} s"):
            await files.tokens(f"{dead.dead}/disk")
    dead.answers.set()
    async with asyncio.timeout(10):
        while threads._Alone.left:  # noqa: ASYNC110 - a thread's end tells nobody
            await asyncio.sleep(0.01)
    dead.answers.clear()
    with pytest.raises(StorageSilent, match=r"no answer within 0\.2 s"):
        await files.tokens(f"{dead.dead}/disk")


async def test_an_error_of_a_file_system_is_not_taken_for_a_path_to_nothing(failing: str, root: Path) -> None:
    files, wanted = FileStorage(root), str(root / "disk")
    (root / "disk").touch()
    await files.leave_token(wanted, "t1")
    claims = (others(f"{failing}/disk"), others(f"{failing}/link"))
    says = [f"perhaps another VM: {claim.path} does not answer" for claim in claims]
    assert list((await files.used_by((wanted,), claims, perhaps=True))[wanted]) == says
    assert list(await files.named_by("disk", "t1", claims, perhaps=True)) == says
    for look in (files.sight(f"{failing}/disk", "t1"), files.identity(f"{failing}/disk")):
        with pytest.raises(StorageSilent, match=r"Input/output error"):
            await look
    with pytest.raises(StorageSilent, match=r"Input/output error"):
        await files.used_by((f"{failing}/disk",), ())


@pytest.mark.parametrize("asked", ["link/disk", "link/vm/disk", "file"])
async def test_one_behind_a_symbolic_link_is_known_once_it_was_followed(
    asked: str, dead: Dead, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "MOST_LEFT", 2)
    files = FileStorage(root)
    (Path(dead.healthy) / "link").symlink_to(dead.dead)
    (Path(dead.healthy) / "file").symlink_to(f"{dead.dead}/disk")
    dead.answers.set()
    for name in ("link", "file"):
        await files.owner_of(f"{dead.healthy}/{name}")
    dead.answers.clear()
    for words in ("no answer", "no answer", "hang already"):
        with pytest.raises(Temporary, match=words), dead.soon_given_up():
            await files.owner_of(f"{dead.healthy}/{asked}")
    assert await files.owner_of(dead.healthy) is not None
    assert await files.owner_of(f"{dead.healthy}/disk") is None


def test_where_a_path_is_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mountinfo").write_text(
        "21 1 8:1 / / rw - ext4 /dev/sda rw\n"
        "22 21 0:30 / /srv/a\\040b rw shared:1 - nfs4 server:/x rw\n"
        "23 21 0:31 / /srv rw - nfs4 server:/hidden rw\n"
        "24 21 0:32 / /srv rw - nfs4 server:/seen rw\n"
    )
    monkeypatch.setattr(mounts, "_MOUNTS", tmp_path / "mountinfo")
    devices = {
        "/": "8:1",
        "/srv": "0:32",
        "/srvx": "8:1",
        "/srv/c/d": "0:32",
        "/srv/a b/c": "0:30",
        "/srv/../e": "8:1",
    }
    assert {path: mounts.mount_of(path).device for path in devices} == devices
    (tmp_path / "mountinfo").unlink()
    assert mounts.mount_of("/srv") == mounts.NOWHERE
