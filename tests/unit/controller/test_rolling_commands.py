"""A command that takes long: it runs only while its controller is proven to hold the operation, and never twice."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from sterna.adapters.sql.fleet import SqlFleet
from sterna.adapters.sql.fleet_database import open_database
from sterna.controller.controller import Controller
from sterna.controller.operations import between as requests
from sterna.controller.operations.carrying_out import LEASE_MS
from sterna.domain.errors import Conflict, Unreachable
from sterna.domain.fleet.course import OperationStatus, Order
from sterna.domain.fleet.stages import Between, Stage
from sterna.kit.command import KILLED_S
from sterna.ports.hooks import Notice
from tests.matrix.virtual import AtOnce
from tests.unit.controller.dying import Death, MortalFleet
from tests.unit.controller.operating import OPERATION
from tests.unit.controller.rebooting import HOOK, Rebooting

S = OperationStatus


@dataclass
class Commands:
    """Implements ports.hooks.Hooks: what is asked for runs until it may end, or is cancelled."""

    by: str
    running: list[str]
    """Controllers whose requests are under way, of all of them."""
    begun: list[str] = field(default_factory=list)
    """Keys."""
    most: int = 0
    """Requests under way at once, at most."""
    may_end: asyncio.Event = field(default_factory=asyncio.Event)

    def has_command(self) -> bool:
        return True

    def against(self, url: str) -> str:
        return ""

    async def call(self, url: str, notice: Notice, *more: Any) -> None:
        await self.run(notice, 0.0)

    async def run(self, notice: Notice, limit_s: float, *more: Any) -> None:
        self.begun.append(notice.key)
        self.running.append(self.by)
        self.most = max(self.most, len(self.running))
        try:
            await self.may_end.wait()
        finally:
            self.running.remove(self.by)


@dataclass
class Pair(Rebooting):
    """Two controllers: the first one's database may be away."""

    engine: Engine | None = None
    death: Death = field(default_factory=Death)

    def __post_init__(self) -> None:
        super().__post_init__()
        assert self.engine is not None
        running: list[str] = []
        self.first = Controller(MortalFleet(self.engine, self.death), self.bus, self.clock)
        self.ours, self.theirs = Commands("first", running), Commands("second", running)
        self.first.use_hooks(self.ours)
        self.controller.use_hooks(self.theirs)

    async def look(self, controller: Controller) -> None:
        """Some seconds pass, and that controller looks."""
        self.clock.ms += 2000
        await self.refresh()
        await self.bus.beat(controller)
        with contextlib.suppress(Unreachable):
            await controller.operations.look()
        await controller.operations.acting.drained()
        for _ in range(20):  # what was begun or cancelled goes on
            await asyncio.sleep(0)

    async def begun(self, between: Between | None = None, host: str = "b") -> None:
        """The first controller's command, or webhook, for that host runs."""
        await self.roll(host, between=between or Between())
        for _ in range(30):
            await self.look(self.first)
            self.complete_all()
            if self.ours.running:
                return
        raise AssertionError("nothing was asked for")


@pytest.fixture
async def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    monkeypatch.setattr(requests, "PROVE_S", 0.001, raising=False)
    engine = open_database(f"sqlite:///{tmp_path}/controller.db")
    drains = Rebooting.of(SqlFleet(engine, AtOnce))
    pair = Pair(drains.bus, drains.clock, drains.controller, engine=engine)
    yield pair
    for controller in (pair.first, pair.controller):
        await controller.stop()
    engine.dispose()


async def until(what: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await what():  # noqa: ASYNC110 - the records are read
            await asyncio.sleep(0.001)


def test_a_command_has_time_to_end_before_a_lease_does() -> None:
    assert requests.RIGHT_MS + KILLED_S * 1000 <= LEASE_MS


async def test_a_command_ends_before_another_controller_may_take_the_operation(pair: Pair) -> None:
    await pair.begun()
    pair.death.dead = True
    began_ms = pair.clock.ms
    while pair.ours.running and pair.clock.ms - began_ms < LEASE_MS:
        await pair.look(pair.first)
        await asyncio.sleep(0.01)
    assert not pair.ours.running and pair.clock.ms - began_ms < LEASE_MS


async def test_no_two_copies_of_a_command_run_when_one_controller_loses_the_database(pair: Pair) -> None:
    await pair.begun()
    pair.death.dead = True
    for _ in range(20):
        await pair.look(pair.controller)
        await asyncio.sleep(0.005)
        if pair.theirs.begun:
            break
    assert pair.theirs.running == ["second"] and pair.theirs.most == 1
    assert pair.ours.begun == pair.theirs.begun


async def test_a_command_goes_on_while_its_controller_holds_the_operation(pair: Pair) -> None:
    await pair.begun()
    for _ in range(30):
        await pair.look(pair.first)
        await asyncio.sleep(0.005)
    assert pair.ours.running == ["first"] and len(pair.ours.begun) == 1
    pair.ours.may_end.set()

    async def is_accepted() -> bool:
        return bool((await pair.steps())["b"].accepted_at)

    await until(is_accepted)


async def test_a_command_that_was_ended_is_begun_again_once_the_database_is_back(pair: Pair) -> None:
    await pair.begun()
    pair.death.dead = True
    for _ in range(6):
        await pair.look(pair.first)
        await asyncio.sleep(0.005)
    assert not pair.ours.running
    pair.death.dead = False
    for _ in range(6):
        await pair.look(pair.first)
        await asyncio.sleep(0.005)
    assert pair.ours.running == ["first"] and len(set(pair.ours.begun)) == 1


async def test_what_another_controller_holds_is_ended_at_once(pair: Pair) -> None:
    await pair.begun()
    operation = await pair.operation()
    assert await pair.controller.fleet.take_operation(operation, "somebody") is not None

    async def is_ended() -> bool:
        return not pair.ours.running

    await until(is_ended)


async def test_a_controller_lets_an_operation_go_only_after_its_command_has_ended(pair: Pair) -> None:
    await pair.begun()
    released: list[list[str]] = []
    release = pair.first.fleet.release_operation

    async def noted(*more: Any) -> None:
        released.append(list(pair.ours.running))
        await release(*more)

    pair.first.fleet.release_operation = noted  # type: ignore[method-assign, assignment]
    pair.bus.bus = pair.bus.bus.model_copy(update={"connected": False, "why": "it is away"})
    await pair.first.operations.begin_looks()
    assert released == [[]]


async def test_a_host_that_is_said_to_be_done_is_opened_after_its_command_has_ended(pair: Pair) -> None:
    await pair.begun()
    await pair.controller.operate.host_done(OPERATION, "b", "token:ops")
    pair.clock.ms += 2000
    await pair.bus.beat(pair.first)
    await pair.first.operations.look()
    assert (await pair.steps())["b"].stage is Stage.BETWEEN
    for _ in range(4):
        assert not pair.ours.running or await pair.closed() == {"b"}
        await pair.look(pair.first)
    assert not pair.ours.running
    assert (await pair.steps())["b"].stage is Stage.DONE and await pair.closed() == set()


async def test_a_webhook_that_has_not_answered_is_waited_for_before_a_host_is_opened(pair: Pair) -> None:
    """Its server may have the request: nothing takes that back."""
    await pair.begun(Between(webhook=HOOK))
    await pair.controller.operate.host_done(OPERATION, "b", "token:ops")
    for _ in range(3):
        await pair.look(pair.first)
    assert pair.ours.running and await pair.closed() == {"b"}
    assert (await pair.operation()).standing.hosts == {"b": "what was asked for b has not ended yet"}
    pair.ours.may_end.set()
    for _ in range(3):
        await pair.look(pair.first)
    assert (await pair.steps())["b"].stage is Stage.DONE


async def test_a_run_is_stopped_after_its_command_has_ended(pair: Pair) -> None:
    await pair.begun()
    await pair.order(Order.STOP)
    with pytest.raises(Conflict, match=r"what operation bbbbbbbb-.* has asked for b may still run"):
        await pair.controller.registry.set_maintenance("b", False)
    for _ in range(4):
        await pair.look(pair.first)
        assert not pair.ours.running or (await pair.operation()).status is S.STOPPING
    assert (await pair.operation()).status is S.STOPPED and not pair.ours.running
    await pair.controller.registry.set_maintenance("b", False)


async def test_a_command_for_a_host_that_is_gone_is_ended(pair: Pair) -> None:
    await pair.begun()
    pair.bus.agents["b"].listening = False
    pair.clock.ms += 30_000
    await pair.refresh()
    await pair.controller.deaths.declare("b", fenced=True)
    for _ in range(4):
        await pair.look(pair.first)
    assert (await pair.steps())["b"].stage is Stage.SKIPPED and not pair.ours.running
