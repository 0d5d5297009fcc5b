"""The catalogue of metrics follows Prometheus's conventions; rules and dashboard name nothing that is not in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from sterna.domain.metrics import catalogue
from sterna.domain.metrics.families import Metric, MetricType
from tests.unit.alert_rules import RULES, promtool, rules
from tests.unit.grafana_schema import Dashboard

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "packaging/prometheus/dashboard.json"
METRICS = {metric.name: metric for metric in (*catalogue.CONTROLLER, *catalogue.AGENT)}
SERIES = {series: metric for metric in METRICS.values() for series in metric.series}
UNITS = ("_seconds", "_bytes", "_ratio", "_bytes_per_second", "_info", "_total")
WITHOUT_UNIT = {
    "sterna_bus_connected", "sterna_warning", "sterna_dead_letters", "sterna_database_up", "sterna_host_state",
    "sterna_host_maintenance", "sterna_host_warning", "sterna_host_vms", "sterna_vms", "sterna_migrations",
    "sterna_host_migrations", "sterna_operations", "sterna_operation_vms", "sterna_agent_usable",
    "sterna_notifications_pending",
    "sterna_agent_migrations", "sterna_agent_outbox_pending", "sterna_agent_outbox_refused",
}  # fmt: skip
"""Numbers of things, and answers to yes or no."""
_SELECTOR = re.compile(r"\b(sterna_\w+)(?:\{([^}]*)\})?")
_LABEL = re.compile(r'(\w+)\s*(?:=~|!=|=|!~)\s*"([^"]*)"')
_GROUPED = re.compile(r"\b(?:by|without|on)\s*\(([^)]*)\)")
ADDED = {"instance", "job", "le"}
"""Labels that Prometheus adds to all series, and a histogram to its buckets."""


def expressions() -> Iterator[tuple[str, str]]:
    """Where each is, and the expression."""
    yield from ((rule["alert"], rule["expr"]) for rule in rules())
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        yield from ((panel["title"], target["expr"]) for target in panel.get("targets", ()))


EXPRESSIONS = list(expressions())


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_a_metric_follows_the_conventions(metric: Metric) -> None:
    assert re.fullmatch(r"sterna_[a-z0-9_]+", metric.name)
    assert metric.name.endswith("_total") == (metric.type is MetricType.COUNTER)
    assert metric.name.endswith(UNITS) or metric.name in WITHOUT_UNIT
    assert metric.help.endswith(".") and len(metric.help) > 10
    assert list(metric.buckets) == sorted(metric.buckets) and bool(metric.buckets) == (
        metric.type is MetricType.HISTOGRAM
    )


def test_no_metric_has_two_meanings() -> None:
    for process in (catalogue.CONTROLLER, catalogue.AGENT):
        assert len({metric.name for metric in process}) == len(process)


def test_only_what_is_under_way_has_series_of_its_own() -> None:
    """10,000 VMs are not 10,000 series."""
    by_vm = {metric.name for metric in METRICS.values() if {"uuid", "domain", "vm"} & set(metric.labels)}
    assert by_vm == {metric.name for metric in catalogue.COPIES}


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS, ids=[where for where, _ in EXPRESSIONS])
def test_an_expression_names_what_there_is(where: str, expression: str) -> None:
    found = _SELECTOR.findall(expression)
    assert found
    labels = set()
    for name, selected in found:
        metric = SERIES.get(name)
        assert metric is not None, f"{where}: there is no {name}"
        labels |= set(metric.labels)
        for label, value in _LABEL.findall(selected):
            assert label in metric.labels, f"{where}: {name} has no label {label}"
            assert set(value.split("|")) <= known_values(metric, label), f"{where}: {label} is never {value}"
    for grouped in _GROUPED.findall(expression):
        assert {one.strip() for one in grouped.split(",")} <= labels | ADDED, f"{where}: {grouped}"


def known_values(metric: Metric, label: str) -> set[str]:
    """What a label may be, where that is a set of words."""
    from sterna.controller.metrics import OPEN, STATES
    from sterna.controller.notifications.endpoint import RESULTS
    from sterna.domain.status import FINAL

    words = {
        ("sterna_host_state", "state"): set(STATES),
        ("sterna_migrations", "status"): set(OPEN),
        ("sterna_migrations_finished_total", "outcome"): {status.value for status in FINAL},
        ("sterna_migration_duration_seconds", "outcome"): {status.value for status in FINAL},
        ("sterna_notifications_total", "result"): set(RESULTS),
    }
    return words[metric.name, label]


def test_every_alert_is_explained_where_operators_look() -> None:
    page = (ROOT / "docs/how-to/monitor.md").read_text()
    assert [rule["alert"] for rule in rules() if f"`{rule['alert']}`" not in page] == []
    for rule in rules():
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description"}


def test_the_labels_of_an_annotation_survive_its_expression() -> None:
    for rule in rules():
        for label in re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])):
            kept = _GROUPED.findall(rule["expr"])
            aggregated = re.match(r"\s*(max|sum)\b", rule["expr"])
            assert not aggregated or any(label in grouped for grouped in kept), rule["alert"]


def test_the_dashboard_is_one_that_grafana_reads() -> None:
    board = json.loads(DASHBOARD.read_text())
    Dashboard.model_validate(board)
    assert board["uid"] == "sterna-fleet"
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24 and not cells & taken
        taken |= cells
        for target in panel.get("targets", ()):
            assert target["datasource"]["uid"] == "${datasource}" and target["refId"]


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("panels.1.gridPos.w", 25),
        ("panels.1.options.colorMode", "rainbow"),
        ("panels.1.unknown", 1),
        ("templating.list.0.current", {}),
        ("graphTooltip", "1"),
    ],
)
def test_the_schema_refuses_what_grafana_does_not_know(path: str, wrong: object) -> None:
    board: Any = json.loads(DASHBOARD.read_text())
    *way, last = path.split(".")
    part = reduce(lambda found, key: found[int(key) if key.isdigit() else key], way, board)
    part[last] = wrong
    with pytest.raises(ValidationError):
        Dashboard.model_validate(board)


def test_promtool_reads_the_rules() -> None:
    assert promtool("check", "rules", RULES) == ""
