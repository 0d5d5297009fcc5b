"""What was measured of the planner, as pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pygal
from pygal.style import Style

from bench.fleet.measures import Row, drain_of
from bench.fleet.world import Fleet, make
from sterna.domain.fleet.planner import plan

COLOURS = {"Sterna": "#2e6f9e", "Nova": "#d08770", "KubeVirt": "#8c8c8c"}


def draw(results: dict[str, list[Row]], folder: Path) -> list[Path]:
    """The pictures' files."""
    drawn: dict[str, Callable[[list[Row]], Any]] = {"makespans": makespans, "promises": promises}
    pictures = {f"planning-{name}.svg": drawn[name](rows) for name, rows in results.items() if name in drawn}
    if "plans" in results:
        pictures["planning-timeline.svg"] = timeline()
    for name, picture in pictures.items():
        (folder / name).write_bytes(picture.render())
    return [folder / name for name in pictures]


def config(title: str, colours: list[str], **more: Any) -> dict[str, Any]:
    """How charts look, for pygal."""
    style = Style(background="#ffffff", plot_background="#ffffff", colors=tuple(colours), title_font_size=15)
    look = {"title": title, "style": style, "js": [], "width": 760, "height": 380, "explicit_size": True}
    return look | {"legend_at_bottom": True, "truncate_legend": -1} | more


def makespans(rows: list[Row]) -> pygal.XY:
    """Drains by their ratio to the bound, the worst last."""
    axes = {"y_title": "makespan / lower bound", "x_title": "drains of 50 hosts, sorted", "logarithmic": True}
    chart = pygal.XY(**config("Drains against their lower bound", list(COLOURS.values()), stroke=False, **axes))
    for arm in COLOURS:
        ratios = sorted(row[arm] / row["bound_s"] for row in rows if row["hosts"] == 50)
        chart.add(arm, list(enumerate(ratios, start=1)))
    return chart


def promises(rows: list[Row]) -> pygal.XY:
    """Promised ends against actual ones; below the line a promise was kept."""
    axes = {"y_title": "actual, s", "x_title": "promised, s", "stroke": False}
    colours = [COLOURS["Sterna"], COLOURS["Nova"], COLOURS["KubeVirt"]]
    chart = pygal.XY(**config("Promised ends of drains", colours, **axes))
    for hosts, name in ((1, "one host"), (50, "50 hosts")):
        chart.add(name, [(row["promised_s"], row["actual_s"]) for row in rows if row["hosts"] == hosts])
    longest = max(row["actual_s"] for row in rows)
    chart.add("kept just so", [(0, 0), (longest, longest)], stroke=True, show_dots=False)
    return chart


def timeline() -> pygal.XY:
    """The moves away from one host: one line for each, from its begin to its end."""
    snapshot = make(Fleet(), 1)
    answer = plan(snapshot, drain_of(snapshot, 1, 3))
    axes = {"x_title": "s", "show_y_labels": False, "show_dots": False, "stroke_style": {"width": 9}}
    chart = pygal.XY(**config("A drain of one host, its VMs' moves", ["#2e6f9e"], show_legend=False, **axes))
    moves = sorted(answer.moves, key=lambda move: (-move.start_s, -move.end_s))
    for place, move in enumerate(moves, start=1):
        chart.add(move.name, [(move.start_s, place), (move.end_s, place)])
    return chart
