"""The lab of a run with its guests, what both hosts look like with all of them and with none, and the evidence."""

from __future__ import annotations

import random
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from sterna.lab import sabotage
from sterna.lab.errors import LabError
from sterna.lab.guest_view import Guest
from sterna.lab.lab import Lab
from tests.chaos.scene import Journal
from tests.chaos.verdict import differences
from tests.e2e.conftest import Fleet
from tests.soak.faults import STRICT
from tests.soak.verdict import Baseline, Owners, Picture, picture

STATE = Path(".lab-soak")
"""Each seed has a lab of its own in it: runs side by side do not meet."""
MEMORY_MIB, DIRTY_MIB_S = 128, 2
DISKS = (
    ("shared", "iscsi"),
    ("local",),
    ("overlay", "chap"),
    ("luks",),
    ("iscsi", "chap"),
    ("local", "luks"),
    ("shared",),
    ("overlay", "iscsi"),
)
"""All kinds of the lab, dealt out in turn."""
AT_ONCE = 4
"""Guests that boot, or move before the run, at a time."""


@dataclass(frozen=True)
class Options:
    """What a run is asked to be."""

    minutes: float
    guests: int
    seed: int
    database: str = "sqlite"
    controllers: int = 1

    @property
    def folder(self) -> Path:
        return Path("out/soak") / str(self.seed)


class Stage:
    """Everything is there: guests on host1, each moved there and back once."""

    def __init__(self, lab: Lab, options: Options) -> None:
        self.lab, self.fleet = lab, Fleet(lab)
        sabotage.set_nats(lab, STRICT)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            self.guests = list(pool.map(self._make, range(options.guests)))
        self.names = [guest.name for guest in self.guests]
        self.boots = {guest.name: guest.status(timeout=60).boot_id for guest in self.guests}
        self.journals = {name: Journal(host.root / "state" / "journal.db") for name, host in lab.hosts.items()}
        self.base = self._baseline()

    def _make(self, number: int) -> Guest:
        disks = DISKS[number % len(DISKS)]
        name = f"soak{number + 1}"
        return self.lab.create_vm(
            name, "host1", MEMORY_MIB, DIRTY_MIB_S, disks, autostart=number % 2 == 0, pace="calm"
        )

    def _baseline(self) -> Baseline:
        full: dict[str, Picture] = {}
        empty: dict[str, Picture] = {}
        for here, there in (("host2", "host1"), ("host1", "host2")):
            self.move_all(here)
            full[here], empty[there] = picture(self.lab, here), picture(self.lab, there)
        owners = Owners.of(self.guests, [*full.values()])
        for host in self.lab.hosts:
            own, alone = owners.only(full[host], {None}), owners.only(empty[host], {None})
            assert not (wrong := list(differences(own, alone))), f"{host} before the run: {wrong}"
        return Baseline(owners, full, empty, self.lab.shared_files())

    def move_all(self, there: str) -> None:
        """Every guest moves to a host without faults, and must arrive."""
        self.move(dict.fromkeys(self.names, there))

    def move(self, where: dict[str, str]) -> None:
        """Each guest moves to its host without faults, some at once, and must arrive."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda pair: self._arrive(*pair), where.items()))

    def _arrive(self, guest: str, there: str) -> None:
        migration = self.fleet.started(guest, there)
        self.fleet.wait_closed(migration, timeout=240)
        ended = self.fleet.wait(migration, timeout=60)
        assert ended["status"] == "completed", f"{guest} without faults: {ended['status']}, {ended['reason']}"

    def record(self, url: str, migration: str) -> dict[str, Any] | None:
        """What a controller says of a migration; None where it knows none."""
        told = httpx2.get(f"{url}/v1/migrations/{migration}", timeout=30, **self.lab.api_access)
        return None if told.status_code == 404 else told.raise_for_status().json()


def keep_evidence(lab: Lab, folder: Path) -> None:
    """Logs, journals and records, for whoever wants to know what happened: the next lab deletes them."""
    state = lab.state_dir
    with suppress(LabError):
        if lab.has_postgresql:
            (folder / "controller.sql").write_text(lab.database.run("pg_dump", "sterna"))
    (folder / "processes.txt").write_text(_processes(lab))
    for path in state.glob("controller.db"):
        _copy_database(path, folder / path.name)
    for path in state.glob("logs/*.log"):
        shutil.copy(path, folder)
    for host in state.glob("hosts/host*"):
        _copy_database(host / "state/journal.db", folder / f"{host.name}-journal.db")
        found = [*host.glob("state/*.log"), *host.glob("log/*.log"), *host.glob("log/libvirt/*.log")]
        for path in [*found, *host.glob("log/libvirt/qemu/*")]:
            if path.is_file():
                shutil.copy(path, folder / f"{host.name}-{path.name}")


def _processes(lab: Lab) -> str:
    """Every process of the lab and what each of its threads does: who hangs, or goes round in circles."""
    lines = []
    for name, inside in {"lab": lab.outer, **{name: host.inside for name, host in lab.hosts.items()}}.items():
        for pid, argv in inside.processes():
            lines.append(f"{name} {pid} {' '.join(argv)[:160]}")
            for task in Path(f"/proc/{pid}/task").glob("*"):
                with suppress(OSError):
                    state = (task / "stat").read_text().rpartition(")")[2].split()[0]
                    used = int((task / "schedstat").read_text().split()[0]) // 1_000_000
                    comm = (task / "comm").read_text().strip()
                    lines.append(f"    {comm} {state} {(task / 'wchan').read_text()} {used} ms")
    return "\n".join(lines) + "\n"


def _copy_database(source: Path, target: Path) -> None:
    """A whole copy, also while it is written to."""
    with suppress(sqlite3.Error), sqlite3.connect(f"file:{source}?mode=ro", uri=True) as here:
        there = sqlite3.connect(target)
        here.backup(there)
        there.close()


def draw_for(seed: int, who: str) -> random.Random:
    """Chance of one's own for everybody who needs it: what one does changes nothing for the others."""
    return random.Random(f"{seed} {who}")
