"""What was measured of the planner, as tables."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean

from rich.table import Table

from bench.fleet.measures import Row

ARMS = ("Sterna", "Nova", "KubeVirt")


def plans(rows: list[Row]) -> Table:
    """By use."""
    shown = Table("used", "moves", "to make room", "left over, most", "CPU s, worst", title="plan of 50 hosts")
    for used in sorted({row["used"] for row in rows}):
        mine = [row for row in rows if row["used"] == used]
        moves, rooms = (_range([row[key] for row in mine]) for key in ("moves", "rooms"))
        left, seconds = (max(row[key] for row in mine) for key in ("left", "seconds"))
        shown.add_row(f"{used:.0%}", moves, rooms, str(left), f"{seconds:.2f}")
    return shown


def makespans(rows: list[Row]) -> Table:
    """Ratios to the lower bound."""
    shown = Table("hosts", "drains", *(f"{arm}: mean, worst" for arm in ARMS), title="makespan / lower bound")
    for hosts in sorted({row["hosts"] for row in rows}):
        mine = [row for row in rows if row["hosts"] == hosts]
        ratios = [[row[arm] / row["bound_s"] for row in mine] for arm in ARMS]
        shown.add_row(str(hosts), str(len(mine)), *(f"{mean(some):.2f}, {max(some):.2f}" for some in ratios))
    return shown


def rolling(rows: list[Row]) -> Table:
    """One line each."""
    columns = ("sizes", "CPU s", "waves (bound)", "moves per VM", "left over", "hosts skipped", "hours")
    shown = Table(*columns, title="rolling upgrade of 1,000 hosts")
    for row in rows:
        shown.add_row(
            row["sizes"],
            f"{row['seconds']:.2f}",
            f"{row['waves']} ({row['bound_waves']:.0f})",
            f"{row['moves_per_vm']:.3f}",
            str(row["left"]),
            str(row["skipped"]),
            f"{row['expected_s'] / 3600:.1f}",
        )
    return shown


def promises(rows: list[Row]) -> Table:
    """Kept or not."""
    shown = Table("hosts", "drains", "kept", "promised / actual", "expected / actual", title="promised ends")
    for hosts in (*sorted({row["hosts"] for row in rows}), None):
        mine = [row for row in rows if hosts in (row["hosts"], None)]
        kept = sum(row["actual_s"] <= row["promised_s"] for row in mine)
        ratios = (mean(row[key] / row["actual_s"] for row in mine) for key in ("promised_s", "expected_s"))
        name = "all" if hosts is None else str(hosts)
        shown.add_row(name, str(len(mine)), f"{kept / len(mine):.0%}", *(f"{ratio:.2f}" for ratio in ratios))
    return shown


def _range(values: list[int]) -> str:
    return f"{min(values)} - {max(values)}"


SHOWN: dict[str, Callable[[list[Row]], Table]] = {
    "plans": plans,
    "makespans": makespans,
    "rolling": rolling,
    "promises": promises,
}
