"""Operations by real controllers over real agents on simulated hosts, some of which die over it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from sterna.controller.controller import Controller
from sterna.controller.operations.carrying_out import LOOK_S
from sterna.domain.fleet.course import OperationStatus, Order
from tests.saga.operating import OPERATION, VMS, Stage, drain, moved


async def test_a_drain_and_its_undo(database: str) -> None:
    stage = Stage(database)

    async def scenario() -> None:
        controller = await stage.controller()
        await controller.operate.begin(drain())
        done = await stage.ended(controller)
        assert (done.status, done.standing.left) == (OperationStatus.DONE, ())
        assert stage.places()["host1"] == 0 and stage.places().total() == 4
        assert await moved(controller) == Counter(VMS)
        await controller.operate.order(OPERATION, Order.UNDO, "token:ops")
        undone = await stage.ended(controller)
        assert (undone.status, undone.standing.left) == (OperationStatus.UNDONE, ())
        assert stage.places() == {"host1": 4} and await moved(controller) == Counter(VMS * 2)
        assert not (await controller.registry.host("host1")).maintenance
        await controller.stop()

    await stage.play(scenario)


async def begun(controller: Controller) -> bool:
    """Something of the operation runs."""
    return any(one.status is not None for one in await controller.fleet.attempts(OPERATION))


async def half_done(controller: Controller) -> bool:
    return (await moved(controller)).total() >= 1


@pytest.mark.parametrize("moment", [begun, half_done])
async def test_another_controller_goes_on(database: str, moment: Callable[[Controller], Awaitable[bool]]) -> None:
    stage = Stage(database)

    async def scenario() -> None:
        first, second = await stage.two_controllers()
        await stage.until(lambda: moment(first))
        await stage.kill(first)
        done = await stage.ended(second)
        assert (done.status, done.epoch) == (OperationStatus.DONE, 2)
        assert stage.places()["host1"] == 0 and await moved(second) == Counter(VMS)
        await second.stop()

    await stage.play(scenario)


async def test_it_goes_on_when_all_controllers_were_away(database: str) -> None:
    stage = Stage(database)

    async def scenario() -> None:
        first = await stage.controller()
        await first.operate.begin(drain())
        await stage.until(lambda: begun(first))
        await stage.kill(first)
        await stage.fleet.clock.sleep(120)
        second = await stage.controller()
        assert (await second.registry.host("host1")).maintenance
        assert (await stage.ended(second)).status is OperationStatus.DONE
        assert await moved(second) == Counter(VMS)
        await second.stop()

    await stage.play(scenario)


async def test_a_controller_that_is_stopped_lets_go_at_once(database: str) -> None:
    stage = Stage(database)

    async def scenario() -> None:
        first, second = await stage.two_controllers()
        await stage.until(lambda: begun(first))
        await first.stop()
        await stage.fleet.clock.sleep(LOOK_S + 1)
        assert (await second.fleet.operation(OPERATION)).epoch == 2
        assert (await stage.ended(second)).status is OperationStatus.DONE
        assert await moved(second) == Counter(VMS)
        await second.stop()

    await stage.play(scenario)


async def test_an_agent_that_dies_delays_it_only(database: str) -> None:
    stage = Stage(database)

    async def scenario() -> None:
        controller = await stage.controller()
        await controller.operate.begin(drain())
        await stage.until(lambda: begun(controller))
        await stage.fleet.agents["host1"].kill()
        await stage.fleet.clock.sleep(60)
        assert not (await controller.fleet.operation(OPERATION)).status.final
        await stage.fleet.agents["host1"].start()
        assert (await stage.ended(controller)).status is OperationStatus.DONE
        assert stage.places()["host1"] == 0 and await moved(controller) == Counter(VMS)
        await controller.stop()

    await stage.play(scenario)
