"""Operations by real controllers over real agents on simulated hosts."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable

from sterna.controller.controller import Controller
from sterna.controller.intents.operate import OperationRequest
from sterna.controller.operations.carrying_out import LOOK_S
from sterna.domain.errors import SternaError
from sterna.domain.status import Status
from sterna.domain.trust.identities import CONTROLLER_TOKEN
from sterna.ports.fleet import Page
from sterna.ports.operations import OperationRecord
from sterna.rpc.client import RpcClient
from sterna.sim.libvirt.guests import add_vm
from tests.saga.controlled import HoldingFleet
from tests.saga.fleet import SimFleet

OPERATION = "bbbbbbbb-0000-4000-8000-000000000001"
HOSTS = ("host1", "host2", "host3")
VMS = tuple(f"tern{number}" for number in range(4))


class Stage:
    """Three hosts with four VMs on the first, and controllers that come and go."""

    def __init__(self, database: str) -> None:
        self.fleet = SimFleet(HOSTS)
        self.vms = {add_vm(self.fleet.world, "host1", name): name for name in VMS}
        self._database = database
        self._born = 0
        self._names: dict[Controller, str] = {}

    async def controller(self) -> Controller:
        self._born += 1
        name = f"controller-{self._born}"
        calls = RpcClient(self.fleet.broker.bus(name, CONTROLLER_TOKEN), CONTROLLER_TOKEN, self.fleet.clock)
        made = Controller(HoldingFleet(self._database, self.fleet.clock), calls, self.fleet.clock)
        self._names[made] = name
        await made.start()
        self._looks_on_virtual_time(made)
        await self.fleet.clock.sleep(2)  # two beacons
        return made

    def _looks_on_virtual_time(self, controller: Controller) -> None:
        """By itself it looks every two seconds of real time, as all background work does."""
        operations = controller.operations
        assert operations._looking is not None
        operations._looking.cancel()

        async def look_for_ever() -> None:
            while True:
                with contextlib.suppress(SternaError):
                    await operations.look()
                await self.fleet.clock.sleep(LOOK_S)

        operations._looking = asyncio.create_task(look_for_ever())

    async def two_controllers(self) -> tuple[Controller, Controller]:
        """The one that carries out the drain, and the other one."""
        both = [await self.controller(), await self.controller()]
        await both[0].operate.begin(drain())

        async def held() -> bool:
            return bool((await both[0].fleet.operation(OPERATION)).holder)

        await self.until(held)
        first, second = sorted(both, key=lambda one: OPERATION not in one.operations._held)
        return first, second

    async def kill(self, controller: Controller) -> None:
        """As kill -9: nothing that it holds is let go."""
        self.fleet.broker.cut(self._names[controller])
        controller.operations._held.clear()
        await controller.stop()

    async def ended(self, controller: Controller, limit_s: float = 600) -> OperationRecord:
        """Wait, in virtual time."""
        until = self.fleet.clock.monotonic_ms() + limit_s * 1000
        while self.fleet.clock.monotonic_ms() < until:
            record = await controller.fleet.operation(OPERATION)
            if record.status.final:
                return record
            await self.fleet.clock.sleep(1)
        raise AssertionError(f"it has not ended: {record}")

    async def until(self, what: Callable[[], Awaitable[bool]], limit_s: float = 120) -> None:
        until = self.fleet.clock.monotonic_ms() + limit_s * 1000
        while not await what():
            assert self.fleet.clock.monotonic_ms() < until
            await self.fleet.clock.sleep(0.2)

    def places(self) -> Counter[str]:
        """How many of the VMs run on each host."""
        found: Counter[str] = Counter()
        for name, host in self.fleet.world.hosts.items():
            found[name] = sum(1 for uuid in self.vms if uuid in host.domains)
        return +found

    async def play(self, scenario: Callable[[], Awaitable[None]]) -> None:
        async def inside() -> None:
            async with self.fleet:
                await scenario()
            assert not self.fleet.world.violations

        await self.fleet.clock.run(inside())


def drain() -> OperationRequest:
    return OperationRequest(id=OPERATION, hosts=("host1",), requested_by="token:ops", reason="new fans")


async def moved(controller: Controller) -> Counter[str]:
    """How often each VM has been moved."""
    done = await controller.fleet.migrations(Page(statuses=(Status.COMPLETED,), limit=500))
    return Counter(record.migration.vm_name for record in done)
