"""The servers' own Python environments: versions that were seen to work together, installed once into the cache."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sterna.lab.errors import LabError
from sterna.lab.places import cache_dir

SERVERS = {"keystone": "keystone==30.0.0", "neutron": "neutron==29.0.0", "cinder": "cinder==29.0.0"}
"""Newest on PyPI when this was made, the release called 2026.2; each in an environment of its own."""
BESIDE = ("pymysql", "uwsgi")
NOVA = "nova==34.0.0"
"""Of the same release: it judges Sterna's answers by its own schemas. It is not started."""
PROGRAMS = ("/usr/lib/rabbitmq/bin/rabbitmq-server", "mariadbd", "mariadb-install-db", "tgtd", "tgtadm")


def home() -> Path:
    """Where environments and prepared databases are kept."""
    return cache_dir() / "openstack"


def program(server: str, name: str) -> str:
    """The path of a program of a server's environment."""
    return str(home() / server / "bin" / name)


def install() -> None:
    """Make what is missing, some 40 s the first time. Raises LabError where Debian's packages are missing."""
    missing = [name for name in PROGRAMS if shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin") is None]
    if missing:
        raise LabError(f"{', '.join(missing)} missing: `scripts/setup openstack` installs them")
    home().mkdir(parents=True, exist_ok=True)
    with only_one("install"):
        for server, requirement in SERVERS.items():
            _environment(server, requirement, *BESIDE)


def nova_python() -> str:
    """The Python of an environment with Nova in it."""
    home().mkdir(parents=True, exist_ok=True)
    with only_one("install"):
        _environment("nova", NOVA)
    return program("nova", "python")


@contextmanager
def only_one(what: str) -> Iterator[None]:
    """Two test runs of one checkout share the cache."""
    with (home() / f"{what}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _environment(server: str, *requirements: str) -> None:
    folder = home() / server
    stamp, wanted = folder / "sterna-stamp", " ".join(requirements)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    shutil.rmtree(folder, ignore_errors=True)
    uv = home() / "tool/bin/uv"
    if not uv.exists():
        _run("/usr/bin/python3", "-m", "venv", str(home() / "tool"))
        _run(str(home() / "tool/bin/python"), "-m", "pip", "install", "-q", "uv")
    _run(str(uv), "venv", "-q", "--python", "/usr/bin/python3", str(folder))
    _run(str(uv), "pip", "install", "-q", "--python", str(folder / "bin/python"), *requirements)
    stamp.write_text(wanted)


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode != 0:
        raise LabError(f"`{' '.join(argv)}` failed: {done.stderr[-2000:]}")
