"""A rolling operation by real controllers over real agents on simulated hosts: each agent restarts once."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter

from sterna.controller.controller import Controller
from sterna.domain.fleet.course import OperationKind, OperationStatus
from sterna.domain.fleet.stages import Between, Stage
from tests.saga.operating import HOSTS, OPERATION, drain, moved
from tests.saga.operating import Stage as Drains


class Rebooting(Drains):
    """Somebody restarts the agents of hosts that are empty."""

    def __init__(self, database: str) -> None:
        super().__init__(database)
        self.restarts: Counter[str] = Counter()
        self.most_closed = 0

    async def somebody(self, controller: Controller) -> None:
        while True:
            await self.fleet.clock.sleep(3)
            closed = [host.name for host in await controller.registry.hosts() if host.maintenance]
            self.most_closed = max(self.most_closed, len(closed))
            for step in await controller.fleet.host_steps(OPERATION):
                if step.stage is Stage.BETWEEN and not self.restarts[step.host]:
                    self.restarts[step.host] += 1
                    assert self.places()[step.host] == 0
                    await self.fleet.agents[step.host].kill()
                    await self.fleet.clock.sleep(20)
                    await self.fleet.agents[step.host].start()


async def test_each_agent_restarts_on_an_empty_host_and_another_controller_goes_on(database: str) -> None:
    stage = Rebooting(database)

    async def scenario() -> None:
        first = await stage.controller()
        asked = {"kind": OperationKind.ROLLING, "hosts": HOSTS, "between": Between(back_within_s=600.0)}
        await first.operate.begin(drain().model_copy(update=asked))

        async def is_held() -> bool:
            return bool((await first.fleet.operation(OPERATION)).holder)

        await stage.until(is_held)
        second = await stage.controller()
        rebooting = asyncio.create_task(stage.somebody(second))

        async def is_half_done() -> bool:
            steps = await second.fleet.host_steps(OPERATION)
            return any(step.stage is Stage.DONE for step in steps) and any(step.stage.closed for step in steps)

        await stage.until(is_half_done, limit_s=600)
        await stage.kill(first)
        done = await stage.ended(second, limit_s=1200)
        rebooting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await rebooting
        assert done.status is OperationStatus.DONE, await second.fleet.host_steps(OPERATION)
        assert stage.restarts == Counter(HOSTS) and stage.most_closed == 1
        assert stage.places().total() == 4 and (await moved(second)).total() <= 8
        assert not any(host.maintenance for host in await second.registry.hosts())
        await second.stop()

    await stage.play(scenario)
