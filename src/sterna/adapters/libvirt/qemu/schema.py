"""The QMP schema of a QEMU binary."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import threading
import time
from typing import Any, NamedTuple

import structlog

from sterna.domain.errors import Temporary
from sterna.kit.environment import clean_environment
from sterna.kit.mounts import on_disk
from sterna.kit.threads import in_thread

log = structlog.get_logger(__name__)

_ASK_QEMU_S = 20.0
"""QEMU starts in a tenth of a second; on a host that swaps, in some."""
_AGAIN_S = 3600.0
"""One that hung is asked again after this: the host may have been slow for a moment."""
_LOOK_S = 1.0
"""A look at a file takes microseconds. On a dead NFS server it never ends."""
_ASK = b'{"execute": "qmp_capabilities"}\n{"execute": "query-qmp-schema"}\n'
"""Without a `quit`: QEMU obeys it before all of its schema is out."""


class _Binary(NamedTuple):
    path: str
    changed: float


class Schemas:
    """The schemas of this host's QEMUs. Each binary is asked until it has answered, while the host is described."""

    def __init__(self) -> None:
        self._known: dict[_Binary, bool | None] = {}
        self._asking: dict[_Binary, asyncio.Task[None]] = {}
        self._hung: dict[_Binary, float] = {}
        """When, by the monotonic clock."""

    async def has_zstd(self, emulator: str) -> bool | None:
        """None where QEMU does not say, and as long as it has not: it is never waited for."""
        try:
            changed = await on_disk(lambda: os.stat(emulator).st_mtime, emulator, limit_s=_LOOK_S)
        except (OSError, Temporary):
            return None
        binary = _Binary(emulator, changed)
        if binary in self._hung and time.monotonic() - self._hung[binary] >= _AGAIN_S:
            del self._hung[binary], self._known[binary]
        if binary not in self._known and binary not in self._asking:
            self._asking[binary] = asyncio.create_task(self._ask(binary), name="qemu schema")
        return self._known.get(binary)

    async def answered(self) -> None:
        """Returns once no binary is being asked."""
        if self._asking:
            await asyncio.wait(self._asking.values(), timeout=2 * _ASK_QEMU_S + _LOOK_S)

    async def _ask(self, binary: _Binary) -> None:
        """A binary that hangs is remembered as unknown for an hour. One that exits without an answer is asked again
        the next time."""
        emulator = binary.path
        try:
            self._known[binary] = await in_thread(
                lambda: _has_zstd(emulator), name="sterna-ask-qemu", of=emulator, limit_s=2 * _ASK_QEMU_S
            )
        except TimeoutError:  # it was killed, or cannot be
            self._known[binary], self._hung[binary] = None, time.monotonic()
        except (OSError, ValueError, Temporary) as error:
            log.debug("QEMU does not report its capabilities", emulator=emulator, why=str(error))
        finally:
            del self._asking[binary]


def _has_zstd(emulator: str) -> bool:
    """Raises TimeoutError where it hangs, OSError, ValueError where it exits without an answer."""
    # the multifd compression: names of types are numbers there, so it is known by its members
    choices = [set(e.get("values", ())) for e in _schema(emulator) if e.get("meta-type") == "enum"]
    return any({"none", "zlib", "zstd"} <= values for values in choices)


def _schema(emulator: str) -> list[dict[str, Any]]:
    """Its own QMP schema, of a QEMU without a machine. Raises TimeoutError where it hangs, OSError, ValueError."""
    argv = [emulator, "-machine", "none", "-nodefaults", "-display", "none", "-S", "-qmp", "stdio"]
    pipe, none = subprocess.PIPE, subprocess.DEVNULL
    environment = clean_environment()
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=none, bufsize=0, env=environment) as qemu:
        assert qemu.stdin is not None
        assert qemu.stdout is not None
        deadline = time.monotonic() + _ASK_QEMU_S
        late = threading.Timer(_ASK_QEMU_S, qemu.kill)
        late.start()
        try:
            qemu.stdin.write(_ASK)
            with open(qemu.stdout.fileno(), "rb", closefd=False) as stdout:
                for line in stdout:
                    answer = json.loads(line).get("return")
                    if isinstance(answer, list):
                        return answer
        finally:
            late.cancel()
            qemu.kill()
    if time.monotonic() >= deadline:
        raise TimeoutError(f"{emulator} gave no schema within {_ASK_QEMU_S:g} s")
    raise ValueError(f"{emulator} ended without its schema")
