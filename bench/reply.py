"""What a guest's first reply on its new host waits for: the profile behind `one`'s "blackout minus downtime".

Four arms, interleaved: virsh; virsh with a port that outlives its QEMU, as Sterna's do; Sterna; and Sterna while
all its processes are stopped, from the guest's standstill on its source until it has long run on the destination
(libvirt moves it by itself meanwhile). What the last arm does better than Sterna is what our own work takes from
the guest on these processors; what the second does worse than virsh is such a port's doing, without Sterna.
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

from lxml import etree
from rich.console import Console
from rich.table import Table

from bench.arms import LONGEST_S, Arm, Load, Sterna, Virsh
from bench.figures import SEED
from bench.watching import RARP, Frame, QemuEvent, frames, qemu_events
from sterna.lab.lab import Lab
from sterna.lab.places import TENANT_VLAN

HELD_S = 0.25
"""From the guest's standstill: its downtime is half of that."""
TAP = "ahead0"
_IPV4, _ICMP, _REPLY = 0x0800, 1, 0
FIGURES = {
    "downtime_ms": "guest downtime",
    "called_ms": "QEMU's STOP to the first frame that calls the guest's frames to the new host",
    "lost": "pings lost, of those sent every 5 ms",
    "told_ms": "QEMU's RESUME to the first frame that tells the network",
    "reply_ms": "QEMU's RESUME to the guest's first reply",
    "excess_ms": "blackout minus downtime",
}


class Ahead(Virsh):
    """virsh, and a tap on each host that is there before its QEMU and after it.

    libvirt's own tap goes with its QEMU, which waits some 15 ms for that before it frees the guest's memory. By
    then the guest's first reply is out, and nothing of it was slowed down on processors that both hosts share.
    """

    name = "virsh-ahead"

    def __init__(self, lab: Lab, load: Load) -> None:
        super().__init__(lab, load)
        guest, here = self.guests[0], lab.hosts[self.here]
        ids = {"iface-id": guest.port_id, "iface-status": "active", "attached-mac": guest.mac}
        written = " ".join(f"external_ids:{key}='\"{value}\"'" for key, value in ids.items())
        lines = (
            f"ip tuntap add dev {TAP} mode tap vnet_hdr",
            f"ip link set {TAP} up",
            f"ovs-vsctl add-port br-int {TAP} tag={TENANT_VLAN} -- set Interface {TAP} {written}",
        )
        for host in lab.hosts.values():
            host.run(["sh", "-ec", "\n".join(lines)])
        xml = _on_its_tap(here.virsh("dumpxml", "--inactive", guest.name))
        here.virsh("destroy", guest.name)
        here.run(["sh", "-c", "cat >/run/ahead.xml"], stdin=xml)
        here.virsh("define", "/run/ahead.xml")
        here.virsh("start", guest.name)
        guest.status(timeout=LONGEST_S)
        self.rest()


def _on_its_tap(xml: str) -> str:
    domain = etree.fromstring(xml)
    for nic in domain.iterfind("devices/interface"):
        for child in [c for c in nic if c.tag in ("source", "virtualport", "vlan", "target")]:
            nic.remove(child)
        nic.set("type", "ethernet")
        etree.SubElement(nic, "target", dev=TAP, managed="no")
    return etree.tostring(domain, encoding="unicode")


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
    arms = [Virsh(lab, Load()), Ahead(lab, Load()), Sterna(lab, Load()), held]
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
