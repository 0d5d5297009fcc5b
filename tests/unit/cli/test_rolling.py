"""`sterna rolling` and `sterna operation done`: what they print, and their exit codes."""

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


def until(sterna: Sterna, line: str) -> str:
    """The operation, once a line of it matches: a host's stage is stored before the reason for it."""
    for _ in range(200):
        shown = sterna("operation", "show", ID).stdout
        if re.search(line, shown, re.M):
            return shown
    raise AssertionError(shown)


def test_a_plan_shows_waves_and_what_is_skipped(sterna: Sterna) -> None:
    shown = sterna("rolling", "--all", "--plan", code=3).stdout
    assert re.search(r"^ *0 +0 s +0 s +5 min 0 s +b", shown, re.M), shown
    assert "a is skipped: idle cannot be migrated: it is paused" in shown
    asked = document(sterna("rolling", "b", "c", "--most-closed", "2", "--plan", "--json"))
    assert [wave["hosts"] for wave in asked["waves"]] == [["b", "c"]]


def test_a_run_by_hand(sterna: Sterna) -> None:
    begun = sterna("rolling", "b", "--by-hand", "--back-within", "1h", "--id", ID, "--reason", "new kernel")
    assert begun.stdout == f"b: rolling maintenance started\nfollow it with: sterna operation show {ID}\n"
    shown = until(sterna, r"^b +0 +between +\S+ +nobody has reported yet that b is done")
    assert re.search(r"^back within +1 h 0 min", shown, re.M)
    assert re.search(r"^done to empty hosts +by hand", shown, re.M)
    assert "in maintenance: operation 33333333 of token:admin: new kernel" in sterna("hosts").stdout
    assert sterna("operation", "done", ID[:4], "b").stdout == "b: done\n"
    assert "no rolling operation on z" in sterna("operation", "done", ID, "z", code=5).stderr


def test_one_that_is_watched_ends_with_its_hosts_in_words(sterna: Sterna, fleet: Served) -> None:
    sterna("host", "maintenance", "b", "--on")
    ended = sterna("rolling", "a", "--by-hand", "--id", ID, "--watch", code=7).stdout
    assert "incomplete: 0 of 1 hosts done, 1 skipped, 0 moved" in ended
    assert re.search(r"^a +- +skipped +\S+ +idle cannot be migrated: it is paused", ended, re.M), ended


def test_what_is_wrong_is_said(sterna: Sterna) -> None:
    assert "the names of hosts or --all" in sterna("rolling", code=2).stderr
    assert "the names of hosts or --all" in sterna("rolling", "a", "--all", code=2).stderr
    refused = sterna("rolling", "a", "--between-webhook", "https://10.0.0.1/", code=3).stderr
    assert "webhook-not-allowed" in refused and "[fleet]" in refused
    assert "is not a valid duration" in sterna("rolling", "a", "--back-within", "soon", code=2).stderr
    for host in "abc":
        sterna("host", "maintenance", host, "--on")
    empty = sterna("rolling", "--all", "--by-hand", code=2).stderr
    assert "because in maintenance: a, b, c" in empty and "all hosts are in maintenance or dead" in empty
