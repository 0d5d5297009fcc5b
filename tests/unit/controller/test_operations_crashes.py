"""A controller that carries out an operation dies at each of its writes to the records and each of its calls to an
agent: before it, or after. Another one goes on, and nothing is moved twice, lost, or forgotten.

Whoever dies at a read leaves the same behind as one that dies at the write or call before or after it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import Engine

from sterna.adapters.sql.fleet import SqlFleet
from sterna.adapters.sql.fleet_database import open_database
from sterna.controller.controller import Controller
from sterna.domain.fleet.attempts import Attempt, AttemptState
from sterna.domain.fleet.course import OperationStatus, Order
from sterna.ports.operations import OperationRecord
from tests.matrix.virtual import AtOnce
from tests.unit.controller.operating import OPERATION, Stage
from tests.unit.controller.taking_over import Play


async def play(engine: Engine, nth: int, *, after: bool) -> int:
    """The whole life of an operation; how many acts the first controller has done."""
    stage = Play(engine, nth, after=after)
    await stage.begin()
    done = await stage.run(stage.raise_if_aborted)
    about = f"died at act {nth} ({stage.death.where}, {'after' if after else 'before'})"
    assert done.status is OperationStatus.DONE, about
    assert Counter(name for name, _, _ in stage.moved) == {"x1": 1, "x2": 1, "x3": 1}, about
    assert {source for _, source, _ in stage.moved} == {"a"}, about
    assert (await stage.controller.registry.host("a")).maintenance, about
    begun = [m for agent in stage.bus.agents.values() for m in agent.migrations.values()]
    assert len(begun) == len(stage.moved) + len(stage.failed) == 4, about  # each is in one journal, or in none
    went = {name: to for name, _, to in stage.moved}
    await stage.controller.operate.order(OPERATION, Order.UNDO, "token:ops")
    undone = await stage.run(stage.raise_if_aborted)
    assert undone.status is OperationStatus.UNDONE and not undone.standing.left, about
    assert sorted(stage.moved[3:]) == sorted((name, to, "a") for name, to in went.items()), about
    assert not (await stage.controller.registry.host("a")).maintenance, about
    assert not await stage.controller.fleet.active_attempts(), about
    tried = Counter(one.attempt.state for one in await stage.controller.fleet.attempts(OPERATION))
    assert (tried[AttemptState.ARRIVED], tried[AttemptState.FAILED]) == (6, 1), (about, tried)
    assert sum(tried.values()) <= 9, (about, tried)  # two requests may have been lost with the first controller
    return stage.death.acts


STEPS = 8


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("first", range(1, STEPS + 1))
def test_a_controller_may_die_at_any_act(tmp_path: Path, first: int, after: bool) -> None:
    """Every act is the last one once: each of these tests takes every eighth."""
    nth = first
    while True:
        engine = open_database(f"sqlite:///{tmp_path}/{nth}.db")
        acts = asyncio.run(play(engine, nth, after=after))
        engine.dispose()
        if acts < nth:
            break
        nth += STEPS
    assert acts > 5 * STEPS


async def test_one_that_wakes_up_late_does_nothing(tmp_path: Path) -> None:
    """It hangs between writing that a VM shall move and asking for it, for as long as another one needs for the
    whole operation and its undo."""
    engine = open_database(f"sqlite:///{tmp_path}/controller.db")
    stage = Stage.of(SqlFleet(engine, AtOnce))
    sleeper = Controller(SqlFleet(engine, AtOnce), stage.bus, stage.clock)
    begin, wakes_up = sleeper.begin_attempt, asyncio.Event()

    async def late(operation: OperationRecord, attempt: Attempt) -> object:
        await wakes_up.wait()
        return await begin(operation, attempt)

    sleeper.operations.acting._ask = late
    await stage.begin()
    await stage.bus.beat(sleeper)
    await sleeper.operations.look()
    asked = await stage.controller.fleet.active_attempts()
    assert asked and not stage.open()
    assert (await stage.run()).status is OperationStatus.DONE
    await stage.controller.operate.order(OPERATION, Order.UNDO, "token:ops")
    assert (await stage.run()).status is OperationStatus.UNDONE
    before = list(stage.moved)
    wakes_up.set()
    await stage.bus.beat(sleeper)
    await sleeper.operations.acting.drained()
    for _ in range(3):
        await sleeper.operations.look()
        await stage.tick()
    assert stage.moved == before and not stage.open()
    assert set(stage.places().values()) == {"a"}
    engine.dispose()
