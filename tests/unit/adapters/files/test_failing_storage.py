"""A file system that answers with an error: whatever is asked of its files ends with one of Sterna's own errors.

Steps after the switch-over, and those of a rollback, know StorageSilent and Permanent, and go on without the file.
Any other error they try again, for as long as the file system fails.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sterna.adapters.files.storage import FileStorage
from sterna.domain.claims import Claim
from sterna.domain.errors import Conflict, Permanent, Refused, StorageSilent
from sterna.domain.files import Created
from sterna.domain.model import Disk, DiskKind

UUID = "11111111-1111-4111-8111-111111111111"
STALE, READ_ONLY = (errno.ESTALE, errno.EIO, errno.EACCES), (errno.EROFS, errno.ENOSPC)
CHANGES = ("unlink", "rmdir", "mkdir", "chmod", "chown", "fsync", "rename")
LOOKS = ("stat", "lstat", "listdir", "scandir", "readlink", "access", "statvfs", "open", *CHANGES)
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Failing:
    """All of `os` below one folder, also by a file descriptor of a folder there."""

    def __init__(self, folder: Path, patched: pytest.MonkeyPatch) -> None:
        self._folder, self._patched = str(folder), patched
        self._readlink = os.readlink

    def begin(self, number: int) -> None:
        names = CHANGES if number in READ_ONLY else LOOKS
        for name in {*names, "open"}:
            self._patched.setattr(os, name, self._around(name, getattr(os, name), number))

    def _around(self, name: str, real: Callable[..., Any], number: int) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            looks = name == "open" and not (len(given) > 1 and given[1] & WRITES)
            if self._is_there(given[0], named.get("dir_fd")) and not (looks and number in READ_ONLY):
                raise OSError(number, os.strerror(number), str(given[0]))
            return real(*given, **named)

        return call

    def _is_there(self, place: Any, folder: int | None) -> bool:
        fd = folder if folder is not None else place
        path = self._readlink(f"/proc/self/fd/{fd}") if isinstance(fd, int) else os.fsdecode(place)
        return path == self._folder or path.startswith(f"{self._folder}/")


@pytest.fixture
def failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Failing]:
    (tmp_path / "nas" / UUID).mkdir(parents=True)
    (tmp_path / "nas" / UUID / "disk").write_bytes(b"data")
    (tmp_path / "nas" / UUID / ".sterna-t1").write_text("t1")
    yield Failing(tmp_path / "nas", monkeypatch)
    monkeypatch.undo()


def disk(path: str) -> Disk:
    return Disk(
        target="vda",
        kind=DiskKind.FILE,
        path=path,
        format="raw",
        capacity_bytes=1 << 20,
        allocation_bytes=1 << 20,
        local=True,
    )


async def held(files: FileStorage, path: str) -> None:
    async with files.held(path):
        pass


ASKED: dict[str, Callable[[FileStorage, str], Any]] = {
    "check_targets": lambda files, path: files.check_targets((disk(path),)),
    "check_sources": lambda files, path: files.check_sources((disk(path),)),
    "plan_targets": lambda files, path: files.plan_targets(UUID, (disk(path),)),
    "reserve_targets": lambda files, path: files.reserve_targets(
        Created(files=(path,), directories=(os.path.dirname(path),)), "m1"
    ),
    "reserved": lambda files, path: files.reserved(Created(files=(path,)), "m1"),
    "create_targets": lambda files, path: files.create_targets((disk(path),), {path: "1:2:3"}),
    "remove": lambda files, path: files.remove(Created(files=(path,), directories=(os.path.dirname(path),))),
    "directories_of": lambda files, path: files.directories_of(UUID),
    "is_empty": lambda files, path: files.is_empty(os.path.dirname(path)),
    "leave_token": lambda files, path: files.leave_token(path, "t2"),
    "sight": lambda files, path: files.sight(path, "t1"),
    "held": held,
    "digest": lambda files, path: files.digest(path),
    "read": lambda files, path: files.read(path, 0, 4),
    "write": lambda files, path: files.write(path, 0, b"data"),
    "named_by": lambda files, path: files.named_by("disk", "t1", (Claim(owner="VM a", path=path),)),
    "drop_token": lambda files, path: files.drop_token(path, "t1"),
    "tokens": lambda files, path: files.tokens(path),
    "sweep_tokens": lambda files, path: files.sweep_tokens(path, "t", frozenset()),
    "owner_of": lambda files, path: files.owner_of(path),
    "readable": lambda files, path: files.readable(path),
    "data_bytes": lambda files, path: files.data_bytes(disk(path)),
    "examine": lambda files, path: files.examine(disk(path)),
    "identity": lambda files, path: files.identity(path),
    "used_by": lambda files, path: files.used_by(
        (path,), (Claim(owner="VM a", path=path),), locks=True, perhaps=True
    ),
}


def test_all_of_the_port_is_asked() -> None:
    methods = {name for name in vars(FileStorage) if not name.startswith("_")}
    assert methods - {"sees_token"} == set(ASKED)  # that is `sight`


@pytest.mark.parametrize("number", [*STALE, *READ_ONLY], ids=errno.errorcode.get)
@pytest.mark.parametrize("name", ASKED)
async def test_a_file_system_that_fails_is_an_error_that_steps_know(
    name: str, number: int, failing: Failing, tmp_path: Path
) -> None:
    files = FileStorage(tmp_path / "nas")
    failing.begin(number)
    try:
        await ASKED[name](files, str(tmp_path / "nas" / UUID / "disk"))
    except (StorageSilent, Permanent, Conflict, Refused) as error:
        assert str(tmp_path / "nas") in error.message or isinstance(error, Refused)
