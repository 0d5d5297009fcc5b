"""No look at a file system on the event loop: a dead NFS server must hold up one thread, not the agent."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sterna.adapters.files.storage import FileStorage
from sterna.adapters.volumes.shared_file import SharedFileVolumes
from sterna.domain.claims import Claim
from sterna.domain.files import Created
from tests.unit.adapters.files.dying import disk, held
from tests.unit.adapters.files.watched import Watch


async def held_in_vain(files: FileStorage, path: str) -> None:
    with contextlib.suppress(ZeroDivisionError):
        async with files.held(path):
            raise ZeroDivisionError


async def copies(files: FileStorage, root: Path) -> None:
    wanted = disk(root / "vm" / "disk"), disk(root / "vm" / "carried", carried=True)
    created = await files.plan_targets("vm", wanted)
    made = await files.reserve_targets(created, "m1")
    await files.create_targets(wanted, made)
    await files.create_targets(wanted[:1], made)
    await files.write(created.files[1], 0, b"piece")
    await files.remove(created)


LOOKS: dict[str, Callable[[FileStorage, Path], Any]] = {
    "check_targets": lambda files, root: files.check_targets((disk(root / "vm" / "disk"),)),
    "check_sources": lambda files, root: files.check_sources((disk(root / "shared.qcow2"),)),
    "copies": copies,
    "remove": lambda files, root: files.remove(Created(directories=(str(root / "uuid-here"),))),
    "directories_of": lambda files, root: files.directories_of("uuid-here"),
    "is_empty": lambda files, root: files.is_empty(str(root / "uuid-here")),
    "leave_token": lambda files, root: files.leave_token(str(root / "shared.qcow2"), "t1"),
    "sees_token": lambda files, root: files.sees_token(str(root / "shared.qcow2"), "t1"),
    "drop_token": lambda files, root: files.drop_token(str(root / "shared.qcow2"), "t1"),
    "tokens": lambda files, root: files.tokens(str(root / "shared.qcow2")),
    "sweep_tokens": lambda files, root: files.sweep_tokens(str(root / "shared.qcow2"), "t", frozenset()),
    "held": lambda files, root: held(files, str(root / "shared.qcow2")),
    "held in vain": lambda files, root: held_in_vain(files, str(root / "shared.qcow2")),
    "digest": lambda files, root: files.digest(str(root / "shared.qcow2")),
    "read": lambda files, root: files.read(str(root / "shared.qcow2"), 0, 4),
    "named_by": lambda files, root: files.named_by("shared.qcow2", "t1", (claim(root),)),
    "examine": lambda files, root: files.examine(disk(root / "shared.qcow2")),
    "identity": lambda files, root: files.identity(str(root / "shared.qcow2")),
    "used_by": lambda files, root: files.used_by((str(root / "shared.qcow2"),), (claim(root),), locks=True),
    "owner_of": lambda files, root: files.owner_of(str(root / "shared.qcow2")),
    "readable": lambda files, root: files.readable(str(root / "shared.qcow2")),
    "a shared disk": lambda files, root: SharedFileVolumes().check(
        disk(root / "shared.qcow2", local=False), "host1"
    ),
}


def claim(root: Path) -> Claim:
    return Claim(path=str(root / "shared.qcow2"), owner="another VM")


@pytest.mark.parametrize("name", LOOKS)
async def test_files_are_looked_at_in_threads(name: str, watch: Watch, root: Path) -> None:
    await LOOKS[name](FileStorage(root), root)
    assert watch.on_loop == []
    assert watch.elsewhere
