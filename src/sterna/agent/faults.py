"""The test hook: a file that makes this agent fail, hang or die at a named step. Off unless `test.fault_file` is
set. The file, read again at every step, so that a test can change its mind:

    {"rules": [{"step": "P9", "moment": "before", "action": "permanent"}]}

`step` is a row of the protocol or a step's name; `moment` is `before` (the intent is journaled, nothing done) or
`after` (done, not journaled); `action` is `permanent`, `temporary`, `unknown`, `hang` or `kill` (SIGKILL to
itself).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

from sterna.domain.errors import Permanent, Temporary, Unknown

ERRORS = {"permanent": Permanent, "temporary": Temporary, "unknown": Unknown}


class FaultFile:
    """The runner's fault hook over a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def fault_hook(self, name: str, row: str, moment: str) -> None:
        """Obey the first rule that names this step and moment; no file, no rules.

        Raises what the rule asks for.
        """
        try:
            rules = json.loads(self._read())["rules"]
        except (OSError, ValueError, KeyError):
            return
        for rule in rules:
            if rule.get("step") in (name, row) and rule.get("moment", "before") == moment:
                await self._act(str(rule.get("action", "permanent")), f"forced at {row or name} ({moment})")

    def _read(self) -> str:
        """Raises PermissionError where another user may write it, who could then kill this agent."""
        with self._path.open() as file:
            about = os.fstat(file.fileno())
            if about.st_uid not in (0, os.geteuid()) or about.st_mode & 0o022:
                raise PermissionError(f"{self._path} may be written by others")
            return file.read()

    async def _act(self, action: str, text: str) -> None:
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if action == "hang":
            await asyncio.Event().wait()
        raise ERRORS.get(action, Permanent)(text, fix="remove the test's fault file")
