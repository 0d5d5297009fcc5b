"""Running a host's own tools (qemu-img, tgtadm) with a time limit and an exact environment."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sterna.domain.errors import Permanent, Temporary
from sterna.kit.environment import clean_environment

KILLED_S = 5.0
"""A killed process is gone at once, unless it waits in the kernel for storage that is away: it is left behind."""


@dataclass(frozen=True)
class Finished:
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """The tool's own error message."""
        return (self.err.strip() or self.out.strip() or f"exit code {self.code}")[-800:]


@contextlib.contextmanager
def in_memory(content: bytes) -> Iterator[int]:
    """A file descriptor from which a command can read this, at `/dev/fd/N`: it is on no disk and in no argument."""
    fd = os.memfd_create("sterna", os.MFD_CLOEXEC)
    try:
        os.write(fd, content)
        yield fd
    finally:
        os.close(fd)


async def run(
    argv: Sequence[str], *, limit_s: float, env: Mapping[str, str] | None = None, fds: Sequence[int] = ()
) -> Finished:
    """Run `argv` to its end; killed after `limit_s` seconds, or when the calling task is cancelled.

    It inherits `fds`, and of the environment what `clean_environment` passes on, with `env` in it.

    Raises Temporary when the limit is over, Permanent if there is no such program.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=clean_environment(env),
            pass_fds=tuple(fds),
        )
    except FileNotFoundError:
        raise Permanent(
            f"there is no `{argv[0]}` on this host", fix=f"install the package with {argv[0]}"
        ) from None
    try:
        async with asyncio.timeout(limit_s):
            out, err = await process.communicate()
    except TimeoutError:
        raise Temporary(f"`{argv[0]}` gave no answer within {limit_s:g} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(KILLED_S):
                    await process.wait()
    return Finished(process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace"))
