"""A controller that carries out a rolling operation dies at each write, call and request: before it, or after.

Another one goes on. Each host is emptied, rebooted once and opened, no more are closed than may be, and no host is
rebooted under its VMs (`rebooting.py` looks). One is late, so that the operation pauses. Then all is undone.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from sterna.adapters.sql.fleet import SqlFleet
from sterna.adapters.sql.fleet_database import open_database
from sterna.controller.controller import Controller
from sterna.domain.errors import Unreachable
from sterna.domain.fleet.course import OperationStatus, Order
from sterna.domain.fleet.stages import Between, Stage
from sterna.ports.hooks import Notice, Right
from sterna.ports.operations import OperationRecord
from tests.matrix.virtual import AtOnce
from tests.unit.controller.dying import Death, MortalBus, MortalFleet, MortalHooks
from tests.unit.controller.operating import OPERATION
from tests.unit.controller.operating import Stage as Drains
from tests.unit.controller.rebooting import HOOK, Rebooting

S = OperationStatus
STEPS = 8


class Play(Rebooting):
    """A rolling operation by a controller that dies, and then by another one."""

    def __init__(self, engine: Engine, nth: int, *, after: bool) -> None:
        living = Drains.of(MortalFleet(engine, Death()))
        super().__init__(living.bus, living.clock, living.controller)
        self.death = Death(nth, after=after)
        bus: Any = MortalBus(self.bus, self.death)
        self.mortal: Controller | None = Controller(MortalFleet(engine, self.death), bus, self.clock)
        self.mortal.use_hooks(MortalHooks(self.hooks, self.death))

    async def tick(self) -> None:
        """The first one looks while it lives, the other one all the time."""
        self.boot()
        self.clock.ms += 2000
        await self.refresh()
        await self.controller.follower.tidy()
        if self.mortal is not None:
            await self._look(self.mortal)
        await self._look(self.controller)
        self.most_closed = max(self.most_closed, len(await self.closed()))

    async def _look(self, controller: Controller) -> None:
        try:
            await self.bus.beat(controller)
            await controller.operations.look()
        except Unreachable:
            pass
        await controller.operations.acting.drained()
        await controller.operations.between.drained()
        if self.mortal is not None and self.death.dead:
            self.mortal = None

    async def helped(self) -> OperationRecord:
        """Until the end. Where it pauses, somebody reboots the host whose webhook does nothing, and resumes it."""
        for _ in range(300):
            await self.tick()
            record = await self.operation()
            if record.status.final:
                return record
            if record.status is S.PAUSED:
                if (await self.steps())["b"].accepted_at and not self.reboots["b"]:
                    self.reboot("b")
                await self.order(Order.RESUME)
            self.complete_all()
        raise AssertionError(f"it has not ended: {record}")


async def play(engine: Engine, nth: int, *, after: bool) -> int:
    """The whole life of an operation; how many acts the first controller has done."""
    stage = Play(engine, nth, after=after)
    stage.bus.agents["a"].vms.popitem()
    stage.hooks.ignores.add("b")
    await stage.roll("a", "b", most_closed=1, between=Between(webhook=HOOK, back_within_s=10.0))
    done = await stage.helped()
    about = f"died at act {nth} ({stage.death.where}, {'after' if after else 'before'})"
    assert done.status is S.DONE, (about, done)
    assert stage.reboots == Counter("ab"), about
    assert stage.most_closed == 1 and await stage.closed() == set(), about
    assert {host: len(keys) for host, keys in stage.hooks.keys().items()} == dict.fromkeys("ab", 1), about
    assert len(stage.hooks.called) <= 3, about  # one request may have been lost with its controller
    begun = [m for agent in stage.bus.agents.values() for m in agent.migrations.values()]
    assert len(begun) == len(stage.moved), about
    assert {step.stage for step in (await stage.steps()).values()} == {Stage.DONE}, about
    await stage.order(Order.UNDO)
    undone = await stage.run(ticks=300)
    assert undone.status is S.UNDONE and not undone.standing.left, about
    assert set(stage.places().values()) == {"a"} and await stage.closed() == set(), about
    assert not await stage.controller.fleet.active_attempts(), about
    return stage.death.acts


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


async def test_one_that_wakes_up_late_reboots_nothing(tmp_path: Path) -> None:
    """It hangs between writing that a host may be rebooted and the request, for as long as another one needs for
    the whole operation. VMs run on the host again."""
    engine = open_database(f"sqlite:///{tmp_path}/controller.db")
    stage = Rebooting.of(SqlFleet(engine, AtOnce))
    assert isinstance(stage, Rebooting)
    sleeper = Controller(SqlFleet(engine, AtOnce), stage.bus, stage.clock)
    sleeper.use_hooks(stage.hooks)
    wakes_up, between = asyncio.Event(), sleeper.operations.between
    make = between._make

    async def late(*asked: Any) -> bool:
        await wakes_up.wait()
        return await make(*asked)

    between._make = late  # type: ignore[method-assign, assignment]
    await stage.roll("a")
    while (await stage.steps())["a"].stage is not Stage.BETWEEN:
        stage.clock.ms += 2000
        await stage.refresh()
        await stage.bus.beat(sleeper)
        await sleeper.operations.look()
        await sleeper.operations.acting.drained()
        stage.complete_all()
    assert not stage.hooks.called
    assert (await stage.run()).status is S.DONE
    await stage.order(Order.UNDO)
    assert (await stage.run()).status is S.UNDONE and stage.bus.agents["a"].vms
    calls = len(stage.hooks.called)
    wakes_up.set()
    await between.drained()
    assert len(stage.hooks.called) == calls and stage.reboots == Counter("a")
    engine.dispose()


async def test_a_request_that_was_answered_is_not_made_again_though_that_could_not_be_written(
    tmp_path: Path,
) -> None:
    stage = Rebooting.of(SqlFleet.open(f"sqlite:///{tmp_path}/controller.db"))
    assert isinstance(stage, Rebooting)
    advance, call = stage.controller.fleet.advance_hosts, stage.hooks.call
    away: list[bool] = []

    async def broken(*more: Any) -> bool:
        if away:
            raise Unreachable("the database is away")
        return await advance(*more)

    async def called(url: str, notice: Notice, right: Right) -> None:
        await call(url, notice, right)
        away.append(True)

    stage.controller.fleet.advance_hosts = broken  # type: ignore[method-assign, assignment]
    stage.hooks.call = called  # type: ignore[method-assign]
    await stage.roll("a")
    try:
        await stage.run(ticks=15)
    except AssertionError:
        away.clear()
    assert (await stage.steps())["a"].accepted_at == ""
    assert (await stage.run()).status is S.DONE
    assert len(stage.hooks.called) == 1
    await stage.controller.stop()


@pytest.mark.parametrize("between", [Between(), Between(by_hand=True), Between(webhook=HOOK)])
async def test_another_controller_pauses_what_is_late_and_goes_on(tmp_path: Path, between: Between) -> None:
    """All that it needs is in the records: since when, which life of the agent, who has said what."""
    url = f"sqlite:///{tmp_path}/controller.db"
    stage = Rebooting.of(SqlFleet.open(url))
    assert isinstance(stage, Rebooting)
    stage.hooks.ignores.add("a")
    await stage.roll("a", between=between.model_copy(update={"back_within_s": 60.0}))
    await stage.until("a", Stage.BETWEEN)
    if between.by_hand:
        stage.bus.agents["a"].listening = False
        await stage.controller.operate.host_done(OPERATION, "a", "token:ops")
    await stage.tick()
    await stage.controller.stop()
    stage.controller = Controller(SqlFleet.open(url), stage.bus, stage.clock)
    stage.controller.use_hooks(stage.hooks)
    for _ in range(40):
        await stage.tick()
    paused = await stage.operation()
    assert paused.status is S.PAUSED and paused.paused_because.startswith("not back within 1 min 0 s: ")
    stage.reboot("a")
    await stage.order(Order.RESUME)
    assert (await stage.run()).status is S.DONE
    await stage.controller.stop()
