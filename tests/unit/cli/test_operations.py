"""`sterna drain`, `sterna operations` and `sterna operation`: what they print, and their exit codes."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from typer.testing import Result

from sterna.cli import operation
from sterna.controller.operations import carrying_out, patience, planning
from tests.unit.cli.reading import ID, document
from tests.unit.cli.served import Served

Sterna = Callable[..., Result]


@pytest.fixture(autouse=True)
def _without_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The controller and the command look more often, and no operation hopes for better times."""
    for module, name, value in (
        (operation, "LOOK_S", 0.05),
        (carrying_out, "LOOK_S", 0.05),
        (patience, "PATIENCE_MS", 0.0),
        (planning, "AGAIN_MS", 0.0),
    ):
        monkeypatch.setattr(module, name, value)


def test_a_plan_shows_what_would_move_and_what_stays(sterna: Sterna) -> None:
    shown = sterna("drain", "a", "--plan", code=3).stdout
    assert re.search(r"^web1 +a +b +empty +0 s +\d+ ", shown, re.M), shown
    assert "idle stays on a: idle cannot be migrated: it is paused" in shown
    assert re.search(r"^takes about .* probably no more than ", shown, re.M)
    asked = document(sterna("drain", "a", "--plan", "--json", code=3))
    assert [move["vm_name"] for move in asked["moves"]] == ["web1"]
    assert sterna("operations").stdout.count("\n") == 1
    assert "no VM" not in sterna("drain", "c", "--plan").stdout


def test_a_drain_and_its_undo_are_watched_to_the_end(sterna: Sterna) -> None:
    drained = sterna("drain", "a", "--reason", "new fans", "--id", ID, "--watch", code=7)
    assert "running: " in drained.stdout and "incomplete: 1 moved, 0 under way, 0 waiting, 1 stay" in drained.stdout
    assert "idle stays on a: idle cannot be migrated: it is paused" in drained.stdout
    assert re.search(r"^[0-9a-f]{8} +web1 +a +b +empty +arrived", drained.stdout, re.M)
    assert "in maintenance: operation 33333333 of token:admin: new fans" in sterna("hosts").stdout
    assert re.search(
        r"^33333333 +drain +incomplete +0 +0 +1 +.* token:admin +a *$", sterna("operations").stdout, re.M
    )
    shown = sterna("operation", "show", ID[:5]).stdout
    assert "new fans" in shown and "incomplete" in shown
    undone = sterna("operation", "undo", ID, "--watch")
    assert "undone: 1 moved, 1 brought back" in undone.stdout
    assert re.search(r"^web1 +a +running", sterna("vms").stdout, re.M)
    assert "maintenance" not in sterna("hosts").stdout
    assert document(sterna("operation", "show", ID, "--json"))["status"] == "undone"


def test_one_that_waits_says_why_and_obeys(sterna: Sterna, fleet: Served) -> None:
    fleet.outcome = "aborted"
    begun = document(sterna("drain", "a", "--id", ID, "--json"))
    assert begun["status"] == "running" and begun["id"] == ID
    assert sterna("operation", "pause", ID).stdout == f"a: paused\nfollow it with: sterna operation show {ID}\n"
    refused = sterna("operation", "pause", "4444", code=5)
    assert "fix: `sterna operations` lists them" in refused.stderr
    assert sterna("operation", "resume", ID, "--json").exit_code == 0
    for _ in range(200):
        if document(sterna("operation", "show", ID, "--json"))["running"]:
            break
    stopped = sterna("operation", "stop", ID, "--watch")
    assert "stopped: 0 moved" in stopped.stdout and re.search(r"web1 .* cancelled +aborted", stopped.stdout)
    fleet.outcome = "completed"
    assert "incomplete: 1 moved" in sterna("operation", "resume", ID, "--watch", code=7).stdout
    assert "cannot be changed with pause" in sterna("operation", "pause", ID, code=4).stderr


def test_a_deadline_that_would_be_missed_is_refused(sterna: Sterna) -> None:
    late = sterna("drain", "a", "--finish-within", "1s", code=3).stderr
    assert "more than allowed [deadline-missed]" in late and "--even-if-late" in late
    assert "would stay on its hosts: idle cannot be migrated: it is paused [deadline-missed]" in late
    preview = sterna("drain", "a", "--finish-within", "1s", "--plan", code=3).stdout
    assert re.search(r"^late by \d+ ", preview, re.M)
    begun = document(sterna("drain", "a", "--finish-within", "1s", "--even-if-late", "--json"))
    assert begun["finish_within_s"] == 1


def test_what_makes_no_sense_is_refused(sterna: Sterna) -> None:
    assert "there is no host z" in sterna("drain", "a", "z", code=5).stderr
    sterna("drain", code=2)
    sterna("drain", "a", "--may", "explode", code=3)
    sterna("operation", "show", "", code=5)
