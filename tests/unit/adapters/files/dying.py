"""A file system that stops answering, and what is asked of it."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sterna.adapters.files import reach, storage
from sterna.adapters.files.storage import FileStorage
from sterna.domain.claims import Claim
from sterna.domain.model import Disk, DiskKind
from sterna.kit import mounts

MIB = 1 << 20


def disk(path: Path | str, **more: object) -> Disk:
    facts: dict[str, object] = {"target": "vda", "kind": DiskKind.FILE, "path": str(path), "format": "raw"}
    facts |= {"capacity_bytes": 64 * MIB, "allocation_bytes": MIB, "local": True}
    return Disk.model_validate(facts | more)


async def held(files: FileStorage, path: str) -> None:
    async with files.held(path) as place:
        assert place is not None


class Dead:
    """A file system whose server does not answer, and one beside it that lives."""

    def __init__(self, tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
        self.answers, self._patch = threading.Event(), patch
        self.dead, self.healthy = str(tmp_path / "dead mount"), str(tmp_path / "healthy")
        (tmp_path / "dead mount").mkdir()
        (tmp_path / "healthy").mkdir()
        self._table = tmp_path / "mountinfo"
        self.mounted(("0:50", self.dead), ("0:51", self.healthy))
        patch.setattr(mounts, "_MOUNTS", self._table)
        patch.setattr(mounts, "_leads_to", {})
        for name in ("stat", "lstat"):
            patch.setattr(os, name, self.hanging(getattr(os, name)))

    def mounted(self, *mounts: tuple[str, str]) -> None:
        """These devices, at these points."""
        table = "21 1 8:1 / / rw - ext4 /dev/sda rw\n"
        for device, point in mounts:
            escaped = point.replace(" ", "\\040")
            table += f"50 21 {device} / {escaped} rw - nfs4 server:/ rw\n"
        self._table.write_text(table)

    @contextlib.contextmanager
    def soon_given_up(self) -> Iterator[None]:
        with self._patch.context() as patch:
            patch.setattr(mounts, "ANSWER_S", 0.05)
            patch.setattr(storage, "LOOK_S", 0.05)
            patch.setattr(reach, "LOOK_S", 0.05)
            yield

    def hanging(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            if str(given[0]).startswith(self.dead):
                assert self.answers.wait(20)
            return real(*given, **named)

        return call


def others(path: str | Path, **more: Any) -> Claim:
    return Claim(path=str(path), owner="another VM", **more)
