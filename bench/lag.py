"""How soon after the switch-over the port is active, and the API says so: one small guest, over and over.

One move at a time, so that nothing but its own migration is on the machine. Times come from three places here, all
on one clock: QEMU's own timestamp of its RESUME event on the destination, the destination's journal (when it had
told the network where the guest is), and the API's event stream as a client reads it.
"""

from __future__ import annotations

import re
import sqlite3
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.arms import Load, Sterna
from sterna.domain.downtime import ARRIVED
from sterna.lab.errors import LabError
from sterna.lab.host import LabHost
from sterna.lab.lab import Lab

MOVES_A_ROUND = 15
"""300 in the 20 rounds that `make bench` makes."""
_LINE = re.compile(r"event RESUME at (\d+\.\d+) ")
FIGURES = {
    "event_to_port_ms": "QEMU's RESUME to the port active",
    "in_agent_ms": "of it, since the agent heard of it",
    "event_to_api_ms": "QEMU's RESUME to the API's word of it",
}


def lag(lab: Lab, rounds: int, console: Console) -> tuple[list[dict[str, Any]], Table]:
    """MOVES_A_ROUND switch-overs a round."""
    arm, rows = Sterna(lab, Load(memory_mib=128, dirty_mib_s=1, calm=True)), []
    arm.wake()
    with _resumes(lab) as heard:
        for number in range(rounds * MOVES_A_ROUND + 1):
            row = _move(lab, arm, heard)
            if number:  # the first connects the two libvirts
                rows.append(row)
            if number % 20 == 0:
                console.print(f"{number} {row}")
    after = arm.guests[0].status()
    if not after.clean:
        raise LabError(f"the guest is not whole: {after}")
    return rows, _table(rows)


def _move(lab: Lab, arm: Sterna, heard: dict[str, list[float]]) -> dict[str, Any]:
    there, told = arm.there, None
    before = len(heard[there])
    migration = arm.ask(arm.guests[0], there)
    for event, data in arm.api.events(migration):
        if data.get("name") == ARRIVED:
            told = time.time()
        if event == "end" and data["status"] != "completed":
            raise LabError(f"migration {migration} is {data['status']}")
    arm.here = there
    (resumed,) = heard[there][before:]
    mono_ms, network_ms = _arrival(lab.hosts[there], migration)
    port = time.time() - (time.monotonic() - mono_ms / 1000)
    return {
        "event_to_port_ms": (port - resumed) * 1000,
        "in_agent_ms": network_ms,
        "event_to_api_ms": None if told is None else (told - resumed) * 1000,
    }


def _arrival(host: LabHost, migration: str) -> tuple[float, float]:
    """When the destination had told the network, and how long that took from its hearing of the guest."""
    query = "SELECT mono_ms, json_extract(data, '$.network_ms') FROM entries WHERE migration_id = ? AND name = ?"
    with sqlite3.connect(f"file:{host.root}/state/journal.db?mode=ro", uri=True) as journal:
        found = journal.execute(query, (migration, ARRIVED)).fetchone()
    if found is None:
        raise LabError(f"{host.name} journaled no arrival of migration {migration}")
    return float(found[0]), float(found[1])


@contextmanager
def _resumes(lab: Lab) -> Iterator[dict[str, list[float]]]:
    """QEMU's own times (seconds since the epoch) of its RESUME events, per host."""
    heard: dict[str, list[float]] = {name: [] for name in lab.hosts}
    argv = ["stdbuf", "-oL", "virsh", "qemu-monitor-event", "--loop", "--event", "RESUME"]
    listening = []
    for name, host in lab.hosts.items():
        process = subprocess.Popen(host.inside.command(argv), stdout=subprocess.PIPE, text=True)
        listening.append(process)
        threading.Thread(target=_take, args=(process, heard[name]), daemon=True).start()
    try:
        yield heard
    finally:
        for process in listening:
            process.kill()
            process.wait()


def _take(process: subprocess.Popen[str], heard: list[float]) -> None:
    for line in process.stdout or ():
        if found := _LINE.search(line):
            heard.append(float(found[1]))


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    shown = Table(title=f"{len(rows)} switch-overs, one at a time; ms")
    for heading in ("", "median", "p99", "longest"):
        shown.add_column(heading, justify="right" if heading else "left")
    for key, name in FIGURES.items():
        values = sorted(row[key] for row in rows if row[key] is not None)
        p99 = values[min(len(values) - 1, int(len(values) * 0.99))]
        shown.add_row(name, *(f"{value:.1f}" for value in (statistics.median(values), p99, values[-1])))
    return shown
