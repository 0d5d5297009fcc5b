"""Pictures of what `make bench` measured: a file of raw samples in, an SVG beside it.

    python -m bench.plots [FILE.json ...]

Without a name: every file in docs/benchmarks that it knows how to draw.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pygal
from pygal.style import Style

HERE = Path("docs/benchmarks")
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
    arms = [arm for arm in ARMS if any(r["arm"] == arm for r in rows)]
    drawn = [(figure, arm) for figure in BOXES for arm in arms]
    title = f"{len(rows) // len(arms)} rounds: quartiles, median, outliers"
    more = {"box_mode": "tukey", "legend_at_bottom_columns": len(arms)}
    chart = pygal.Box(**_config(title, "ms", [COLOURS[arm] for _, arm in drawn], **more))
    for figure, arm in drawn:
        chart.add(f"{figure}, {ARMS[arm]}", [BOXES[figure](r) for r in rows if r["arm"] == arm])
    return chart


DRAWN: dict[str, Callable[[Sequence[Row]], Any]] = {"one": boxes}
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
