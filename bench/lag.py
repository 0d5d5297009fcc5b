"""How soon after the switch-over the port is active, and the API says so: one small guest, over and over.

One move at a time, so that nothing but its own migration is on the machine. All times are of this machine's one
clock: QEMU's own timestamp of its RESUME event on the destination, the kernel's of the first frame behind the
destination's switch that says where the guest is (its port forwards, and the network knows), the destination's
journal, and the API's event stream as a client reads it.
"""

from __future__ import annotations

import sqlite3
import statistics
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.arms import Load, Sterna
from bench.watching import RARP, Frame, QemuEvent, frames, qemu_events
from sterna.domain.entries.destination_notes import Arrival
from sterna.lab.errors import LabError
from sterna.lab.host import LabHost
from sterna.lab.lab import Lab

MOVES_A_ROUND = 15
"""300 in the 20 rounds that `make bench` makes."""
FIGURES = {
    "frame_ms": "QEMU's RESUME to the frame on the network",
    "journal_ms": "to the agent's journal saying so",
    "api_ms": "to the API saying so",
}


def lag(lab: Lab, rounds: int, console: Console) -> tuple[list[dict[str, Any]], Table]:
    """MOVES_A_ROUND switch-overs a round."""
    arm, rows = Sterna(lab, Load(memory_mib=128, dirty_mib_s=1, pace="calm")), []
    arm.wake()
    with qemu_events(lab, "RESUME") as resumed, frames(lab, RARP) as seen:
        for number in range(rounds * MOVES_A_ROUND + 1):
            row = _move(lab, arm, resumed, seen)
            if number:  # the first connects the two libvirts
                rows.append(row)
            if number % 20 == 0:
                console.print(f"{number} {row}")
    after = arm.guests[0].status()
    if not after.clean:
        raise LabError(f"the guest is not whole: {after}")
    return rows, _table(rows)


def _move(lab: Lab, arm: Sterna, resumed: list[QemuEvent], seen: list[Frame]) -> dict[str, Any]:
    there, mac, told = arm.there, arm.guests[0].mac, None
    before, frames_before = len(resumed), len(seen)
    migration = arm.ask(arm.guests[0], there)
    for event, data in arm.api.events(migration):
        if data.get("name") == Arrival.entry:
            told = time.time()
        if event == "end" and data["status"] != "completed":
            raise LabError(f"migration {migration} is {data['status']}")
    arm.here = there
    (runs,) = (event.at for event in resumed[before:] if event.host == there)
    journaled = _journaled(lab.hosts[there], migration) + time.time() - time.monotonic()
    told_ms = [round((frame.at - runs) * 1000, 3) for frame in seen[frames_before:] if frame.sender == mac]
    return {
        "frame_ms": next((at for at in told_ms if at >= 0), None),
        "journal_ms": (journaled - runs) * 1000,
        "api_ms": None if told is None else (told - runs) * 1000,
        "frames_ms": told_ms,
    }


def _journaled(host: LabHost, migration: str) -> float:
    """When the destination wrote that it has told the network, in seconds of CLOCK_MONOTONIC."""
    query = "SELECT mono_ms FROM entries WHERE migration_id = ? AND name = ?"
    with sqlite3.connect(f"file:{host.root}/state/journal.db?mode=ro", uri=True) as journal:
        found = journal.execute(query, (migration, Arrival.entry)).fetchone()
    if found is None:
        raise LabError(f"{host.name} journaled no arrival of migration {migration}")
    return float(found[0]) / 1000


def p99(values: Sequence[float]) -> float:
    """The value that a hundredth of them exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    shown = Table(title=f"{len(rows)} switch-overs, one at a time; ms")
    for heading in ("", "median", "p99", "longest"):
        shown.add_column(heading, justify="right" if heading else "left")
    for key, name in FIGURES.items():
        values = [row[key] for row in rows if row[key] is not None]
        shown.add_row(name, *(f"{v:.1f}" for v in (statistics.median(values), p99(values), max(values))))
    return shown
