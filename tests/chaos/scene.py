"""Where a case plays: the lab, its two hosts in the roles of this migration, and the guest."""

from __future__ import annotations

import json
import signal
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sterna.lab import links, sabotage
from sterna.lab.errors import LabError
from sterna.lab.guest_view import Guest
from sterna.lab.lab import Lab
from tests.chaos.moments import Moment
from tests.e2e.conftest import Fleet

LOOK_S = 0.01
MOMENT_S = 90.0
"""The longest that may pass before somebody notices a hang: a call to an agent whose libvirtd hangs, 60 s."""
ON_HOSTS = {
    "agent": sabotage.agent,
    "libvirtd": sabotage.libvirtd,
    "ovsdb-server": sabotage.ovsdb_server,
    "ovs-vswitchd": sabotage.ovs_vswitchd,
}
IN_LAB = {"nats-server": sabotage.nats_server, "tgtd": sabotage.tgtd, "controller": sabotage.controller}


class Stuck(AssertionError):
    """What was waited for did not come."""


class Journal:
    """One agent's journal file, read as anybody could, also while the agent is dead."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def query(self, text: str, *values: object) -> list[tuple[Any, ...]]:
        with sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=5) as db:
            return db.execute(text, values).fetchall()

    def has(self, migration: str, name: str, kind: str | None = None, times: int = 1) -> bool:
        text = "select 1 from entries where migration_id = ? and name = ? and (? is null or kind = ?) limit ?"
        return len(self.query(text, migration, name, kind, kind, times)) == times

    def knows(self, migration: str) -> bool:
        return bool(self.query("select 1 from migrations where id = ?", migration))

    def holds(self, migration: str) -> bool:
        return bool(self.query("select 1 from migrations where id = ? and held", migration))

    def left_over(self) -> dict[str, list[str]]:
        """What is still to be done: nothing, once all is over."""
        return {
            "open": [row[0] for row in self.query("select id from migrations where not closed or held")],
            "outbox": [row[0] for row in self.query("select id from outbox where not done")],
            "inbox": [row[0] for row in self.query("select id from inbox where not done")],
        }

    def last(self, migration: str, count: int = 8) -> list[str]:
        text = "select kind, row, name, data from entries where migration_id = ? order by seq desc limit ?"
        return [f"{k} {r} {n} {d[:160]}" for k, r, n, d in reversed(self.query(text, migration, count))]


@dataclass
class Scene:
    """What moments and faults may touch."""

    fleet: Fleet
    guest: Guest
    source: str
    destination: str
    migration: str = ""
    fired: float = 0.0
    """When the fault was fired, on this process's monotonic clock."""
    rules: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    journals: dict[str, Journal] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, host in self.lab.hosts.items():
            self.journals[name] = Journal(host.root / "state" / "journal.db")

    @property
    def lab(self) -> Lab:
        return self.fleet.lab

    def host(self, role: str) -> str:
        return {"source": self.source, "destination": self.destination}[role]

    def link(self, which: str) -> links.Link:
        """`stream`, `second stream`, `control`, or `bus` and `storage` of a role: `bus of source`."""
        source, destination = self.lab.hosts[self.source], self.lab.hosts[self.destination]
        if which == "stream":
            return links.stream_link(source, destination)
        if which == "second stream":
            return links.second_stream_link(source, destination)
        if which == "control":
            return links.control_link(source, destination)
        kind, _, role = which.partition(" of ")
        make = {"bus": links.bus_link, "storage": links.storage_link}[kind]
        return make(self.lab, self.lab.hosts[self.host(role)])

    def victim(self, which: str) -> sabotage.Victim:
        """`nats-server`, `tgtd`, `controller`; `agent`, `libvirtd`, `ovsdb-server`, `ovs-vswitchd` of a role, and
        the guest's `QEMU`: `QEMU of source`."""
        part, _, role = which.partition(" of ")
        if part == "QEMU":
            return sabotage.qemu(self.lab, self.host(role), self.guest.name)
        if role:
            return ON_HOSTS[part](self.lab, self.host(role))
        return IN_LAB[part](self.lab)

    def there_is(self, which: str) -> bool:
        """Whether such a process exists."""
        try:
            return bool(self.victim(which).pids())
        except LabError:
            return False

    def switch_to_postcopy(self) -> None:
        """As a user asks for it."""
        answer = self.fleet.api.post(f"/v1/migrations/{self.migration}/post-copy")
        assert answer.status_code == 202, answer.text

    # forced failures

    def force(self, role: str, rule: dict[str, str]) -> None:
        """One more rule for an agent's fault file."""
        host = self.host(role)
        self.rules.setdefault(host, []).append(rule)
        self.fleet.fault(host, self.rules[host])

    def unforce(self, role: str) -> None:
        """No rules any more for this agent."""
        host = self.host(role)
        self.rules.pop(host, None)
        self.fleet.fault(host, None)

    # waiting

    def wait(self, what: str, holds: Callable[[], bool], seconds: float = 60.0) -> None:
        """Look every 10 ms until it holds. Raises Stuck."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                raise Stuck(f"{what}: not within {seconds:g} s; {json.dumps(self.told(), indent=1)}")
            time.sleep(LOOK_S)

    def await_moment(self, moment: Moment) -> None:
        self.wait(f"the moment `{moment}`", lambda: moment.reached(self), MOMENT_S)

    def told(self) -> dict[str, object]:
        """The last entries of both journals, for whoever reads a failure."""
        return {host: journal.last(self.migration) for host, journal in self.journals.items()}

    # agents

    def kill_agent(self, role: str) -> None:
        self.lab.kill_agent(self.host(role), signal.SIGKILL)

    def start_agent(self, role: str) -> None:
        self.lab.start_agent(self.host(role))
