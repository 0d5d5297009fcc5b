"""The real processes of a run: nats-server, the database, `sterna controller`. None outlives the run."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

WITH_US = ("setpriv", "--pdeathsig", "KILL")
"""Before a command: the kernel ends it with this process."""


def free_port() -> int:
    """A TCP port of loopback that nobody has now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Process:
    """A process that can be killed and started again."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._command, self._log = command, log
        self._process: subprocess.Popen[bytes] | None = None
        self._cpu_s = 0.0
        """Of earlier lives."""

    @property
    def runs(self) -> bool:
        """Is it there?"""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Begin."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([*WITH_US, *self._command], stdout=log, stderr=log)

    def kill(self) -> None:
        """As a crash does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """As an operator does."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._cpu_s = self.cpu_s()
        self._process.send_signal(how)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def cpu_s(self) -> float:
        """User and system time of all its lives, but for the last looks before its deaths."""
        if self._process is None:
            return self._cpu_s
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return self._cpu_s
        return self._cpu_s + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mib(self) -> int:
        """Resident now; 0 where it is not there."""
        if self._process is None:
            return 0
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text()
        except OSError:
            return 0
        found = [line for line in status.splitlines() if line.startswith("VmRSS:")]
        return int(found[0].split()[1]) // 1024 if found else 0


@dataclass(frozen=True)
class Settings:
    """Of all controllers of a run."""

    bus_url: str
    database: str
    webhook: str
    preparing: int = 4


def nats_server(folder: Path, port: int) -> Process:
    """The bus."""
    log = folder / "nats.log"
    return Process(["nats-server", "-a", "127.0.0.1", "-p", str(port)], log)


def controller(folder: Path, number: int, settings: Settings) -> tuple[Process, str]:
    """One `sterna controller`, and the socket of its API."""
    api, config = str(folder / f"api{number}.sock"), folder / f"controller{number}.toml"
    config.write_text(
        f'database = "{settings.database}"\n'
        f'[bus]\nurl = "{settings.bus_url}"\n'
        f'[access]\nsocket = "{api}"\n'
        f"[fleet]\nvcpus_per_cpu = 1.0\nkept_memory_mib = 0\npreparing = {settings.preparing}\n"
        f'webhooks = ["{settings.webhook}"]\n'
    )
    command = [sys.executable, "-m", "sterna", "controller", "--config", str(config)]
    return Process(command, folder / f"controller{number}.log"), api
