"""An operation that cannot be looked at in time holds up no other one, and its controller is not taken for dead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from sterna.adapters.sql.fleet import SqlFleet
from sterna.controller.controller import Controller
from sterna.controller.operations import carrying_out
from sterna.controller.operations.planning import Planning
from sterna.domain.fleet.course import OperationStatus
from tests.unit.controller.operating import OPERATION, Stage

SLOW, QUICK = OPERATION, "bbbbbbbb-0000-4000-8000-000000000002"


@pytest.fixture
async def hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    """Two operations begin. The plan of the first one never ends."""
    monkeypatch.setattr(carrying_out, "LOOK_S", 0.01)
    stage = Stage.of(SqlFleet.open(f"sqlite:///{tmp_path}/controller.db"))
    look, never = Planning.look, asyncio.Event()

    async def hangs(self: Planning, operation: object, *more: object) -> object:
        if getattr(operation, "id", "") == SLOW:
            await never.wait()
        return await look(self, operation, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(Planning, "look", hangs)
    await stage.begin("a", id=SLOW)
    await stage.begin("b", id=QUICK)
    yield stage
    await stage.controller.stop()


async def until(what: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await what():  # noqa: ASYNC110 - the records are read
            await asyncio.sleep(0)


async def is_done(controller: Controller) -> bool:
    return (await controller.fleet.operation(QUICK)).status is OperationStatus.DONE


async def test_another_operation_goes_on_meanwhile(hanging: Stage) -> None:
    hanging.controller.operations.start()
    await until(lambda: is_done(hanging.controller))
    assert (await hanging.operation(SLOW)).status is OperationStatus.RUNNING


async def test_its_controller_is_not_taken_for_dead(hanging: Stage) -> None:
    hanging.controller.operations.start()
    await until(lambda: is_done(hanging.controller))
    first = await hanging.operation(SLOW)

    async def beats() -> bool:
        return (await hanging.operation(SLOW)).beat > first.beat + 3

    await until(beats)
    assert (await hanging.operation(SLOW)).epoch == first.epoch


async def test_a_look_that_never_ends_leaves_it_to_another_controller(
    hanging: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carrying_out, "LONGEST_LOOK_S", 0.2)
    hanging.controller.operations.start()

    async def is_free() -> bool:
        operation = await hanging.operation(SLOW)
        return operation.epoch > 0 and not operation.holder

    await until(is_free)
    operation = await hanging.operation(SLOW)
    assert "took longer than 0.2 s" in operation.standing.waits_for
    other = Controller(hanging.controller.fleet, hanging.bus, hanging.clock)
    await other.operations.begin_looks()
    await until(lambda: held_by_another(hanging, operation.epoch))
    await other.operations.stop()


async def held_by_another(stage: Stage, epoch: int) -> bool:
    return (await stage.operation(SLOW)).epoch > epoch
