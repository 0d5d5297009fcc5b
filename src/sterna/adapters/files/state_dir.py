"""Can the folder of an agent's journal be written? Used by `bootstrap.agent`."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from sterna.kit.threads import Worker

LEAST_BYTES = 4 << 20
"""A migration writes some 40 kB into the journal, and SQLite's log grows to 4 MiB before it is folded in."""
PROBE_BYTES = 64 << 10
LIMIT_S = 2.0
"""A disk that does not take a small file for so long hangs."""


class StateDir:
    """The folder, looked at from a thread of its own: a disk may hang."""

    def __init__(self, folder: Path, *, limit_s: float = LIMIT_S) -> None:
        self._folder = folder
        self._worker = Worker("sterna-state-dir", limit_s=limit_s)

    async def trouble(self) -> str:
        """What keeps the journal from being written; '' for nothing."""
        try:
            return await self._worker.run(self._look)
        except TimeoutError as error:
            return f"the disk of state_dir {self._folder} does not answer: {error}"

    def _look(self) -> str:
        probe = self._folder / ".writable"
        try:
            numbers = os.statvfs(self._folder)
            try:
                with probe.open("wb") as file:
                    file.write(bytes(PROBE_BYTES))
            finally:
                with contextlib.suppress(OSError):
                    probe.unlink()
        except OSError as error:
            return f"state_dir {self._folder} cannot be written: {error.strerror or error}"
        free = (numbers.f_bavail if os.geteuid() else numbers.f_bfree) * numbers.f_frsize
        if free < LEAST_BYTES:
            return f"state_dir {self._folder} is full: {free >> 10} KiB free"
        return ""
