"""Agents that answer a controller: real ones over simulated hypervisors, and those of `make fleet`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from bench.fleetsim.crowd import Crowd
from bench.fleetsim.made import Made, MadeHost, MadeVm, Size

from sterna.controller.records.projector import apply
from sterna.domain.journal import Entry, Migration
from sterna.domain.model import Data
from sterna.domain.objective import Asked
from sterna.domain.trust.identities import CONTROLLER_TOKEN
from sterna.ports.fleet import MigrationRecord
from sterna.rpc.client import RpcClient
from sterna.sim.libvirt import guests
from sterna.sim.ports.bus import MemoryBroker
from sterna.sim.world.clock import SimClock
from tests.asking import to_start
from tests.saga.fleet import SimFleet
from tests.saga.losses import power_back, power_cut

HOSTS = ("host1", "host2", "host3")
MEMORY = 4 << 30
"""Of the one VM, whose copy takes seconds."""
VM = guests.uuid_of("tern")

Power = Callable[[str], Coroutine[Any, Any, None]]


@dataclass
class AgentStage:
    """Three hosts, a VM `tern` on the first one, and a controller's connection to their agents."""

    clock: SimClock
    client: RpcClient
    other: RpcClient
    """Speaks as host2 does."""
    power_off: Power
    power_on: Power

    async def ask(self, host: str, method: str, params: Data | None = None, **more: Any) -> Data:
        """As a controller does."""
        return await self.client.call(host, method, params or {}, **more)

    async def start(self, to: str = "host2", *, id: str = "", asked: Asked | None = None) -> Migration:
        """Have the VM moved from host1."""
        answer = await self.ask("host1", "start_migration", to_start(VM, to, asked, migration=id))
        return Migration.model_validate(answer["migration"])

    async def entries(self, host: str) -> list[Entry]:
        """Its whole journal, page by page."""
        found: list[Entry] = []
        while True:
            page = await self.ask(host, "journal_since", {"cursor": len(found), "limit": 20})
            assert all(Migration.model_validate(one).vm_uuid == VM for one in page["migrations"])
            entries = [Entry.model_validate(entry) for entry in page["entries"]]
            if not entries:
                return found
            found += entries
            assert page["last"] == found[-1].seq == len(found)

    async def record(self, migration: Migration, *hosts: str) -> MigrationRecord:
        """What a controller makes of these journals."""
        record = MigrationRecord(migration=migration.model_copy(update={"epoch": 0}))
        for host in hosts:
            for entry in await self.entries(host):
                record = apply(record, host, entry).record if entry.migration_id == migration.id else record
        return record

    async def until(self, migration: Migration, *statuses: str, host: str = "host1") -> None:
        """Wait until its journal has it in one of these."""
        for _ in range(6000):
            found = [e.data["status"] for e in await self.entries(host) if e.kind == "status"]
            if found and found[-1] in statuses:
                return
            await self.clock.sleep(0.1)
        raise AssertionError(f"{migration.id} is {found}")


Stage = tuple[SimClock, AbstractAsyncContextManager[AgentStage]]


def real() -> Stage:
    """The product's agents."""
    fleet = SimFleet(HOSTS)
    guests.add_vm(fleet.world, "host1", "tern", memory_bytes=MEMORY, dirty_bytes_per_s=1 << 20)
    other = RpcClient(fleet.broker.bus("as host2", "host2"), "host2", fleet.clock)

    async def off(host: str) -> None:
        await power_cut(fleet, host)

    async def on(host: str) -> None:
        await power_back(fleet, host)

    @asynccontextmanager
    async def stage() -> AsyncIterator[AgentStage]:
        async with fleet:
            await fleet.clock.sleep(2)
            yield AgentStage(fleet.clock, fleet.client, other, off, on)

    return fleet.clock, stage()


def simulated() -> Stage:
    """Those of `make fleet`."""
    hosts = {name: MadeHost(name, 64 << 30, 16, "rack000", float(1 << 30)) for name in HOSTS}
    vms = {VM: MadeVm(VM, "tern", "host1", MEMORY, 2, float(1 << 20))}
    clock, broker = SimClock(), MemoryBroker()
    client = RpcClient(broker.bus("controller", CONTROLLER_TOKEN), CONTROLLER_TOKEN, clock)
    other = RpcClient(broker.bus("as host2", "host2"), "host2", clock)

    @asynccontextmanager
    async def stage() -> AsyncIterator[AgentStage]:
        crowd = Crowd(broker.bus("crowd"), Made(Size(compress=1), hosts, vms), clock)

        async def off(host: str) -> None:
            await crowd.power_off(host, "a test")

        await crowd.start()
        await clock.sleep(2)
        try:
            yield AgentStage(clock, client, other, off, crowd.power_on)
        finally:
            await crowd.stop()

    return clock, stage()
