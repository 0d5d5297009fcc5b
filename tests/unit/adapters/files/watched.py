"""Which calls on files run in the thread of the event loop."""

import builtins
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CALLS = ("stat", "lstat", "open", "access", "statvfs", "listdir", "scandir", "mkdir", "unlink", "rmdir", "chmod")


class Watch:
    """Which calls on files below a folder ran in the loop's thread."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.loop = str(folder), threading.get_ident()
        self.on_loop: list[str] = []
        self.elsewhere = 0
        self.opened: set[int] = set()
        for name in CALLS:
            patch.setattr(os, name, self.watched(name, getattr(os, name)))
        patch.setattr(builtins, "open", self.watched("open", builtins.open))
        patch.setattr(os, "close", self.closing(os.close))

    def note(self, name: str, what: object) -> None:
        if threading.get_ident() == self.loop:
            self.on_loop.append(f"{name} {what}")
        else:
            self.elsewhere += 1

    def watched(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            path = str(given[0] if given else "")
            below = named.get("dir_fd") is not None or path.startswith(self.folder) or self.again(path)
            if below:
                self.note(name, given[0])
            answer = real(*given, **named)
            if below and isinstance(answer, int) and name == "open":
                self.opened.add(answer)
            return answer

        return call

    def again(self, path: str) -> bool:
        """Is it a file that is open already?"""
        begin, _, number = path.rpartition("/")
        return begin == "/proc/self/fd" and int(number) in self.opened

    def closing(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def close(fd: int) -> None:
            if fd in self.opened:
                self.opened.discard(fd)
                self.note("close", fd)
            real(fd)

        return close
