"""Sets of Linux namespaces, each with its own PID 1, and ways to run something inside one.

Killing a set's PID 1 kills everything in it and in the sets nested in it: the kernel does the cleaning up. Knows
nothing about hosts or guests.
"""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sterna.lab.errors import LabError

CLONE_NEWNET = 0x40000000
ENTER = ("--mount", "--uts", "--ipc", "--net", "--pid")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NOT_INHERITED = ("LIBVIRT_DEFAULT_URI", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "NOTIFY_SOCKET")
START_SECONDS = 10.0
DIE_SECONDS = 20.0
MARK = "sterna-lab"


@dataclass(frozen=True)
class ProcessId:
    """A process that cannot be confused with a later one that got the same number."""

    pid: int
    started: int
    """Clock ticks after the machine's boot."""
    boot: str

    @classmethod
    def of(cls, pid: int) -> "ProcessId":
        """The identity of a running process; raises LabError when there is none."""
        started = _started(pid)
        if started is None:
            raise LabError(f"process {pid} is gone")
        return cls(pid, started, _boot_id())

    @property
    def alive(self) -> bool:
        """Whether this very process is still there (a zombie is not, one that is dying is)."""
        return self.boot == _boot_id() and _started(self.pid) == self.started

    @property
    def well(self) -> bool:
        """Whether it is there and not dying: a PID 1 that was killed waits for all in its namespaces to end."""
        try:
            return self.alive and _command_line(self.pid) != [""]
        except OSError:
            return False


@dataclass(frozen=True)
class Namespaces:
    """One set of net, mount, PID, UTS and IPC namespaces, named by the machine's PID of its PID 1."""

    init: ProcessId

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs `argv` inside; the command dies when the process started with it is killed."""
        return [*self._enter(), "setpriv", "--pdeathsig", "KILL", "--", *argv]

    def interactive_command(self, argv: Sequence[str]) -> list[str]:
        """Like `command`, with the lab's search path whatever the environment."""
        return self.command(["env", f"PATH={PATH}", "HOME=/root", *argv])

    def _enter(self) -> list[str]:
        return ["nsenter", "--target", str(self.init.pid), *ENTER, "--"]

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        timeout: float = 60.0,
        stdin: str | None = None,
        extra_environment: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command inside and waits for it, `timeout` seconds at most.

        Raises LabError with the command's own words when `check` and it fails, or when it takes too long.
        """
        try:
            done = subprocess.run(
                self.command(argv),
                input="" if stdin is None else stdin,
                env=environment(extra_environment),
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise LabError(f"`{' '.join(argv)}` took more than {timeout:g} s") from None
        if check and done.returncode != 0:
            words = (done.stderr.strip() or done.stdout.strip())[-2000:]
            raise LabError(f"`{' '.join(argv)}` failed with {done.returncode}: {words}")
        return done

    def popen(self, argv: Sequence[str]) -> subprocess.Popen[str]:
        """Starts a command inside, with pipes for output; the caller waits for it. Killing it kills the command."""
        return subprocess.Popen(
            self.command(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(None),
        )

    def detach(self, argv: Sequence[str], log: Path, pass_fds: Sequence[int] = ()) -> None:
        """Starts a command inside that goes on without this process; its output is appended to `log`."""
        with log.open("ab") as output:
            subprocess.run(
                [*self._enter(), "sh", "-c", 'setsid "$@" & ', MARK, *argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=pass_fds,
                env=environment(None),
                timeout=30,
                check=True,
            )

    def processes(self) -> Iterator[tuple[int, list[str]]]:
        """The machine's PIDs and the command lines of what runs in this set, not in sets nested in it."""
        try:
            here = os.readlink(f"/proc/{self.init.pid}/ns/pid")
        except OSError:
            return
        for pid in _all_pids():
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/ns/pid") == here and (argv := _command_line(pid)):
                    yield pid, argv

    def pid_seen_from(self, level_up: int = 1) -> int:
        """The PID of PID 1 as the set `level_up` levels above sees it."""
        for line in Path(f"/proc/{self.init.pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1 - level_up])
        raise LabError("this kernel does not report NSpid")

    def open_socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket of this process that lives in this set's network."""
        opened: list[socket.socket] = []
        failures: list[OSError] = []

        def visit() -> None:
            try:
                with Path(f"/proc/{self.init.pid}/ns/net").open() as net:
                    libc = ctypes.CDLL(None, use_errno=True)
                    if libc.setns(net.fileno(), CLONE_NEWNET) != 0:
                        raise OSError(ctypes.get_errno(), "setns")
                opened.append(socket.socket(family, kind, protocol))
            except OSError as failure:
                failures.append(failure)

        visitor = threading.Thread(target=visit, name="other-network")
        visitor.start()
        visitor.join()
        if failures:
            raise LabError(f"cannot open a socket in the lab's network: {failures[0]}")
        return opened[0]


def environment(extra: dict[str, str] | None) -> dict[str, str]:
    """What a command in the lab sees of this process's environment."""
    kept = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
    return kept | {"PATH": PATH, "HOME": "/root", "LC_ALL": "C.UTF-8"} | (extra or {})


def start_outer(label: Sequence[str], owned: bool, log: Path) -> tuple[Namespaces, subprocess.Popen[bytes]]:
    """Starts a new set of namespaces. `label` shows in its command line, so that it can be found again.

    An `owned` set ends when the returned process's stdin is closed, so at the latest when this process ends,
    however it ends. (A pipe rather than PR_SET_PDEATHSIG, which goes off when the calling *thread* ends.)
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            _unshare(label, "exec cat >/dev/null" if owned else "exec sleep infinity"),
            stdin=subprocess.PIPE if owned else subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=environment(None),
        )
    return Namespaces(_await_init(label, log)), process


def start_nested(label: Sequence[str], inside: Namespaces, log: Path) -> Namespaces:
    """Starts a set of namespaces within another; it ends with that one."""
    inside.detach(_unshare(label, "exec sleep infinity"), log)
    return Namespaces(_await_init(label, log))


def _unshare(label: Sequence[str], wait: str) -> list[str]:
    argv = ["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc"]
    return [*argv, "--", "tini", "--", "sh", "-c", wait, MARK, *label]


def _await_init(label: Sequence[str], log: Path) -> ProcessId:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if found := find(label):
            return found[0]
        if b"unshare: " in log.read_bytes():
            break
        time.sleep(0.01)
    words = log.read_text(errors="replace").strip()[-500:]
    raise LabError(f"the kernel refuses namespaces (is this a container without the rights?): {words}")


def find(label: Sequence[str]) -> list[ProcessId]:
    """The PID 1 of every set, outer or nested, that was started with `label` (of a lost lab, perhaps)."""
    tail = [MARK, *label]
    found = []
    for pid in _all_pids():
        with contextlib.suppress(OSError, LabError):
            argv = _command_line(pid)
            if argv[:1] == ["tini"] and argv[-len(tail) :] == tail:
                found.append(ProcessId.of(pid))
    return found


def end(init: ProcessId) -> None:
    """Kills a set with all that is in it and waits until all of it is gone (if it was not already)."""
    with contextlib.suppress(ProcessLookupError):
        if init.alive:
            os.kill(init.pid, signal.SIGKILL)
    deadline = time.monotonic() + DIE_SECONDS
    while init.alive:
        if time.monotonic() > deadline:
            raise LabError(f"process {init.pid} of the lab does not die (a process of it hangs in the kernel?)")
        time.sleep(0.01)


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _command_line(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")


def parent_of(pid: int) -> int | None:
    """The machine's PID of its parent; None when it is gone."""
    try:
        return int(_stat_fields(pid)[1])
    except OSError:
        return None


def state_of(pid: int, thread: int) -> str | None:
    """What a thread does, as the kernel's letter (R, S, D, T: stopped, ...); None when it is gone or a zombie."""
    try:
        state = _stat_fields(f"{pid}/task/{thread}")[0]
    except OSError:
        return None
    return None if state in {"Z", "X"} else state


def _stat_fields(process: int | str) -> list[str]:
    """The fields of /proc/PID/stat after the name: state, parent, ..."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()


def _started(pid: int) -> int | None:
    try:
        fields = _stat_fields(pid)
    except OSError:
        return None
    return None if fields[0] in {"Z", "X"} else int(fields[19])


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
