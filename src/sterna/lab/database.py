"""A PostgreSQL server inside a lab, for controllers that share a database.

Its files are in the lab's own /run, a file system in memory: they outlive a kill of the server, never the lab.
It runs as `postgres`, since PostgreSQL refuses root. Called by `Lab` and by fault tests.
"""

import os
import pwd
import re
import time
from collections.abc import Sequence
from pathlib import Path

from sterna.lab.errors import LabError
from sterna.lab.namespaces import Namespaces
from sterna.lab.places import LAB_ADDRESS

PORT = 5432
FOLDER = "/run/postgresql"
DATA = f"{FOLDER}/data"
URL = f"postgresql+psycopg://sterna@{LAB_ADDRESS}:{PORT}/sterna"
"""In the form of the controller's setting `database`."""
READY_SECONDS = 60.0
BEGIN_SECONDS = 2.0
"""From the command to the server's first process; it takes milliseconds."""
INSTALLED = Path("/usr/lib/postgresql")
SETTINGS = {
    "listen_addresses": LAB_ADDRESS,
    "unix_socket_directories": FOLDER,
    "fsync": "off",  # the files are in memory: a kill loses nothing of them, a power cut all
    "shared_buffers": "16MB",
    "max_wal_size": "128MB",
    "min_wal_size": "32MB",
    "timezone": "Asia/Kolkata",  # nothing may depend on it
}


class LabDatabase:
    """The server in the lab's outer namespaces."""

    def __init__(self, outer: Namespaces, log: Path) -> None:
        self._outer = outer
        self._log = log

    def create(self) -> None:
        """Makes the server's files, starts it and makes an empty database. Raises LabError."""
        owner = pwd.getpwnam("postgres")
        self._outer.run(["install", "-d", "-o", str(owner.pw_uid), "-g", str(owner.pw_gid), FOLDER])
        flags = ["--no-sync", "--auth=trust", "--username=sterna", "--encoding=UTF8", "--locale=C.UTF-8"]
        self._outer.run(self.command("initdb", *flags, "-D", DATA), timeout=READY_SECONDS)
        with (Path(f"/proc/{self._outer.init.pid}/root{DATA}") / "pg_hba.conf").open("a") as rules:
            rules.write("host all all samenet trust\n")
        self.start()
        self.run("createdb", "sterna")

    def start(self) -> None:
        """Starts it and returns when it answers. Raises LabError when it does not within a minute."""
        settings = [word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}")]
        deadline = time.monotonic() + READY_SECONDS
        while True:
            self._outer.detach(self.command("postgres", "-D", DATA, *settings), self._log)
            if self._await_answer(deadline):
                return
            if time.monotonic() > deadline:
                raise LabError(f"PostgreSQL does not start; see {self._log}")

    def _await_answer(self, deadline: float) -> bool:
        """False when the server that was just started has ended: a killed one's last children may have held its
        memory still."""
        begun = time.monotonic() + BEGIN_SECONDS
        while time.monotonic() < deadline:
            if self._answers():
                return True
            if time.monotonic() > begun and not any(is_server(argv) for _, argv in self._outer.processes()):
                return False
            time.sleep(0.05)
        return False

    def _answers(self) -> bool:
        done = self._outer.run(
            self.command("pg_isready", "-q", "-h", FOLDER, "-U", "sterna", "-d", "postgres"), check=False
        )
        return done.returncode == 0

    def run(self, program: str, *arguments: str, check: bool = True, timeout: float = 60.0) -> str:
        """The output of one of PostgreSQL's client programs (`psql`, `pg_dump`, `createdb`). Raises LabError."""
        argv = self.command(program, "-h", FOLDER, "-U", "sterna", *arguments)
        return self._outer.run(argv, check=check, timeout=timeout).stdout

    def command(self, program: str, *arguments: str) -> Sequence[str]:
        """A command line that runs one of PostgreSQL's programs as `postgres`."""
        owner = pwd.getpwnam("postgres")
        user = ["--reuid", str(owner.pw_uid), "--regid", str(owner.pw_gid), "--clear-groups"]
        return ["setpriv", *user, str(programs() / program), *arguments]


def programs() -> Path:
    """Where the newest server's programs are: Debian keeps them out of PATH. Raises LabError."""
    found = sorted(INSTALLED.glob("*/bin/initdb"), key=lambda path: [int(n) for n in re.findall(r"\d+", str(path))])
    if not found:
        raise LabError("PostgreSQL is not installed: `make setup` installs what the lab needs")
    return found[-1].parent


def is_server(argv: Sequence[str]) -> bool:
    """Is this the command line of the server's first process?"""
    return os.path.basename(argv[0]) == "postgres"


def is_backend(argv: Sequence[str]) -> bool:
    """Is this the command line of one of its children?"""
    return argv[0].startswith("postgres: ")
