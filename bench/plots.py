"""Pictures of what `make bench` measured: a file of raw samples in, an SVG beside it.

    python -m bench.plots [FILE.json ...]

Without a name: every file in docs/lab-notebook/benchmarks that it knows how to draw.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pygal
from pygal.style import Style

HERE = Path("docs/lab-notebook/benchmarks")
Row = dict[str, Any]
ARMS = {"qmp": "QEMU alone", "virsh": "virsh", "sterna": "Sterna"}
COLOURS = {"qmp": "#8c8c8c", "virsh": "#d08770", "sterna": "#2e6f9e"}
BOXES: dict[str, Callable[[Row], float]] = {
    "overhead": lambda r: r["total_ms"] - r["job_ms"],
    "downtime": lambda r: r["downtime_ms"],
    "blackout": lambda r: r["blackout_ms"],
}


def _config(title: str, y_title: str, colours: Sequence[str], **more: Any) -> dict[str, Any]:
    style = Style(background="#ffffff", plot_background="#ffffff", colors=tuple(colours), title_font_size=15)
    look = {"title": title, "y_title": y_title, "style": style, "js": [], "width": 760, "height": 380}
    return look | {"explicit_size": True, "legend_at_bottom": True, "truncate_legend": -1} | more


def boxes(rows: Sequence[Row]) -> pygal.Box:
    """A box for each arm of each figure: quartiles and median; single dots are outliers."""
    arms = _arms(rows)
    drawn = [(figure, arm) for figure in BOXES for arm in arms]
    title = f"{len(rows) // len(arms)} rounds: quartiles, median, outliers"
    more = {"box_mode": "tukey", "legend_at_bottom_columns": len(arms)}
    chart = pygal.Box(**_config(title, "ms", [COLOURS[arm] for _, arm in drawn], **more))
    for figure, arm in drawn:
        chart.add(f"{figure}, {ARMS[arm]}", [BOXES[figure](r) for r in rows if r["arm"] == arm])
    return chart


def totals(rows: Sequence[Row]) -> pygal.Box:
    """From the first request to the end of the last guest's migration."""
    arms = _arms(rows)
    title = f"ten guests off one host, {len(rows) // len(arms)} rounds"
    chart = pygal.Box(**_config(title, "s", [COLOURS[a] for a in arms], box_mode="extremes", range=(0, None)))
    for arm in arms:
        chart.add(ARMS[arm], [r["total_ms"] / 1000 for r in rows if r["arm"] == arm])
    return chart


def ends(rows: Sequence[Row]) -> pygal.Bar:
    """Seconds to the end by dirty rate; no bar: it was given up."""
    arms, shares = _arms(rows), sorted({r["share"] for r in rows})
    chart = pygal.Bar(**_config("end of the migration; no bar: never", "s", [COLOURS[a] for a in arms]))
    chart.x_labels = [f"{share:g} x link" for share in shares]
    for arm in arms:
        took = {r["share"]: r["seconds"] for r in rows if r["arm"] == arm}
        chart.add(ARMS[arm], [took.get(share) for share in shares])
    return chart


def lateness(rows: Sequence[Row]) -> pygal.XY:
    """The guest's silence against how late its port is wired: medians."""
    arms = _arms(rows)
    more = {"x_title": "the network agent wires the port so late, s", "show_x_guides": True}
    chart = pygal.XY(**_config("network blackout, medians", "s", [COLOURS[a] for a in arms], **more))
    for arm in arms:
        mine = [r for r in rows if r["arm"] == arm]
        points = []
        for late in sorted({r["delay_s"] for r in mine}):
            points.append((late, statistics.median(r["blackout_ms"] / 1000 for r in mine if r["delay_s"] == late)))
        chart.add(ARMS[arm], points)
    return chart


def _arms(rows: Sequence[Row]) -> list[str]:
    return [arm for arm in ARMS if any(r["arm"] == arm for r in rows)]


def shares(rows: Sequence[Row]) -> pygal.XY:
    """Which share of the switch-overs was so quick, or quicker."""
    told = {"x_title": "ms since QEMU's RESUME event", "show_dots": False}
    colours = [COLOURS["sterna"], COLOURS["virsh"], COLOURS["qmp"]]
    chart = pygal.XY(**_config(f"{len(rows)} switch-overs: share that was at most so late", "%", colours, **told))
    names = {"frame_ms": "on the network", "journal_ms": "in the agent's journal", "api_ms": "told by the API"}
    for key, name in names.items():
        values = sorted(r[key] for r in rows if r[key] is not None)
        chart.add(name, [(v, 100 * (n + 1) / len(values)) for n, v in enumerate(values)])
    return chart


def promises(rows: Sequence[Row]) -> pygal.XY:
    """Forecast against actual; the line is a forecast that is right."""
    told = {"x_title": "forecast, s", "stroke": False, "dots_size": 4}
    colours = [COLOURS["virsh"], COLOURS["sterna"], COLOURS["qmp"]]
    chart = pygal.XY(**_config("Total time: forecast and actual", "actual, s", colours, **told))
    for after, name in ((0, "before a VM's first migration"), (3, "after three")):
        some = [r for r in rows if r["after"] == after and r["told"]["total_ms"]]
        chart.add(name, [(r["told"]["total_ms"] / 1000, r["report"]["total_ms"] / 1000) for r in some])
    longest = max(r["report"]["total_ms"] for r in rows) / 1000
    chart.add("exact", [(0, 0), (longest, longest)], stroke=True, show_dots=False)
    return chart


DRAWN: dict[str, Callable[[Sequence[Row]], Any]] = {
    "one": boxes,
    "ten": totals,
    "rates": ends,
    "late": lateness,
    "lag": shares,
    "forecast": promises,
}
"""Experiment, as its file is called, and how it is drawn."""


def draw(raw: Path) -> Path:
    """The picture's file. Raises KeyError for an experiment without a picture, OSError."""
    picture = raw.with_suffix(".svg")
    picture.write_bytes(DRAWN[raw.stem](json.loads(raw.read_text())).render())
    return picture


def main() -> int:
    """Draw what is named, or all."""
    named = [Path(arg) for arg in sys.argv[1:]]
    for raw in named or sorted(p for p in HERE.glob("*.json") if p.stem in DRAWN):
        print(draw(raw))
    return 0


if __name__ == "__main__":
    sys.exit(main())
