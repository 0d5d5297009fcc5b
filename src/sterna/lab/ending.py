"""Takes labs down, also half-made and lost ones, and keeps two from being made in one folder at a time.

Called by `Lab` and the command line. A lab that runs is found by its command line even when its record is lost.
"""

import fcntl
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sterna.lab import namespaces
from sterna.lab.errors import LabError
from sterna.lab.namespaces import ProcessId
from sterna.lab.record import load_record

OWN_FILES = (
    "hosts",
    "shared",
    "iscsi",
    "nats",
    "nats.conf",
    "bus",
    "bus.conf",
    "ca",
    "controller*-identity",
    "logs",
    "controller*.toml",
    "controller.db*",
    "lab.json",
)
DISKS = ("shared", "iscsi", "nats", "hosts/*/instances", "hosts/*/openvswitch")
"""What `down` deletes; logs and journals stay for whoever wants to know what happened, until the next `up`."""

started: dict[int, subprocess.Popen[bytes]] = {}
"""The `unshare` of each lab that this process started, by the machine's PID of the lab's PID 1."""


def take_down(state_dir: Path | str) -> bool:
    """Takes down whatever lab there is in `state_dir`, half-made ones included. False when there was none."""
    state = Path(state_dir).absolute()
    if not state.is_dir():
        return False
    with locked(state):
        there_was = (state / "lab.json").exists() or bool(lost_labs(state))
        end_lab(state)
    return there_was


def lost_labs(state: Path) -> list[ProcessId]:
    """The PID 1 of each lab of this state folder that runs, recorded or not."""
    return namespaces.find(["lab", str(state)])


def end_lab(state: Path) -> None:
    """Kills whatever lab of this state folder runs, waits for the end of dying ones, and deletes its disks."""
    for init in [*lost_labs(state), *_recorded(state)]:
        namespaces.end(init)
        if (process := started.pop(init.pid, None)) is not None:
            if process.stdin:
                process.stdin.close()
            process.wait(timeout=20)
    _delete(state, (*DISKS, "lab.json"))


def clear_state(state: Path) -> None:
    """Makes the state folder fit for a new lab: nothing runs, nothing of an earlier one is left."""
    end_lab(state)
    _delete(state, OWN_FILES)


@contextmanager
def locked(state: Path, name: str = "lock") -> Iterator[None]:
    """One `up` or `down` of a state folder at a time."""
    with (state / name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _recorded(state: Path) -> list[ProcessId]:
    try:
        record = load_record(state)
    except LabError:
        return []
    if record is None:
        return []
    return [identity for process in record.processes() if (identity := process.identity).alive]


def _delete(state: Path, patterns: Sequence[str]) -> None:
    for pattern in patterns:
        for path in state.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
