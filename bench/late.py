"""The guest's silence on the network against how late its port is wired on the new host.

The destination's port is born with the incoming QEMU (virsh), or ahead of it (Sterna), and its network agent
(`late_agent.py`) needs some seconds for it. virsh does not wait: a copy shorter than that leaves the guest unheard.
"""

from __future__ import annotations

import random
import signal
import statistics
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.arms import Arm, Load, Sterna, Virsh
from bench.figures import SEED
from bench.late_agent import LateAgents
from sterna.lab.lab import Lab

DELAYS_S = (0.0, 1.0, 5.0)
FARTHEST_S = 20.0
"""In the first round only."""
WAIT = 'wait_for = "ovn-installed"\nvif_plugging_timeout_s = 30\nvif_plugging_is_fatal = true\n'


def late(lab: Lab, rounds: int, console: Console) -> tuple[list[dict[str, Any]], Table]:
    """Both arms at each delay, in random order in each round."""
    _let_sterna_wait(lab)
    agents, chance, rows = LateAgents(lab), random.Random(SEED), []  # noqa: S311
    with agents.at_work():
        load = Load(memory_mib=128, dirty_mib_s=1)
        arms: list[Arm] = [Virsh(lab, load), Sterna(lab, load)]
        for arm in arms:
            arm.measure(-1)
        for number in range(max(3, rounds // 4)):
            delays = DELAYS_S if number else (*DELAYS_S, FARTHEST_S)
            for arm, delay_s in chance.sample([(arm, delay) for arm in arms for delay in delays], 2 * len(delays)):
                agents.delay_s = delay_s
                sample = arm.measure(number)
                rows.append(sample.row() | {"delay_s": delay_s})
                console.print(f"{number} {arm.name:7s} {delay_s:4.0f} s: {sample.blackout_ms:6.0f} ms of silence")
    return rows, _table(rows)


def _let_sterna_wait(lab: Lab) -> None:
    for host in lab.hosts.values():
        settings = host.root / "state/agent.toml"
        settings.write_text(settings.read_text().replace("[network]\n", f"[network]\n{WAIT}"))
        lab.kill_agent(host.name, signal.SIGTERM)
        lab.start_agent(host.name)
    time.sleep(6)  # what the controller knows of the agents' former lives runs out after five seconds
    lab.wait_ready()


def slope(rows: Sequence[dict[str, Any]]) -> float:
    """Seconds of silence per second of delay: least squares."""
    delays, silences = [r["delay_s"] for r in rows], [r["blackout_ms"] / 1000 for r in rows]
    return statistics.linear_regression(delays, silences).slope


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    shown = Table("wired late by, s", title="network blackout, ms (request to end, ms); medians")
    arms = ("virsh", "sterna")
    for arm in arms:
        shown.add_column(arm, justify="right")
    for delay_s in (*DELAYS_S, FARTHEST_S):
        cells = []
        for arm in arms:
            some = [r for r in rows if (r["arm"], r["delay_s"]) == (arm, delay_s)]
            blackout, total = (statistics.median(r[key] for r in some) for key in ("blackout_ms", "total_ms"))
            cells.append(f"{blackout:.0f} ({total:.0f})")
        shown.add_row(f"{delay_s:g}", *cells)
    shown.add_row("slope, s/s", *(f"{slope([r for r in rows if r['arm'] == arm]):.2f}" for arm in arms))
    return shown
