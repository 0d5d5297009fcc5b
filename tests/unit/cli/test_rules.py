"""`sterna rules`, `sterna place` and `sterna queue`: what they print, and their exit codes."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from typer.testing import Result

from sterna.controller.operations import carrying_out
from tests.unit.cli.reading import ID, document
from tests.unit.cli.served import Served

Sterna = Callable[..., Result]


def test_a_rule_from_its_creation_to_its_removal(sterna: Sterna) -> None:
    sterna("vms")  # these agents are asked, and do not tell by themselves
    made = sterna("rules", "add", "apart", "web", "--vm", "web1,idle", "--reason", "two of three must run")
    assert made.stdout == "web: saved (apart)\n"
    assert made.stderr == "web: it is broken: idle, web1 are on a\n"
    listed = sterna("rules", "list").stdout
    assert re.search(r"^web +apart +idle, web1 +host +token:admin +two of three must run *$", listed, re.M)
    assert "web: it is broken: idle, web1 are on a" in listed
    assert document(sterna("rules", "show", "web", "--json"))["vms"] == ["idle", "web1"]
    taken = sterna("rules", "add", "never-move", "web", "--vm", "web1", code=4)
    assert "there is another rule web" in taken.stderr and "--replace" in taken.stderr
    assert (
        sterna("rules", "add", "never-move", "web", "--vm", "web1", "--replace").stdout
        == "web: saved (never-move)\n"
    )
    assert sterna("rules", "remove", "web").stdout == "removed web (never-move)\n"
    assert "fix: `sterna rules list` lists them" in sterna("rules", "show", "web", code=5).stderr
    assert document(sterna("rules", "list", "--json"))["rules"] == []


def test_every_kind_can_be_written(sterna: Sterna) -> None:
    for kind, *options in (
        ("together", "--vm", "web1", "--vm", "idle"),
        ("only-on", "--vm", "web1", "--host", "a,b"),
        ("never-on", "--vm", "web1", "--host", "c"),
        ("priority", "--vm", "web1", "--priority", "-5"),
        ("not-down-together", "--host", "a", "--host", "b"),
        ("failure-domain", "--host", "a,b"),
    ):
        assert sterna("rules", "add", kind, f"r-{kind}", *options).stdout == f"r-{kind}: saved ({kind})\n"
    far = document(sterna("rules", "add", "apart", "far", "--vm", "x,y", "--scope", "failure-domain", "--json"))
    assert (far["scope"], far["problems"]) == ("failure-domain", ["there is no VM x", "there is no VM y"])
    listed = document(sterna("rules", "list", "--vm", "web1", "--kind", "only-on", "--kind", "priority", "--json"))
    assert [rule["name"] for rule in listed["rules"]] == ["r-only-on", "r-priority"]
    assert "r-failure-domain" in sterna("rules", "list", "--host", "b").stdout
    assert "names at least 2 VMs" in sterna("rules", "add", "apart", "one", "--vm", "web1", code=2).stderr
    sterna("rules", "add", "sometimes", "one", code=2)


def test_a_migration_that_breaks_a_rule_needs_to_be_told_so(sterna: Sterna) -> None:
    sterna("rules", "add", "never-on", "slow", "--vm", "web1", "--host", "b")
    refused = sterna("migrate", "web1", "--to", "b", code=3).stderr
    assert "the rule slow keeps web1 off b [placement-rule]" in refused and "--ignore-rules" in refused
    assert "[placement-rule]" in sterna("plan", "web1", "--to", "b", code=3).stdout
    assert "no blockers" in sterna("plan", "web1", "--to", "b", "--ignore-rules").stdout
    assert "web1: a -> b, accepted" in sterna("migrate", "web1", "--to", "b", "--ignore-rules").stdout


def test_hosts_that_are_not_to_be_down_together(sterna: Sterna) -> None:
    sterna("rules", "add", "not-down-together", "quorum", "--host", "b,c")
    refused = sterna("drain", "b", "c", code=3).stderr
    assert "the rule quorum keeps b, c from being down together [hosts-down-together]" in refused
    assert "being emptied" in sterna("drain", "b", "c", "--ignore-host-rules").stdout


def test_all_hosts_are_ranked(sterna: Sterna) -> None:
    sterna("rules", "add", "never-on", "slow", "--vm", "web1", "--host", "b")
    placed = sterna("place", "web1").stdout
    assert placed.startswith("web1 is on a\n")
    assert re.search(r"^c +\d\.\d{3} +leaves 14.5 GiB and 63 vCPUs *$", placed, re.M)
    assert re.search(r"^b +- +it is forbidden by the rule slow$", placed, re.M)
    paused = sterna("place", "idle", code=3).stdout
    assert "it cannot be migrated now: idle cannot be migrated: it is paused" in paused
    assert [one["host"] for one in document(sterna("place", "web1", "--json"))["hosts"]] == ["c", "b"]
    sterna("rules", "add", "only-on", "here", "--vm", "web1", "--host", "a")
    sterna("place", "web1", code=3)
    sterna("place", "nobody", code=5)


def test_what_waits_says_why(sterna: Sterna, fleet: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrying_out, "LOOK_S", 0.05)
    assert sterna("queue").stdout.split() == ["VM", "FROM", "TO", "OPERATION", "WAITS"]
    fleet.outcome = "aborted"  # it goes on until then
    for name in ("db1", "db2"):
        fleet.a.add_vm(name, 5 + len(fleet.a.vms))
    sterna("vms")
    sterna("drain", "a", "--id", ID)
    for _ in range(200):
        if len(document(sterna("queue", "--json"))["waits"]) == 1:
            break
    else:
        pytest.fail("nothing waits")
    shown = sterna("queue", "--operation", ID[:8]).stdout
    assert re.search(rf"^\w+ +a +[bc] +{ID[:8]} +the link out of a already carries 2 copies: ", shown, re.M)
    assert document(sterna("queue", "--host", "nowhere", "--json"))["waits"] == []
