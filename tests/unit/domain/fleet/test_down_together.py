"""Waves, and hosts that are closed, down or dead already: rules and failure domains count them."""

from __future__ import annotations

from typing import Any

import pytest

from sterna.domain.fleet.operations import Rolling
from sterna.domain.fleet.planner import plan
from sterna.domain.fleet.plans import Plan
from sterna.domain.fleet.snapshot import Rules
from tests.unit.domain.fleet.fleets import fleet, host

QUORUM = Rules(not_down_together=(frozenset({"a", "d"}),))
CLOSED = {"closed": "broken fan"}
DOWN = {"unreachable": "no beacon"}
DEAD = {"unreachable": "it was declared dead", "gone": True}


def rolled(
    *names: str, d: dict[str, Any] | None = None, rules: Rules = QUORUM, domain: str = "", **more: Any
) -> Plan:
    hosts = [host("a", domain=domain), host("b"), host("c"), host("d", domain=domain, **(d or {}))]
    wanted = Rolling.model_validate({"hosts": frozenset(names), "most_closed": 4} | more)
    return plan(fleet(hosts, [], rules=rules), wanted)


@pytest.mark.parametrize(
    "away, why",
    [
        (CLOSED, "d is closed: broken fan"),
        (DOWN, "d cannot be used: no beacon"),
        (DEAD, "d cannot be used: it was declared dead"),
    ],
)
def test_a_host_is_not_closed_while_one_that_a_rule_names_with_it_is_away(away: dict[str, Any], why: str) -> None:
    answer = rolled("a", "b", d=away)
    assert [wave.hosts for wave in answer.waves] == [("b",)]
    assert answer.skipped == {"a": f"a rule keeps a and d from being down together, and {why}"}


@pytest.mark.parametrize("away", [CLOSED, DOWN])
def test_a_host_is_not_closed_while_its_failure_domain_has_as_many_away(away: dict[str, Any]) -> None:
    answer = rolled("a", "b", d=away, domain="rack", rules=Rules())
    assert [wave.hosts for wave in answer.waves] == [("b",)]
    why = "is closed: broken fan" if away is CLOSED else "cannot be used: no beacon"
    assert answer.skipped == {"a": f"only 1 of its failure domain rack may be closed at once, and d {why}"}
    for most in (2, None):
        answer = rolled("a", "b", d=away, domain="rack", rules=Rules(), of_one_domain=most)
        assert [wave.hosts for wave in answer.waves] == [("a", "b")] and not answer.skipped


def test_one_that_is_gone_for_good_does_not_count_for_its_failure_domain() -> None:
    answer = rolled("a", d=DEAD, domain="rack", rules=Rules())
    assert [wave.hosts for wave in answer.waves] == [("a",)]


def test_one_that_is_away_itself_may_be_taken() -> None:
    answer = rolled("d", d=CLOSED, domain="rack")
    assert [wave.hosts for wave in answer.waves] == [("d",)]


def test_hosts_of_the_wave_that_is_under_way_are_open_by_then() -> None:
    answer = rolled("a", d=CLOSED, domain="rack", opening=frozenset({"d"}))
    assert [wave.hosts for wave in answer.waves] == [("a",)]


def test_where_the_rules_are_ignored_the_failure_domain_still_counts() -> None:
    assert [wave.hosts for wave in rolled("a", d=CLOSED, host_rules=False).waves] == [("a",)]
    assert not rolled("a", d=CLOSED, host_rules=False, domain="rack").waves
