"""Folders and file systems of these tests: watched, dead, failing."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sterna.kit import threads
from tests.unit.adapters.files.dying import Dead
from tests.unit.adapters.files.watched import Watch


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "instances").mkdir()
    return tmp_path / "instances"


@pytest.fixture
def watch(tmp_path: Path, root: Path) -> Iterator[Watch]:
    (root / "shared.qcow2").write_bytes(b"content")
    (root / "uuid-here").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        yield Watch(tmp_path, patch)


@pytest.fixture
async def none_left() -> AsyncIterator[None]:
    """No thread is left alone, before and afterwards."""
    for moment in ("before", "afterwards"):
        async with asyncio.timeout(10):
            while threads._Alone.left:  # noqa: ASYNC110 - a thread's end tells nobody
                await asyncio.sleep(0.01)
        if moment == "before":
            yield


@pytest.fixture
def dead(none_left: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dead]:
    one = Dead(tmp_path, monkeypatch)
    yield one
    one.answers.set()


@pytest.fixture
def failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A soft mount of a server that does not answer: the kernel gives up, with an error."""
    folder = tmp_path / "soft"
    folder.mkdir()
    for name in ("stat", "lstat", "open"):
        real = getattr(os, name)

        def call(path: Any, *given: Any, _real: Callable[..., Any] = real, **named: Any) -> Any:
            if str(path).startswith(f"{folder}/"):
                raise OSError(errno.EIO, "Input/output error")
            return _real(path, *given, **named)

        monkeypatch.setattr(os, name, call)
    return str(folder)
