"""A lab with agents and a controller, and the few words e2e tests speak: start, wait, force a failure, compare."""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from typing import Any

import httpx2
import pytest

from sterna.lab.guest_view import Guest
from sterna.lab.lab import Lab
from tests.lab_state import state

FINAL = {"completed", "failed", "cancelled"}


class Fleet:
    """The lab's two hosts through the eyes of a user of the REST API, and of a person on the hosts themselves."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.api = httpx2.Client(base_url=lab.controller_url or "", timeout=30, **lab.api_access)

    def eventually(self, holds: Callable[[], bool], seconds: float = 30.0) -> None:
        """Wait for something that no event tells of."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, "it never held"
            time.sleep(0.1)

    def start(self, vm: str, to: str, **more: object) -> httpx2.Response:
        return self.api.post("/v1/migrations", json={"vm": vm, "destination": to, "id": str(uuid.uuid4()), **more})

    def started(self, vm: str, to: str, **more: object) -> str:
        """Start a migration that must be accepted; its id."""
        answer = self.start(vm, to, **more)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def show(self, migration: str) -> dict[str, Any]:
        return dict(self.api.get(f"/v1/migrations/{migration}").json())

    def timeline(self, migration: str) -> list[dict[str, Any]]:
        return list(self.api.get(f"/v1/migrations/{migration}/timeline").json()["items"])

    def wait(self, migration: str, until: Collection[str] = FINAL, timeout: float = 120.0) -> dict[str, Any]:
        """Poll until the status is one of `until`."""
        deadline = time.monotonic() + timeout
        while True:
            seen = self.show(migration)
            if seen["status"] in until:
                return seen
            assert time.monotonic() < deadline, (
                f"still {seen['status']}: {json.dumps(self.timeline(migration)[-6:])}"
            )
            time.sleep(0.1)

    def wait_for_row(self, host: str, name: str, migration: str, timeout: float = 60.0) -> None:
        """Until the agent's own journal on `host` has an entry of that name for the migration."""
        path = self.lab.hosts[host].root / "state" / "journal.db"
        deadline = time.monotonic() + timeout
        while True:
            with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
                query = "select count(*) from entries where migration_id = ? and name = ?"
                if db.execute(query, (migration, name)).fetchone()[0]:
                    return
            assert time.monotonic() < deadline, f"{host} never journaled {name}"
            time.sleep(0.02)

    def wait_closed(self, migration: str, timeout: float = 120.0) -> None:
        """Until neither agent's own journal has anything left to do for the migration."""
        deadline = time.monotonic() + timeout
        while waiting := [h for h in self.lab.hosts if self._is_open(h, migration)]:
            assert time.monotonic() < deadline, (
                f"still open on {waiting}: {json.dumps(self.timeline(migration)[-6:])}"
            )
            time.sleep(0.05)

    def _is_open(self, host: str, migration: str) -> bool:
        path = self.lab.hosts[host].root / "state" / "journal.db"
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
            found = db.execute("select closed from migrations where id = ?", (migration,)).fetchone()
        return found is not None and not found[0]

    def restart_controller(self) -> None:
        """Start the controller again, at a new address, and wait for it."""
        url = self.lab.start_controller()
        self.api = httpx2.Client(base_url=url, timeout=30, **self.lab.api_access)
        self.lab.wait_ready()

    def taps(self, host: str, guest: Guest) -> list[dict[str, Any]]:
        """The guest's ports on a host's bridge."""
        ports: Any = self.lab.snapshot(host)["ports"]
        return [p for p in ports if p["external_ids"].get("iface-id") == guest.port_id]

    def remove(self, guest: Guest) -> None:
        """End and undefine a guest, and wait until the agents have taken its taps away."""
        self.lab.remove_vm(guest.name)
        self.eventually(lambda: not any(self.taps(host, guest) for host in self.lab.hosts))

    def fault(self, host: str, rules: list[dict[str, Any]] | None) -> None:
        """Set or clear (None) the forced failures of one agent."""
        path = self.lab.hosts[host].root / "state" / "faults.json"
        if rules is None:
            path.unlink(missing_ok=True)
            return
        path.with_suffix(".new").write_text(json.dumps({"rules": rules}))
        path.with_suffix(".new").rename(path)

    def snapshots(self) -> dict[str, dict[str, Any]]:
        return {name: self.lab.snapshot(name) for name in self.lab.hosts}

    def other(self, host: str) -> str:
        return next(name for name in self.lab.hosts if name != host)


@pytest.fixture(scope="module")  # one lab at a time: the machine has two cores
def fleet() -> Iterator[Fleet]:
    lab = Lab.up(state("e2e"), owner=True)
    try:
        yield Fleet(lab)
    finally:
        lab.down()


@pytest.fixture
def no_faults(fleet: Fleet) -> Iterator[None]:
    yield
    for host in fleet.lab.hosts:
        fleet.fault(host, None)
