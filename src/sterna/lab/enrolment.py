"""Who is enrolled in a lab: a CA of Sterna's own, and the certificates of its hosts, controllers and bus.

They are made with the commands that an operator uses. That takes seconds, so it is done once for labs of one size;
each lab gets a copy, its CA included.
"""

import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from sterna.lab.errors import LabError
from sterna.lab.places import BUS_FOLDER, LAB_ADDRESS, SOURCE, ipv6_address, second_address

CONTROLLERS = 2
"""So many can be started in one lab."""
_LIFE_S = 20 * 86400.0
"""Far less than the 90 days for which certificates are valid."""
_MADE_BY = ("domain/trust", "adapters/identity", "bootstrap/enrolling", "lab/enrolment.py")
"""What decides how they look: changed, they are made again."""


def enrolled(cache: Path, addresses: Mapping[str, str]) -> Path:
    """The folder with `ca`, `bus.conf`, and the folder of each of `bus`, `controller1` and `host1`, by their names.

    `addresses`: host name -> its address. Raises LabError where a command fails.
    """
    folder = cache / f"enrolled-{len(addresses)}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp, wanted = folder / "stamp", _fingerprint()
        if stamp.exists() and stamp.read_text() == wanted and time.time() - stamp.stat().st_mtime < _LIFE_S:
            return folder / "made"
        stamp.unlink(missing_ok=True)
        shutil.rmtree(folder / "made", ignore_errors=True)
        _Enroller(folder / "made").enrol(addresses)
        stamp.write_text(wanted)
    return folder / "made"


def hand_out(made: Path, state: Path, addresses: Mapping[str, str]) -> None:
    """Copies what `enrolled` made into the folders of a lab."""
    _copy(made / "ca", state / "ca")
    _copy(made / "bus", state / "bus")
    shutil.copy(made / "bus.conf", state / "bus.conf")
    for number in range(1, CONTROLLERS + 1):
        _copy(made / f"controller{number}", state / f"controller{number}-identity")
    for name in addresses:
        _copy(made / name, state / "hosts" / name / "state/identity")


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, symlinks=True)


def _fingerprint() -> str:
    digest = hashlib.sha256()
    for place in _MADE_BY:
        path = SOURCE.parent / place
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()


class _Enroller:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ca = folder / "ca"

    def enrol(self, addresses: Mapping[str, str]) -> None:
        self._folder.mkdir(mode=0o700)
        self._sterna("ca", "init", "--ca", self._ca)
        for number in range(1, CONTROLLERS + 1):
            self._issue("controller", f"controller{number}", self._folder / f"controller{number}", "127.0.0.1")
        self._issue("bus", "lab", self._folder / "bus")
        for name, address in addresses.items():
            self._join(name, (address, second_address(address), ipv6_address(address)))
        own = ("--folder", BUS_FOLDER, "--ca", self._ca, "--out", self._folder / "bus.conf")
        self._sterna("bus", "config", "--listen", f"{LAB_ADDRESS}:4222", *own)

    def _issue(self, kind: str, name: str, folder: Path, *addresses: str) -> None:
        own = ("--folder", folder, "--ca", self._ca)
        self._sterna("ca", "issue", kind, name, *own, *_options(addresses))

    def _join(self, name: str, addresses: tuple[str, ...]) -> None:
        """By files: no controller runs yet."""
        own = self._folder / name
        asked, signed = self._folder / f"{name}.csr", self._folder / f"{name}.crt"
        said = self._sterna("host", "add", name, "--json", "--ca", self._ca, *_options(addresses))
        self._sterna("agent", "request", name, "--folder", own, "--out", asked)
        self._sterna("ca", "sign", asked, "--ca", self._ca, "--out", signed)
        self._sterna("agent", "join", json.loads(said)["token"], "--certificate", signed, "--folder", own)

    def _sterna(self, *words: str | Path) -> str:
        argv = [sys.executable, "-m", "sterna", *map(str, words)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode != 0:
            raise LabError(f"enrolling the lab: sterna {' '.join(map(str, words[:2]))}: {done.stderr.strip()}")
        return done.stdout


def _options(addresses: tuple[str, ...]) -> list[str]:
    return [word for address in addresses for word in ("--address", address)]
