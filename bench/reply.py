"""What a guest's first reply on its new host waits for: the profile behind `one`'s "blackout minus downtime".

Three arms, interleaved: virsh; Sterna; and Sterna while all its processes are stopped, from the guest's standstill
on the source until it has long run on the destination. libvirt moves the guest by itself meanwhile; what the third
arm does better than the second is what our own work takes from the guest on these processors, and nothing else.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import threading
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.arms import Arm, Load, Sterna, Virsh
from bench.figures import SEED
from bench.watching import RARP, Frame, QemuEvent, frames, qemu_events
from sterna.lab.lab import Lab

HELD_S = 0.25
"""From the guest's standstill: its downtime is half of that."""
_IPV4, _ICMP, _REPLY = 0x0800, 1, 0
FIGURES = {
    "downtime_ms": "guest downtime",
    "called_ms": "QEMU's STOP to the first frame that calls the guest's frames to the new host",
    "lost": "pings lost, of those sent every 5 ms",
    "told_ms": "QEMU's RESUME to the first frame that tells the network",
    "reply_ms": "QEMU's RESUME to the guest's first reply",
    "excess_ms": "blackout minus downtime",
}


class Held(Sterna):
    """Its processes do nothing for a while, once `hold` was called."""

    name = "held"

    def hold(self, event: QemuEvent) -> None:
        """At the guest's standstill on its source."""
        if self.moving and event.kind == "STOP" and event.host == self.here:
            threading.Thread(target=self._hold).start()

    moving = False

    def move(self, there: str) -> None:
        """As Sterna does."""
        self.moving = True
        try:
            super().move(there)
        finally:
            self.moving = False

    def _hold(self) -> None:
        found = [self.lab.controller_pid(), *(self.lab.agent_pid(name) for name in self.lab.hosts)]
        stopped = [pid for pid in found if pid is not None]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(HELD_S)
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


def reply(lab: Lab, rounds: int, console: Console) -> tuple[list[dict[str, Any]], Table]:
    """Each round moves each arm's guest once, in random order; the first round is not counted."""
    held = Held(lab, Load())
    arms = [Virsh(lab, Load()), Sterna(lab, Load()), held]
    chance, rows = random.Random(SEED), []  # noqa: S311
    with qemu_events(lab, then=held.hold) as heard, frames(lab) as seen:
        for number in range(-1, rounds):
            for arm in chance.sample(arms, k=len(arms)):
                row = _move(arm, number, heard, seen)
                if number >= 0:
                    rows.append(row)
                    console.print(f"{number + 1:3d}/{rounds} {row}")
    return rows, _table(rows)


def _move(arm: Arm, number: int, heard: list[QemuEvent], seen: list[Frame]) -> dict[str, Any]:
    there, before = arm.there, len(heard)
    seen.clear()
    sample = arm.measure(number)
    runs = next(event.at for event in heard[before:] if event.host == there and event.kind == "RESUME")
    stands = next(event.at for event in heard[before:] if event.host != there and event.kind == "STOP")
    mac, own = arm.guests[0].mac, list(seen)
    calls = [f.at for f in own if f.protocol == RARP and f.sender == mac and f.at >= stands]
    return {
        "arm": arm.name,
        "downtime_ms": sample.downtime_ms,
        "called_ms": _after(stands, calls),
        "lost": sample.lost,
        "told_ms": _after(runs, calls),
        "reply_ms": (next(f.at for f in own if _is_reply(f, mac) and f.at >= runs) - runs) * 1000,
        "excess_ms": sample.blackout_ms - sample.downtime_ms,
    }


def _after(moment: float, frames: Sequence[float]) -> float | None:
    """To the first of them, in ms."""
    return next(((at - moment) * 1000 for at in frames if at >= moment), None)


def _is_reply(frame: Frame, mac: str) -> bool:
    icmp = frame.protocol == _IPV4 and frame.data[23] == _ICMP
    return icmp and frame.sender == mac and frame.data[14 + (frame.data[14] & 15) * 4] == _REPLY


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    arms = list(dict.fromkeys(sorted(row["arm"] for row in rows)))
    shown = Table(title="medians, ms")
    for heading in ("", *arms):
        shown.add_column(heading, justify="right" if heading else "left")
    for key, name in FIGURES.items():
        values = ([r[key] for r in rows if r["arm"] == arm and r[key] is not None] for arm in arms)
        shown.add_row(name, *(f"{statistics.median(v):.1f}" for v in values))
    return shown
