"""A controller that rebalances hosts, or brings VMs back, dies at each of its writes to the records and each of its
calls to an agent. Another one goes on, and nothing is moved twice, lost, or forgotten.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import Engine

from sterna.adapters.sql.fleet_database import open_database
from sterna.controller.intents.operate import OperationRequest
from sterna.domain.fleet.attempts import AttemptState
from sterna.domain.fleet.course import OperationKind, OperationStatus
from tests.unit.controller.operating import OPERATION
from tests.unit.controller.taking_over import Play

BACK = "bbbbbbbb-0000-4000-8000-000000000002"
STEPS = 8


async def rebalanced(engine: Engine, nth: int, *, after: bool) -> int:
    """How many acts the first controller has done."""
    stage = Play(engine, nth, after=after)
    stage.controller.operate.may_rebalance = True
    await stage.refresh()
    asked = OperationRequest(id=OPERATION, kind=OperationKind.REBALANCE, hosts=(), threshold=0.1)
    await stage.controller.operate.begin(asked)
    ended = await stage.run(stage.raise_if_aborted)
    about = f"died at act {nth} ({stage.death.where}, {'after' if after else 'before'})"
    assert ended.status is OperationStatus.DONE, about
    assert sorted(stage.places().values()) == ["a", "b", "c"], about
    assert max(Counter(name for name, _, _ in stage.moved).values()) == 1 and len(stage.moved) == 2, about
    await all_is_over(stage, OPERATION, about)
    return stage.death.acts


async def brought_back(engine: Engine, nth: int, *, after: bool) -> int:
    """The same: a drain is over, its host is open, and its VMs return."""
    stage = Play(engine, 0, after=after)
    await stage.begin()
    assert (await stage.run()).status is OperationStatus.DONE
    await stage.controller.registry.set_maintenance("a", False)
    stage.moved.clear()
    stage.death.left, stage.death.acts = nth, 0
    asked = OperationRequest(id=BACK, kind=OperationKind.BRING_BACK, hosts=("a",))
    await stage.controller.operate.begin(asked)
    ended = await stage.run(stage.raise_if_aborted, id=BACK)
    about = f"died at act {nth} ({stage.death.where}, {'after' if after else 'before'})"
    assert (ended.status, ended.standing.left) == (OperationStatus.DONE, ()), about
    assert Counter(name for name, _, _ in stage.moved) == {"x1": 1, "x2": 1, "x3": 1}, about
    assert set(stage.places().values()) == {"a"}, about
    await all_is_over(stage, BACK, about)
    return stage.death.acts


async def all_is_over(stage: Play, operation: str, about: str) -> None:
    assert not any(host.maintenance for host in await stage.controller.registry.hosts()), about
    assert not await stage.controller.fleet.active_attempts(), about
    tried = Counter(one.attempt.state for one in await stage.controller.fleet.attempts(operation))
    assert tried[AttemptState.ARRIVED] == len(stage.moved), (about, tried)
    assert sum(tried.values()) <= len(stage.moved) + len(stage.failed) + 2, (about, tried)


@pytest.mark.parametrize("play", [rebalanced, brought_back])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("first", range(1, STEPS + 1))
def test_a_controller_may_die_at_any_act(tmp_path: Path, first: int, after: bool, play) -> None:  # type: ignore[no-untyped-def]
    """Every act is the last one once: each of these tests takes every eighth."""
    nth = first
    while True:
        engine = open_database(f"sqlite:///{tmp_path}/{nth}.db")
        acts = asyncio.run(play(engine, nth, after=after))
        engine.dispose()
        if acts < nth:
            break
        nth += STEPS
    assert acts > 2 * STEPS
