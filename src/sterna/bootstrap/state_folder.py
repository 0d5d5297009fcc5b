"""The folder of an agent's journal: it has one agent, and is closed to everybody else."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from sterna.domain.errors import BadRequest, Conflict

log = structlog.get_logger(__name__)

_OWN = 0o700
"""Closed to others: a journal names every VM and volume, and decides what an agent undoes."""


def _tighten(folder: Path) -> None:
    """Take away what others may do with the folder and its files, and log what was found. Raises OSError."""
    for path in (folder, *sorted(folder.iterdir())):
        found = path.lstat().st_mode
        if not stat.S_ISLNK(found) and (others := stat.S_IMODE(found) & ~_OWN):
            path.chmod(stat.S_IMODE(found) & _OWN)
            was = f"{stat.S_IMODE(found):o}"
            log.warning("state_dir was open to others; closed", path=str(path), mode=was, others=f"{others:o}")


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: two agents on one journal would be two drivers of the same migrations.

    The folder and what is in it are closed to everybody else. The kernel releases the lock when the process dies.

    Raises Conflict if another agent has it, BadRequest if nothing can be kept there.
    """
    try:
        folder.mkdir(mode=_OWN, parents=True, exist_ok=True)
        _tighten(folder)
        lock = os.fdopen(os.open(folder / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "a")
    except OSError as error:
        fix = "set a folder on a local disk that this agent may write to"
        raise BadRequest(f"state_dir {folder} cannot be used: {error.strerror or error}", fix=fix) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fix = "stop it first, or set another state_dir for this one"
            raise Conflict(f"another sterna agent already works in {folder}", fix=fix) from None
        yield
