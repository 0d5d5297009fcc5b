"""What `make bench` measures, each on the lab it is given: samples in, a table out.

Every experiment interleaves its arms at random within each round and copies over a link shaped to LINK_MIB_S.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table

from bench.arms import Arm, Load, Sample, Sterna, Virsh
from bench.figures import SEED, compare
from bench.foreseen import foreseen
from bench.lag import lag
from bench.late import late
from bench.qmp import Qmp
from bench.reply import reply
from sterna.lab.errors import LabError
from sterna.lab.lab import Lab

WARM_UP = 1
"""Rounds that are not counted: libvirt's and the agents' first connections."""
LINK_MIB_S = 100
SLOW_LINK_MIB_S = 50
FORECAST_LINK_MIB_S = 80
SPARSE_PING_MS = 20.0
DEADLINE_S = 60
Result = tuple[list[dict[str, Any]], RenderableType]


def shape(lab: Lab, mib_s: int) -> None:
    """Let each host send at most that much over the migration network."""
    for host in lab.hosts.values():
        rate = ("rate", f"{mib_s * 8 * 1048576}bit", "burst", "256kb", "latency", "50ms")
        host.inside.run(["tc", "qdisc", "replace", "dev", "mgmt0", "root", "tbf", *rate])


def _interleaved(arms: Sequence[Arm], rounds: int, console: Console) -> list[Sample]:
    """Each round moves each arm's guests once, in random order."""
    chance, samples = random.Random(SEED), []  # noqa: S311
    for number in range(-WARM_UP, rounds):
        for arm in chance.sample(list(arms), k=len(arms)):
            sample = arm.measure(number)
            if number >= 0:
                samples.append(sample)
                console.print(
                    f"{number + 1:3d}/{rounds} {arm.name:7s} {sample.total_ms:6.0f} ms, "
                    f"downtime {sample.downtime_ms:4.0f} ms, blackout {sample.blackout_ms:4.0f} ms"
                )
    return samples


def one(lab: Lab, rounds: int, console: Console) -> Result:
    """One guest: Sterna, virsh, and QEMU alone."""
    shape(lab, LINK_MIB_S)
    load = Load()
    alone = Qmp(lab, load)
    try:
        samples = _interleaved([alone, Virsh(lab, load), Sterna(lab, load)], rounds, console)
    finally:
        alone.end()
    title = f"{rounds} rounds: {load.memory_mib} MiB dirtying {load.dirty_mib_s} MiB/s, link of {LINK_MIB_S} MiB/s"
    return [s.row() for s in samples], compare(title, samples)


def sparse(lab: Lab, rounds: int, console: Console) -> Result:
    """One guest whose client sends less often: what it sent into the standstill is answered, or its next packet."""
    shape(lab, LINK_MIB_S)
    arms = [Virsh(lab, Load()), Sterna(lab, Load())]
    for arm in arms:
        arm.ping_ms = SPARSE_PING_MS
    samples = _interleaved(arms, rounds, console)
    return [s.row() for s in samples], compare(f"{rounds} rounds, a ping every {SPARSE_PING_MS:.0f} ms", samples)


def ten(lab: Lab, rounds: int, console: Console) -> Result:
    """Ten guests off one host: virsh one after another, Sterna asked for all at once."""
    shape(lab, LINK_MIB_S)
    load = Load(guests=10, memory_mib=128, dirty_mib_s=1, pace="calm")
    samples = _interleaved([Virsh(lab, load), Sterna(lab, load)], max(3, rounds // 4), console)
    title = f"ten guests: {load.memory_mib} MiB dirtying {load.dirty_mib_s} MiB/s each, link of {LINK_MIB_S} MiB/s"
    return [s.row() for s in samples], compare(title, samples, ("request to end, ms", "guest downtime, ms"))


def cpu(lab: Lab, rounds: int, console: Console) -> Result:
    """Both agents' processor time while libvirt copies: between a copy's first and last progress event."""
    shape(lab, SLOW_LINK_MIB_S // 2)
    arm, rows = Sterna(lab, Load()), []
    for number in range(max(3, rounds // 4)):
        arm.wake()
        there, seen = arm.there, []
        migration = arm.ask(arm.guests[0], there)
        for event, data in arm.api.events(migration):
            if event == "progress":
                seen.append((time.monotonic(), arm.agents_cpu_ms()))
            if event == "end" and data["status"] != "completed":
                raise LabError(f"migration {migration} is {data['status']}")
        arm.here = there
        arm.rest()
        took_ms = (seen[-1][0] - seen[0][0]) * 1000
        rows.append({"number": number, "copy_ms": took_ms, "cpu_ms": seen[-1][1] - seen[0][1]})
        console.print(f"{number + 1} cpu {rows[-1]['cpu_ms']:.0f} ms in {took_ms:.0f} ms of copying")
    shown = Table("while copying", "median", title="both agents together, one migration")
    shares = [row["cpu_ms"] / row["copy_ms"] * 100 for row in rows]
    shown.add_row("share of one core", f"{statistics.median(shares):.2f} %")
    return rows, shown


def rates(lab: Lab, rounds: int, console: Console) -> Result:
    """Guests that dirty memory at a share of the link's speed: who ends within DEADLINE_S?"""
    shape(lab, SLOW_LINK_MIB_S)
    rows = []
    shown = Table("dirtied, of the link", "virsh", "sterna", title=f"ended within {DEADLINE_S} s; s")
    for share in (0.2, 0.5, 0.8, 1.2):
        load = Load(dirty_mib_s=int(SLOW_LINK_MIB_S * share))
        took: dict[str, float | None] = {}
        for arm in (Virsh(lab, load), Sterna(lab, load)):
            arm.wake()
            before = arm.guests[0].status()
            began = time.monotonic()
            ended = _in_time(arm)
            took[arm.name] = time.monotonic() - began if ended else None
            after = arm.guests[0].status()
            rows.append(
                {"arm": arm.name, "share": share, "seconds": took[arm.name], "clean": after.clean,
                 "same_boot": after.boot_id == before.boot_id}
            )  # fmt: skip
            console.print(f"{share} {arm.name}: {took[arm.name]}")
            lab.remove_vm(arm.guests[0].name)
        shown.add_row(f"{share}", *(f"{t:.1f}" if t is not None else "no" for t in took.values()))
    return rows, shown


def forecast(lab: Lab, rounds: int, console: Console) -> Result:
    """What `sterna plan` says against what happens, on one link."""
    shape(lab, FORECAST_LINK_MIB_S)
    return foreseen(lab, console)


def first_reply(lab: Lab, rounds: int, console: Console) -> Result:
    """What the guest's first reply on its new host waits for."""
    shape(lab, LINK_MIB_S)
    return reply(lab, rounds, console)


def _in_time(arm: Arm) -> bool:
    """Did it end as it should? What virsh has begun is given up at the deadline."""
    there = arm.there
    if isinstance(arm, Virsh):
        try:
            arm.migrate(arm.guests[0], there, longest_s=DEADLINE_S)
        except LabError:
            arm.lab.hosts[arm.here].virsh("domjobabort", arm.guests[0].name)
            return False
    elif isinstance(arm, Sterna):
        arm.await_end(arm.ask(arm.guests[0], there, finish_within_s=DEADLINE_S, may=["postcopy"]))
    return True


EXPERIMENTS = {"one": one, "sparse": sparse, "ten": ten, "cpu": cpu, "rates": rates, "late": late, "lag": lag,
               "forecast": forecast, "reply": first_reply}  # fmt: skip
