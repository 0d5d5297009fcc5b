"""`sterna rebalance` and `sterna bring-back`: what they print, and their exit codes."""

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
BACK_ID = "44444444-4444-4444-8444-444444444444"


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


def test_a_rebalance_is_planned_switched_on_and_watched(sterna: Sterna, fleet: Served) -> None:
    sterna("drain", "a", "--plan", code=3)  # which has a list its VMs
    planned = sterna("rebalance", "--plan", "--threshold", "8").stdout
    assert "the fullest host is " in planned and re.search(r"^web1 +a +[bc] +balance ", planned, re.M), planned
    assert "[rebalance-off]" in sterna("rebalance", "--threshold", "8", code=3).stderr
    fleet.controller.operate.may_rebalance = True
    watched = sterna("rebalance", "--threshold", "8", "--id", ID, "--watch").stdout
    assert "done: 1 moved" in watched and re.search(r"^hosts +all hosts *$", watched, re.M)
    assert re.search(r"^threshold +8%", watched, re.M)
    assert "no move is worth it: the fullest host is " in sterna("rebalance", "--plan", "--threshold", "8").stdout
    assert re.search(r"^33333333 +rebalance +done .* all hosts *$", sterna("operations").stdout, re.M)


def test_vms_are_brought_back(sterna: Sterna) -> None:
    assert "[nothing-to-bring-back]" in sterna("bring-back", "a", code=3).stderr
    sterna("drain", "a", "--id", ID, "--watch", code=7)
    sterna("host", "maintenance", "a", "--off")
    assert re.search(r"^web1 +b +a +return ", sterna("bring-back", "a", "--plan").stdout, re.M)
    watched = sterna("bring-back", "a", "--id", BACK_ID, "--watch").stdout
    assert "done: 0 moved, 1 brought back" in watched
    assert re.search(r"^VMs to bring back +1 *$", watched, re.M)
    assert document(sterna("operation", "show", BACK_ID, "--json"))["kind"] == "bring-back"
