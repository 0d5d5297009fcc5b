"""Running a command that ends with the right to run it, and with this process: see `tether.py`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence

from sterna.domain.errors import Permanent, Temporary
from sterna.kit import tether
from sterna.kit.command import KILLED_S, Finished
from sterna.kit.environment import clean_environment

SAY_S = 0.5
"""How often the command's tether is sent the time until which it may run."""


async def run_tethered(argv: Sequence[str], *, limit_s: float, right: Callable[[], float]) -> Finished:
    """Run `argv` to its end. It is killed, with its children, after `limit_s` seconds, when the calling task is
    cancelled, when this process dies, and when `right` (seconds from now for which it may run) is over: also if
    this process hangs then.

    Raises Temporary when the limit is over, Permanent if there is no such program, OSError if it cannot be run.
    """
    reads, writes = os.pipe()
    try:
        _say(writes, right)
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(tether.__file__), str(reads), *argv),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=clean_environment(),
                pass_fds=(reads,),
                start_new_session=True,
            )
        finally:
            os.close(reads)
        saying = asyncio.create_task(_say_again(writes, right), name="tether")
        try:
            return await _ended(process, argv[0], limit_s)
        finally:
            saying.cancel()
            await asyncio.gather(saying, return_exceptions=True)
    finally:
        os.close(writes)


def _say(writes: int, right: Callable[[], float]) -> None:
    """Until when it may run. A pipe that is full or closed belongs to a tether that hangs or has ended."""
    with contextlib.suppress(BlockingIOError, BrokenPipeError):
        os.write(writes, f"{time.monotonic() + right():.3f}\n".encode())


async def _say_again(writes: int, right: Callable[[], float]) -> None:
    os.set_blocking(writes, False)
    while True:
        await asyncio.sleep(SAY_S)
        _say(writes, right)


async def _ended(process: asyncio.subprocess.Process, name: str, limit_s: float) -> Finished:
    complete = False
    try:
        async with asyncio.timeout(limit_s):
            out, err = await process.communicate()
        complete = True
    except TimeoutError:
        raise Temporary(f"`{name}` gave no answer within {limit_s:g} s") from None
    finally:
        if not complete:  # something of the group still has the pipes
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(KILLED_S):
                    await process.wait()
    ended = Finished(process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace"))
    if ended.code == tether.NOT_BEGUN and ended.err.startswith(tether.MARK):
        number = int(ended.err.removeprefix(tether.MARK))
        if isinstance(error := OSError(number, os.strerror(number)), FileNotFoundError):
            raise Permanent(f"there is no `{name}` on this host", fix=f"install the package with {name}")
        raise error
    return ended
