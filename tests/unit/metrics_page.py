"""docs/reference/metrics.md: every metric of both processes, from the catalogue."""

from __future__ import annotations

from collections.abc import Iterable

from sterna.domain.metrics import catalogue
from sterna.domain.metrics.families import Metric
from tests.unit.markdown import MADE, cell


def _rows(metrics: Iterable[Metric]) -> list[str]:
    lines = ["| Metric | Type | Labels | What it is |", "|---|---|---|---|"]
    for metric in metrics:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        bounds = f" Buckets: {', '.join(f'{bound:g}' for bound in metric.buckets)}." if metric.buckets else ""
        lines.append(f"| `{metric.name}` | {metric.type} | {labels} | {cell(metric.help + bounds)} |")
    return lines


def page() -> str:
    """The page."""
    own = [metric for metric in catalogue.CONTROLLER if metric not in (*catalogue.COMMON, *catalogue.COPIES)]
    agents = [metric for metric in catalogue.AGENT if metric not in catalogue.COMMON]
    parts = [
        ("Both processes", catalogue.COMMON, _COMMON),
        ("Controllers", own, _CONTROLLERS),
        ("Controllers: running copies", catalogue.COPIES, _COPIES),
        ("Agents", agents, ""),
    ]
    text = ["# Metrics", MADE, _INTRODUCTION]
    for title, metrics, about in parts:
        text += [f"## {title}", *([about] if about else []), "\n".join(_rows(metrics))]
    return "\n\n".join(text) + "\n"


_INTRODUCTION = """\
This page lists the Prometheus metrics at `/metrics` of controllers and agents. [Monitor](../how-to/monitor.md)
explains how to scrape them, and describes the alert rules and the dashboard.

Units are seconds, bytes and ratios from 0 to 1. Unknown values are absent, never 0. A metric that is 0 or 1 means
no or yes. Counters and histograms start at 0 when the process starts."""
_COMMON = f"""\
Besides these, both have the usual metrics of a process: {", ".join(f"`{name}`" for name in catalogue.PROCESS)}."""
_CONTROLLERS = """\
Controllers that share a database report the same hosts, VMs, migrations and operations: use the maximum over them.
Counters and histograms are different: a migration is counted by one of them, so use the sum. Not counted are
requests that no source accepted, migrations whose end is read more than a day late, and migrations of which only
their host's journal says that there were any."""
_COPIES = """\
Only for copies that have sent a sample within the last minute: a fleet of 10,000 VMs has series for the few that
move. `uuid` and `domain` are libvirt's, and join with libvirt's exporters. At most 1,000 copies have series."""
