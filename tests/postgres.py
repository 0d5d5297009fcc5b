"""A PostgreSQL server of one's own: empty databases for tests, and a server that can be stopped and started.

Nothing of it outlives the tests, however they end: the kernel stops the server with the process that started it, a
shell that waits for the same removes its files. It runs as `postgres` where the tests run as root, whom PostgreSQL
refuses. (pytest-postgresql does neither.)
"""

from __future__ import annotations

import itertools
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
import pytest

# what is lost in a power cut is lost: the machine's disk is not what is tested
SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "timezone": "Asia/Kolkata",  # nothing may depend on it
}


def _programs() -> Path | None:
    """Where the newest server is: Debian keeps it out of PATH."""
    installed = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    found = sorted((p.parent for p in installed), key=lambda p: [int(n) for n in re.findall(r"\d+", str(p))])
    on_path = shutil.which("initdb")
    return found[-1] if found else Path(on_path).resolve().parent if on_path else None


class Postgres:
    """One server. Its databases sort names as people do, not as bytes: so do those that Debian makes."""

    def __init__(self) -> None:
        programs = _programs()
        if programs is None:
            pytest.fail("PostgreSQL is not installed (Debian: apt-get install postgresql)")
        self._programs = programs
        self.folder = Path(tempfile.mkdtemp(prefix="sterna-postgres-"))
        self._tidy = subprocess.Popen(
            ["sh", "-c", 'cat; rm -rf "$0"', self.folder], stdin=subprocess.PIPE, start_new_session=True
        )
        self._user: list[str] = []
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
            self._user = ["--reuid", str(owner.pw_uid), "--regid", str(owner.pw_gid), "--clear-groups"]
        self._server: subprocess.Popen[bytes] | None = None
        self._names = (f"test{n}" for n in itertools.count(1))
        flags = ["--no-sync", "--auth=trust", "--username=sterna", "--encoding=UTF8", "--locale=C.UTF-8"]
        flags += ["--locale-provider=icu", "--icu-locale=en-US"]
        self._run("initdb", *flags, "-D", str(self.folder / "data"))

    def _command(self, program: str, *arguments: str) -> list[str]:
        # QUIT: "immediate shutdown", which no client can hold up
        return ["setpriv", *self._user, "--pdeathsig", "QUIT", str(self._programs / program), *arguments]

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            self._command(program, *arguments), capture_output=True, text=True, cwd=self.folder, check=False
        )
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """Returns when it answers."""
        settings = [word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}")]
        command = self._command("postgres", "-D", "data", "-k", str(self.folder), *settings)
        with (self.folder / "log").open("ab") as log:
            self._server = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        until = time.monotonic() + 60
        while True:
            try:
                return self.execute("SELECT 1")
            except psycopg.OperationalError:
                if self._server.poll() is not None or time.monotonic() > until:
                    pytest.fail(f"PostgreSQL does not start:\n{(self.folder / 'log').read_text()}")
                time.sleep(0.02)

    def stop(self) -> None:
        """Clients are cut off."""
        if self._server is not None:
            self._server.send_signal(signal.SIGINT)
            assert self._server.wait(60) == 0
            self._server = None

    def freeze(self) -> None:
        """The server and its backends stand still; what the kernel does for them goes on."""
        for process in self._processes():
            os.kill(process, signal.SIGSTOP)

    def thaw(self) -> None:
        """They go on."""
        for process in self._processes():
            os.kill(process, signal.SIGCONT)

    def _processes(self) -> list[int]:
        assert self._server is not None
        server = self._server.pid
        children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        return [server, *map(int, children)]  # the server first: no new backends while the others are stopped

    def end(self) -> None:
        """Stop it and remove its files."""
        self.stop()
        self._tidy.communicate()

    def execute(self, *statements: str, database: str = "postgres") -> None:
        """As the database's superuser."""
        with psycopg.connect(host=str(self.folder), user="sterna", dbname=database, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    def url(self, database: str, user: str = "sterna") -> str:
        """In the form of the controller's setting `database`."""
        return f"postgresql+psycopg://{user}@/{database}?host={self.folder}"

    def database(self, options: str = "") -> str:
        """The URL of a new, empty database."""
        name = next(self._names)
        self.execute(f"CREATE DATABASE {name} {options}")
        return self.url(name)

    def schema(self) -> str:
        """The URL of a new, empty schema: quicker to make, as good where the database itself does not matter."""
        name = next(self._names)
        self.execute(f"CREATE SCHEMA {name}")
        return f"{self.url('postgres')}&options=-csearch_path%3D{name}"
