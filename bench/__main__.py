"""`make bench`: Sterna against `virsh migrate`, interleaved at random in one run on one lab.

    python -m bench [ROUNDS]

Prints a table and writes every sample to out/bench.json. Numbers of different runs are not to be compared: machines
are noisy, the ratios of one run are what counts.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.arms import BANDWIDTH_MIB_S, MAX_DOWNTIME_MS, Arm, Sample, Sterna, Virsh
from sterna.lab.lab import Lab

ROUNDS = 20
WARM_UP = 1
"""Rounds that are not counted: libvirt's and the agents' first connections."""
MEMORY_MIB, DIRTY_MIB_S = 512, 20
RESAMPLES = 5000
OUT = Path("out/bench.json")
SEED = 5
Figure = Callable[[Sample], float]
FIGURES: dict[str, Figure] = {
    "request to end, ms": lambda s: s.total_ms,
    "around libvirt's job, ms": lambda s: s.total_ms - s.job_ms,
    "guest downtime, ms": lambda s: s.downtime_ms,
    "network blackout, ms": lambda s: s.blackout_ms,
    "blackout minus downtime, ms": lambda s: s.blackout_ms - s.downtime_ms,
}


def ratio(mine: Sequence[float], theirs: Sequence[float], chance: random.Random) -> tuple[float, float, float]:
    """The ratio of the medians, and its 95 % interval by bootstrap over the rounds."""
    pairs = list(zip(mine, theirs, strict=True))
    drawn = []
    for _ in range(RESAMPLES):
        some = chance.choices(pairs, k=len(pairs))
        drawn.append(statistics.median(m for m, _ in some) / statistics.median(t for _, t in some))
    drawn.sort()
    middle = statistics.median(mine) / statistics.median(theirs)
    return middle, drawn[int(RESAMPLES * 0.025)], drawn[int(RESAMPLES * 0.975)]


def measure(lab: Lab, rounds: int, chance: random.Random, console: Console) -> list[Sample]:
    """Each round moves each arm's guest once, in random order."""
    arms: list[Arm] = [kind(lab, memory_mib=MEMORY_MIB, dirty_mib_s=DIRTY_MIB_S) for kind in (Virsh, Sterna)]
    samples = []
    for number in range(-WARM_UP, rounds):
        for arm in chance.sample(arms, k=len(arms)):
            sample = arm.measure(number)
            if number >= 0:
                samples.append(sample)
                console.print(
                    f"{number + 1:3d}/{rounds} {arm.name:7s} {sample.total_ms:6.0f} ms, "
                    f"downtime {sample.downtime_ms:4.0f} ms, blackout {sample.blackout_ms:4.0f} ms"
                )
    return samples


def table(samples: list[Sample], chance: random.Random) -> Table:
    """Medians of both arms, and the ratio of each figure."""
    by_arm = {name: [s for s in samples if s.arm == name] for name in ("virsh", "sterna")}
    shown = Table(title=f"{len(by_arm['sterna'])} rounds, {MEMORY_MIB} MiB guest, {DIRTY_MIB_S} MiB/s dirtied, "
                        f"{BANDWIDTH_MIB_S} MiB/s and {MAX_DOWNTIME_MS} ms allowed")  # fmt: skip
    for heading in ("median", "virsh", "sterna", "ratio", "95 % interval"):
        shown.add_column(heading, justify="left" if heading == "median" else "right")
    for name, figure in FIGURES.items():
        theirs, mine = ([figure(s) for s in by_arm[arm]] for arm in ("virsh", "sterna"))
        medians = (f"{statistics.median(theirs):.0f}", f"{statistics.median(mine):.0f}")
        middle, low, high = ratio(mine, theirs, chance)
        shown.add_row(name, *medians, f"{middle:.2f}", f"{low:.2f} - {high:.2f}")
    cpu = [s.agents_cpu_ms for s in by_arm["sterna"] if s.agents_cpu_ms is not None]
    share = [s.agents_cpu_ms / s.total_ms * 100 for s in by_arm["sterna"] if s.agents_cpu_ms is not None]
    shown.add_row(
        "both agents' CPU, ms", "-", f"{statistics.median(cpu):.0f}", f"{statistics.median(share):.1f} %", ""
    )
    return shown


def main() -> int:
    """The benchmark; raises LabError where a migration went wrong."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    console, chance = Console(soft_wrap=True), random.Random(SEED)  # noqa: S311
    lab = Lab.up(Path(".lab-bench"), owner=True)
    try:
        samples = measure(lab, rounds, chance, console)
    finally:
        lab.down()
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps([s.row() for s in samples], indent=1))
    console.print(table(samples, chance))
    console.print(f"Every sample: {OUT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
