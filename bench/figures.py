"""Medians, ratios and their intervals. Pure."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence

from rich.table import Table

from bench.arms import Sample

RESAMPLES = 5000
SEED = 5
Figure = Callable[[Sample], float]
FIGURES: dict[str, Figure] = {
    "request to end, ms": lambda s: s.total_ms,
    "around libvirt's job, ms": lambda s: s.total_ms - s.job_ms,
    "guest downtime, ms": lambda s: s.downtime_ms,
    "network blackout, ms": lambda s: s.blackout_ms,
    "blackout minus downtime, ms": lambda s: s.blackout_ms - s.downtime_ms,
    "pings lost": lambda s: s.lost,
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


def compare(title: str, samples: list[Sample], figures: Sequence[str] = tuple(FIGURES)) -> Table:
    """Medians of each arm, and of each figure the ratio of Sterna to virsh."""
    chance = random.Random(SEED)  # noqa: S311
    arms = [name for name in ("qmp", "virsh", "sterna") if any(s.arm == name for s in samples)]
    by_arm = {name: [s for s in samples if s.arm == name] for name in arms}
    shown = Table(title=title)
    for heading in ("median", *arms, "sterna / virsh", "95 % interval"):
        shown.add_column(heading, justify="left" if heading == "median" else "right")
    for name in figures:
        values = {arm: [FIGURES[name](s) for s in by_arm[arm]] for arm in arms}
        medians = [f"{statistics.median(values[arm]):.0f}" for arm in arms]
        middle, low, high = ratio(values["sterna"], values["virsh"], chance)
        shown.add_row(name, *medians, f"{middle:.2f}", f"{low:.2f} - {high:.2f}")
    cpu = [s.agents_cpu_ms for s in by_arm["sterna"] if s.agents_cpu_ms is not None]
    shown.add_row("both agents' CPU, ms", *["-"] * (len(arms) - 1), f"{statistics.median(cpu):.0f}", "", "")
    return shown
