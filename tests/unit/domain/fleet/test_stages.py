"""How far the hosts of a rolling operation are, and what follows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from sterna.domain.fleet.course import OperationStatus
from sterna.domain.fleet.operations import Drain
from sterna.domain.fleet.planner import plan
from sterna.domain.fleet.stages import (
    UNDONE,
    Between,
    Heard,
    HostStep,
    Stage,
    between_s,
    come_back,
    ended_as,
    missing,
    overdue,
    resumed,
    undone,
    wave_of,
)
from tests.unit.domain.fleet.fleets import fleet, host, vm

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
UP, DOWN = (
    Heard(up=True, boot="life-2", version="1.0", seen_at=NOW.isoformat()),
    Heard(up=False, why="it is silent"),
)
SAME = UP.model_copy(update={"boot": "life-1"})
BY_HAND, WEBHOOK, RESTART = Between(by_hand=True), Between(webhook="https://jobs.example/"), Between()


def at(stage: Stage = Stage.BETWEEN, ago_s: float = 60, **more: object) -> HostStep:
    since = (NOW - timedelta(seconds=ago_s)).isoformat()
    known = {"host": "a", "stage": stage, "since": since, "boot": "life-1"}
    return HostStep.model_validate(known | more)


def ago(seconds: float) -> str:
    return (NOW - timedelta(seconds=seconds)).isoformat()


@pytest.mark.parametrize(
    "step, between, heard, why",
    [
        (at(), RESTART, UP, ""),
        (at(), RESTART, SAME, "the agent of a has not restarted yet"),
        (at(), RESTART, DOWN, "a is not back: it is silent"),
        (at(), BY_HAND, UP, "nobody has reported yet that a is done"),
        (at(done_at=ago(5)), BY_HAND, SAME, ""),
        (
            at(done_at=ago(5)),
            BY_HAND,
            DOWN,
            "no heartbeat from the agent of a since it was reported as done",
        ),
        (
            at(done_at=ago(-5)),
            BY_HAND,
            UP,
            "no heartbeat from the agent of a since it was reported as done",
        ),
        (at(), WEBHOOK, UP, "the webhook for a has not accepted yet"),
        (at(accepted_at=ago(9)), WEBHOOK, UP, ""),
        (at(accepted_at=ago(9)), WEBHOOK, SAME, "the agent of a has not restarted yet"),
        (at(accepted_at=ago(9)), Between(webhook="x", by_hand=True), UP, "nobody has reported yet that a is done"),
        (at(done_at=ago(5)), WEBHOOK, SAME, ""),
        (at(), Between(command=True), UP, "the command for a has not accepted yet"),
        (at(), Between(agent_version="1.0"), UP, ""),
        (at(), Between(agent_version="2.0"), UP, "the agent of a has version 1.0, but needs 2.0"),
    ],
)
def test_what_keeps_a_host_from_being_back(step: HostStep, between: Between, heard: Heard, why: str) -> None:
    assert missing(step, between, heard) == why
    changes = come_back([step], between, {"a": heard}, NOW)
    assert [change.now.stage for change in changes] == ([] if why else [Stage.BACK])


@pytest.mark.parametrize(
    "step, between, late",
    [
        (at(ago_s=1799), RESTART, False),
        (at(ago_s=1801), RESTART, True),
        (at(ago_s=-3600), RESTART, False),
        (at(ago_s=90_000), BY_HAND, False),
        (at(ago_s=90_000, done_at=ago(1799)), BY_HAND, False),
        (at(ago_s=90_000, done_at=ago(1801)), BY_HAND, True),
        (at(ago_s=1801), Between(webhook="x", by_hand=True), True),
        (at(Stage.DRAINING, ago_s=90_000), RESTART, False),
        (at(Stage.BACK, ago_s=90_000), RESTART, False),
    ],
)
def test_when_a_host_is_late(step: HostStep, between: Between, late: bool) -> None:
    assert bool(overdue([step], between, {"a": DOWN}, NOW)) is late


def test_a_host_is_opened_when_it_is_up_and_let_go_when_it_is_gone() -> None:
    assert come_back([at(Stage.BACK)], RESTART, {"a": UP}, NOW)[0].now.stage is Stage.DONE
    assert come_back([at(Stage.BACK)], RESTART, {"a": DOWN}, NOW) == ()
    gone = DOWN.model_copy(update={"gone": "was declared dead"})
    for stage in (Stage.DRAINING, Stage.EMPTY, Stage.BETWEEN, Stage.BACK):
        (change,) = come_back([at(stage)], RESTART, {"a": gone}, NOW)
        assert change.now.stage is Stage.SKIPPED and change.now.reason.startswith("a was declared dead")
    assert come_back([at(Stage.WAITING), at(Stage.DONE), at(Stage.DRAINING)], RESTART, {"a": UP}, NOW) == ()


def test_a_host_that_is_gone_is_opened_only_where_nothing_was_done_to_it() -> None:
    heard = {"a": Heard(up=False, why="no beacon", gone="was declared dead")}
    for stage in (Stage.DRAINING, Stage.EMPTY, Stage.BETWEEN, Stage.BACK):
        (change,) = come_back([at(stage)], Between(), heard, NOW)
        assert change.now.stage is Stage.SKIPPED
        assert change.opens is (stage in (Stage.DRAINING, Stage.EMPTY))
        again = undone(resumed(change.now, NOW.isoformat(), was_opened=False))
        assert again.keeps_closed is not change.opens
        assert not again.model_copy(update={"stage": Stage.DONE}).keeps_closed


def test_what_orders_make_of_a_host() -> None:
    for stage in (Stage.WAITING, Stage.DRAINING, Stage.EMPTY):
        assert (undone(at(stage)).stage, undone(at(stage)).reason) == (Stage.SKIPPED, UNDONE)
    for stage in (Stage.BETWEEN, Stage.BACK, Stage.DONE):
        assert undone(at(stage)) == at(stage)
    later = NOW.isoformat()
    assert resumed(at(Stage.SKIPPED, rounds=2), later, was_opened=False) == HostStep(host="a", rounds=2)
    assert resumed(at(), later, was_opened=False).since == later
    assert resumed(at(rounds=2), later, was_opened=True) == HostStep(host="a", rounds=2)
    assert resumed(at(Stage.DONE), later, was_opened=True) == at(Stage.DONE)


def test_waves_are_counted_and_what_they_take_is_measured() -> None:
    assert wave_of([HostStep(host="a")]) == 0
    assert wave_of([at(Stage.DONE, wave=0, took_s=7.0), HostStep(host="b")]) == 1
    assert wave_of([at(Stage.DONE, wave=1), at(Stage.BETWEEN, wave=1), HostStep(host="b")]) == 1
    assert between_s([HostStep(host="b")]) == 300
    assert between_s([at(Stage.DONE, took_s=7.0), at(Stage.DONE, took_s=9.0)]) == 9


def test_how_it_ends() -> None:
    assert ended_as([at(Stage.DONE), at(Stage.WAITING)]) is None
    assert ended_as([at(Stage.DONE), at(Stage.DONE)]) is OperationStatus.DONE
    assert ended_as([at(Stage.DONE), at(Stage.SKIPPED)]) is OperationStatus.INCOMPLETE


def test_a_drain_fills_preferred_hosts_first() -> None:
    snapshot = fleet([host(name) for name in "abc"], [vm("x", "a"), vm("y", "b", 16)])
    assert [move.target for move in plan(snapshot, Drain(hosts=frozenset("a"))).moves] == ["c"]
    drain = Drain(hosts=frozenset("a"), prefer=frozenset({"b", "gone"}))
    assert [move.target for move in plan(snapshot, drain).moves] == ["b"]
