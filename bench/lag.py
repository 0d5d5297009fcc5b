"""How soon after the switch-over the port is active, and the API says so: one small guest, over and over.

One move at a time, so that nothing but its own migration is on the machine. All times are of this machine's one
clock: QEMU's own timestamp of its RESUME event on the destination, the kernel's of the first frame behind the
destination's switch that says where the guest is (its port forwards, and the network knows), the destination's
journal, and the API's event stream as a client reads it.
"""

from __future__ import annotations

import re
import socket
import sqlite3
import statistics
import struct
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
from sterna.lab.pinger import SO_TIMESTAMPNS

MOVES_A_ROUND = 15
"""300 in the 20 rounds that `make bench` makes."""
RARP = 0x8035
_LINE = re.compile(r"event RESUME at (\d+\.\d+) ")
FIGURES = {
    "frame_ms": "QEMU's RESUME to the frame on the network",
    "journal_ms": "to the agent's journal saying so",
    "api_ms": "to the API saying so",
}


def lag(lab: Lab, rounds: int, console: Console) -> tuple[list[dict[str, Any]], Table]:
    """MOVES_A_ROUND switch-overs a round."""
    arm, rows = Sterna(lab, Load(memory_mib=128, dirty_mib_s=1, calm=True)), []
    arm.wake()
    with _resumes(lab) as resumed, _frames(lab, arm.guests[0].mac) as seen:
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


def _move(lab: Lab, arm: Sterna, resumed: dict[str, list[float]], seen: list[float]) -> dict[str, Any]:
    there, told = arm.there, None
    before, frames_before = len(resumed[there]), len(seen)
    migration = arm.ask(arm.guests[0], there)
    for event, data in arm.api.events(migration):
        if data.get("name") == ARRIVED:
            told = time.time()
        if event == "end" and data["status"] != "completed":
            raise LabError(f"migration {migration} is {data['status']}")
    arm.here = there
    (runs,) = resumed[there][before:]
    journaled = _journaled(lab.hosts[there], migration) + time.time() - time.monotonic()
    frames = [round((at - runs) * 1000, 3) for at in seen[frames_before:]]
    return {
        "frame_ms": next((at for at in frames if at >= 0), None),
        "journal_ms": (journaled - runs) * 1000,
        "api_ms": None if told is None else (told - runs) * 1000,
        "frames_ms": frames,
    }


def _journaled(host: LabHost, migration: str) -> float:
    """When the destination wrote that it has told the network, in seconds of CLOCK_MONOTONIC."""
    query = "SELECT mono_ms FROM entries WHERE migration_id = ? AND name = ?"
    with sqlite3.connect(f"file:{host.root}/state/journal.db?mode=ro", uri=True) as journal:
        found = journal.execute(query, (migration, ARRIVED)).fetchone()
    if found is None:
        raise LabError(f"{host.name} journaled no arrival of migration {migration}")
    return float(found[0]) / 1000


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


@contextmanager
def _frames(lab: Lab, mac: str) -> Iterator[list[float]]:
    """The kernel's times (seconds since the epoch) of the RARPs of this guest on the network between the hosts."""
    seen: list[float] = []
    own = bytes.fromhex(mac.replace(":", ""))
    with lab.outer.open_socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(RARP)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        listening.bind(("tenant", RARP))

        def listen() -> None:
            while True:
                try:
                    frame, control, _, _ = listening.recvmsg(2048, 64)
                except OSError:
                    return
                seconds, nanoseconds = struct.unpack("qq", control[0][2][:16])
                if frame[6:12] == own:
                    seen.append(seconds + nanoseconds / 1e9)

        threading.Thread(target=listen, daemon=True).start()
        yield seen


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
