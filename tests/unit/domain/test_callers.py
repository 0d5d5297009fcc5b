"""Who may ask an agent for what."""

from __future__ import annotations

import pytest

from sterna.domain.trust.callers import CALLERS, Caller, needs_halves, not_theirs
from sterna.domain.trust.identities import CONTROLLER_TOKEN

HALVES = ("host1", "host2")
MAY = {
    Caller.ENROLLED: {"host1", "host2", "host3", CONTROLLER_TOKEN},
    Caller.CONTROLLER: {CONTROLLER_TOKEN},
    Caller.SOURCE: {"host1"},
    Caller.DESTINATION: {"host2"},
    Caller.INVOLVED: {"host1", "host2", CONTROLLER_TOKEN},
}


@pytest.mark.parametrize("method", CALLERS)
def test_each_method_has_its_callers(method: str) -> None:
    senders = MAY[Caller.ENROLLED]
    assert {s for s in senders if not not_theirs(method, s, HALVES)} == MAY[CALLERS[method]]


@pytest.mark.parametrize("method", [m for m in CALLERS if needs_halves(m)])
def test_about_a_migration_that_nobody_knows_the_handler_answers(method: str) -> None:
    assert not_theirs(method, "host3", None) == ""


def test_a_controllers_word_needs_no_migration() -> None:
    assert not_theirs("start_migration", "host1", None) == "only a controller may"
    assert not needs_halves("start_migration")


def test_what_is_not_in_the_table_is_refused() -> None:
    assert not_theirs("new_method", CONTROLLER_TOKEN, HALVES) == "nobody may"
