"""An operation goes on as soon as one of its migrations has ended: it does not wait for its next look.

No look comes by itself here. Only what wakes an operation has it looked at.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from sterna.adapters.sql.fleet import SqlFleet
from sterna.controller.controller import Controller
from sterna.controller.operations import carrying_out
from sterna.domain.errors import Temporary
from sterna.domain.fleet.attempts import Attempt, AttemptState
from sterna.domain.fleet.course import OperationStatus
from sterna.domain.journal import Role
from sterna.domain.model import Data
from sterna.domain.status import Status
from sterna.ports.operations import OperationRecord, Tried
from tests.unit.controller.fakes import HandClock
from tests.unit.controller.operating import OPERATION, Stage
from tests.unit.domain.journals import Book

VMS = 12


@pytest.fixture
async def woken(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A drain of a host with more VMs than may move at once; its first ones do."""
    monkeypatch.setattr(carrying_out, "LOOK_S", 3_600.0)
    monkeypatch.setattr(stage.controller.follower, "look", lambda host: None)  # journals are read by these tests
    for number in range(4, VMS + 1):
        stage.bus.agents["a"].add_vm(f"x{number}", number)
    await stage.begin()
    stage.controller.operations.start()
    await until(lambda: begun(stage, at_least=2))
    return stage


async def until(what: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await what():  # noqa: ASYNC110 - the records are read
            await asyncio.sleep(0)


async def tried(stage: Stage) -> list[Tried]:
    return await stage.controller.fleet.attempts(OPERATION)


async def begun(stage: Stage, *, at_least: int) -> bool:
    asked = sum(len(agent.migrations) for agent in stage.bus.agents.values())
    return asked >= at_least and not any(
        one.status is None for one in await tried(stage) if not one.attempt.state.ended
    )


async def looks(stage: Stage) -> int:
    """How often it has been looked at: each look shows that its controller lives."""
    return (await stage.operation()).beat


async def settled(stage: Stage) -> None:
    """Nothing happens any more by itself."""
    await stage.controller.operations.acting.drained()
    await stage.controller.operations.drained()


async def test_a_drain_needs_no_look_but_those_that_its_migrations_cause(woken: Stage) -> None:
    for _ in range(VMS):
        woken.complete_all()
        before = woken.clock.ms
        await woken.controller.projector.pull("a")
        await settled(woken)
        assert woken.clock.ms - before < carrying_out.LOOK_S * 1000
        if (await woken.operation()).status.final:
            break
    assert (await woken.operation()).status is OperationStatus.DONE
    assert len(woken.moved) == VMS


async def test_a_failure_wakes_its_operation(woken: Stage) -> None:
    await settled(woken)
    failed = woken.open()[0]
    woken.fail(failed)
    await woken.controller.projector.pull("a")

    async def is_noted() -> bool:
        states = {one.attempt.migration: one.attempt.state for one in await tried(woken)}
        return states[failed.id] is AttemptState.FAILED

    await until(is_noted)


async def test_what_another_controller_has_read_wakes_it_as_well(woken: Stage, other: Controller) -> None:
    await settled(woken)
    first = len(woken.open())
    woken.complete_all()
    await other.projector.pull("a")
    assert len(await ended(woken)) == 0
    await woken.controller.projector.pull("a")  # as every hint has it done: there is nothing new for it
    await until(lambda: begun(woken, at_least=first + 1))


async def test_what_another_controller_has_read_at_the_same_time_wakes_it(
    woken: Stage, other: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    await settled(woken)
    first, call = len(woken.open()), woken.bus.call
    woken.complete_all()

    async def slowly(to: str, method: str, params: Data, **more: object) -> Data:
        answer = await call(to, method, params, **more)  # type: ignore[arg-type]
        if method == "journal_since":
            monkeypatch.setattr(woken.bus, "call", call)
            await other.projector.pull("a")
        return answer

    monkeypatch.setattr(woken.bus, "call", slowly)
    await woken.controller.projector.pull("a")
    await until(lambda: begun(woken, at_least=first + 1))


@pytest.fixture
async def other(woken: Stage, tmp_path: object) -> AsyncIterator[Controller]:
    controller = Controller(SqlFleet.open(f"sqlite:///{tmp_path}/controller.db"), woken.bus, woken.clock)
    await woken.bus.beat(controller)
    yield controller
    await controller.stop()


async def ended(stage: Stage) -> list[Tried]:
    return [one for one in await tried(stage) if one.attempt.state.ended]


class StillClock(HandClock):
    """Who sleeps wakes when the time has come."""

    def __init__(self, ms: float) -> None:
        super().__init__()
        self.ms = ms
        self._sleepers: list[tuple[float, asyncio.Event]] = []

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.Event()
        self._sleepers.append((self.ms + seconds * 1000, woken))
        await woken.wait()

    def advance(self, ms: float) -> None:
        self.ms += ms
        for until, woken in self._sleepers:
            if until <= self.ms:
                woken.set()


async def test_however_many_migrations_get_further_there_is_one_look_after_a_rest(
    woken: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await settled(woken)
    clock = StillClock(woken.clock.ms)
    monkeypatch.setattr(woken.controller.operations.waking, "_clock", clock)
    before, running = await looks(woken), woken.open()
    for number in range(500):
        one = running[number % len(running)]
        status = (Status.PREPARING, Status.MIGRATING)[number // len(running) % 2]
        woken.bus.agents["a"].write(Book(Role.SOURCE, migration=one).status(status))
        if number % 100 == 99:
            await woken.controller.projector.pull("a")
            clock.advance(49)
    assert await looks(woken) == before
    clock.advance(5)
    await settled(woken)
    assert await looks(woken) == before + 1


async def test_another_one_s_migration_wakes_nothing(woken: Stage) -> None:
    await settled(woken)
    before = await looks(woken)
    await woken.controller.projector.pull("b")
    woken.bus.agents["b"].write(Book(Role.SOURCE).status(Status.FAILED))
    await woken.controller.projector.pull("b")
    await settled(woken)
    assert await looks(woken) == before


async def test_the_same_is_not_asked_for_more_often_than_looks_come(stage: Stage) -> None:
    asked: Counter[str] = Counter()

    async def busy(operation: OperationRecord, attempt: Attempt) -> object:
        asked[attempt.name] += 1
        raise Temporary("a has no time")

    stage.controller.operations.acting._ask = busy
    await stage.begin()
    for _ in range(10):
        await stage.controller.operations.look()
        await settled(stage)
    assert set(asked.values()) == {1}
    await stage.tick()
    assert set(asked.values()) == {2}
