"""Two honest hosts and a controller on a guarded bus, a VM on its way, and host3, whom somebody has taken over.

The agents, their journals, the controller, its records and the bus are real. Only what the agents do to a host is
simulated.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from sterna.adapters.identity.permits import OwnPermits, PermitCheck
from sterna.adapters.nats.bus import NatsBus
from sterna.adapters.sealing import HpkeSealing
from sterna.adapters.sql.fleet import SqlFleet
from sterna.adapters.sql.journal import SqlJournal
from sterna.agent.daemon import Agent, AgentParts
from sterna.bootstrap.process import join_bus
from sterna.config.bus import BusSettings, IdentitySettings
from sterna.controller.controller import Controller
from sterna.controller.intents.request import MigrateRequest
from sterna.domain.journal import Migration
from sterna.domain.status import Status
from sterna.domain.trust.identities import CONTROLLER_TOKEN, Identity, Kind
from sterna.kit.clock import SystemClock
from sterna.migration.context import HostPorts
from sterna.ports.fleet import MigrationRecord, Page
from sterna.rpc.client import RpcClient
from sterna.rpc.envelope import Reply, decode_reply
from sterna.sim.libvirt.guests import add_vm
from sterna.sim.libvirt.handshake import SimHandshake
from sterna.sim.libvirt.hypervisor import SimHypervisor
from sterna.sim.ports.attached import SimAttachedVolumes
from sterna.sim.ports.network import SimNetwork
from sterna.sim.ports.storage import SimStorage
from sterna.sim.ports.vif import SimVif
from sterna.sim.ports.volumes import SimIscsiVolumes, SimSharedFiles
from sterna.sim.simulation import SimWorld
from sterna.sim.world.things import Pace
from tests.contract.guarded import Guarded
from tests.narrowing import not_none
from tests.rights import CONTROLLER, HOST1, HOST2

HOST3 = Identity(kind=Kind.AGENT, name="host3")
HONEST = ("host1", "host2")
CLOCK = SystemClock()
ELSEWHERE = "cccccccc-0000-4000-8000-000000000001"
"""A VM that none of them has."""
HELD_BEFORE = "network-vif-plugged"
"""The step before which the migration waits: both halves are open, and nothing is written."""


def folder_of(guarded: Guarded, who: Identity) -> Path:
    """Of its key and certificate."""
    return guarded.folder / f"{who.kind}-{who.name}"


async def joined(guarded: Guarded, who: Identity) -> NatsBus:
    """As `bootstrap` joins an agent or a controller."""
    identity = IdentitySettings(enrol="sterna", folder=folder_of(guarded, who))
    bus = await join_bus(BusSettings(url=guarded.url), who.name, who.bus_token, identity)
    async with asyncio.timeout(20):
        await bus.wait_connected()
    return bus


class Stage:
    """The fleet, and what can be seen of it."""

    def __init__(self, guarded: Guarded) -> None:
        self.guarded = guarded
        self.world = SimWorld(CLOCK, pace=Pace(prepare_ms=20, confirm_ms=20))
        self.journals = {name: SqlJournal.at(None) for name in HONEST}
        self.agents: dict[str, Agent] = {}
        self.ports: dict[str, HostPorts] = {}
        self.held, self.raise_if_aborted = asyncio.Event(), asyncio.Event()
        self.holding = False
        for name in (*HONEST, HOST3.name):
            self.world.add_host(name)
        self.moved = add_vm(self.world, "host1", "petrel", disks=("shared", "local", "iscsi"))
        self.moving = add_vm(self.world, "host1", "tern", disks=("shared", "local", "iscsi"))

    async def start(self, stack: AsyncExitStack) -> None:
        """petrel has moved from host1 to host2; tern is about to be copied there, and waits."""
        for who in (HOST1, HOST2):
            await self._agent(who, stack)
        self.host3 = await joined(self.guarded, HOST3)
        stack.push_async_callback(self.host3.close)
        bus = await joined(self.guarded, CONTROLLER)
        stack.push_async_callback(bus.close)
        self.client = RpcClient(bus, CONTROLLER_TOKEN, CLOCK)
        self.fleet = SqlFleet.open(f"sqlite:///{self.guarded.folder}/controller.db")
        permits = OwnPermits(folder_of(self.guarded, CONTROLLER), CLOCK)
        self.controller = Controller(self.fleet, self.client, CLOCK, self.client.dead_letters, permits=permits)
        await self.controller.start()
        stack.push_async_callback(self.controller.stop)
        await self.beacon()
        async with asyncio.timeout(20):
            while not all(map(self.controller.registry.is_up, (*HONEST, HOST3.name))):  # noqa: ASYNC110 - real time
                await asyncio.sleep(0.05)
        first = await self.migrate(self.moved)
        assert (await self.ended(first)).status is Status.COMPLETED
        self.holding = True
        self.migration = (await self.migrate(self.moving)).migration
        async with asyncio.timeout(60):
            await self.held.wait()
        self.migration = not_none(self.journals["host2"].get(self.migration.id))[0]
        await self._read()

    async def _agent(self, who: Identity, stack: AsyncExitStack) -> None:
        bus = await joined(self.guarded, who)
        stack.push_async_callback(bus.close)
        boot = f"{who.name}-1"
        self.ports[who.name] = self._ports(who.name)
        agent = Agent(AgentParts(self.ports[who.name], self.journals[who.name], bus, boot, self._strike))
        await agent.start()
        stack.push_async_callback(agent.stop)
        self.agents[who.name] = agent

    async def _strike(self, step: str, row: str, moment: str, /) -> None:
        if self.holding and (step, moment) == (HELD_BEFORE, "before"):
            self.held.set()
            await self.raise_if_aborted.wait()

    def _ports(self, name: str) -> HostPorts:
        world = self.world
        return HostPorts(
            name=name,
            address=world.hosts[name].address,
            uri=lambda address: f"qemu+tls://{address}/system",
            hypervisor=SimHypervisor(world, name),
            vif=SimVif(world, name),
            network=SimNetwork(world),
            volumes=(SimSharedFiles(world, name), SimIscsiVolumes(world, name), SimAttachedVolumes(world, name)),
            storage=SimStorage(world, name),
            clock=CLOCK,
            sealing=HpkeSealing(),
            handshake=SimHandshake(world, name),
            permits=PermitCheck(folder_of(self.guarded, Identity(kind=Kind.AGENT, name=name)), CLOCK),
        )

    async def beacon(self) -> None:
        """host3's own word about itself: it is an enrolled host, and the controller knows it."""
        facts = await SimHypervisor(self.world, HOST3.name).host()
        data = {"name": HOST3.name, "host": facts.model_dump(mode="json"), "boot": "3", "journal_last": 1}
        await RpcClient(self.host3, HOST3.name, CLOCK).announce("host.host3", data)

    async def migrate(self, vm: str) -> MigrationRecord:
        record, _ = await self.controller.migrate(MigrateRequest(vm=vm, destination="host2"))
        return record

    async def ended(self, record: MigrationRecord) -> MigrationRecord:
        """Wait until both hosts have closed it, and the controller has read that."""
        async with asyncio.timeout(90):
            while True:
                await self._read()
                now = await self.fleet.migration(record.id)
                if now.source_closed and now.destination_closed:
                    return now
                await asyncio.sleep(0.1)

    async def _read(self) -> None:
        for name in HONEST:
            await self.controller.projector.pull(name)

    async def picture(self) -> dict[str, Any]:
        """All that host3 has no say in."""
        migrations = await self.fleet.migrations(Page(limit=100))
        return {
            "hosts": {name: self.world.snapshot(name) for name in HONEST},
            "journals": {name: journal.since(0, 10_000) for name, journal in self.journals.items()},
            "open": {name: journal.open() for name, journal in self.journals.items()},
            "epochs": {
                (name, vm): journal.newest_epoch(vm)
                for name, journal in self.journals.items()
                for vm in (self.moved, self.moving, ELSEWHERE)
            },
            "casts": {
                name: (journal.inbox(), [cast for cast in journal.outbox() if cast.to != HOST3.name])
                for name, journal in self.journals.items()
            },
            "records": [m.model_dump(exclude={"updated_at"}) for m in migrations],
            "timelines": {m.id: await self.fleet.entries(m.id) for m in migrations},
            "vms": {v.uuid: (v.name, v.host, v.migration_id) for v in await self.fleet.vms()},
            "known": {
                h.name: (h.facts.host_uuid, h.facts.address, h.maintenance, h.dead, h.up, h.boot)
                for h in await self.controller.registry.hosts()
                if h.name in HONEST
            },
        }

    async def answers(self) -> None:
        """Everybody's, to everybody else, come as ever."""
        calls = [self.client.call(name, "ping", {}) for name in HONEST]
        calls += [self.agents["host1"]._client.call("host2", "ping", {})]
        calls += [self.agents["host2"]._client.call("host1", "ping", {})]
        assert all(answer["boot"] for answer in await asyncio.gather(*calls))

    async def goes_on(self) -> None:
        """The migration that waited ends as if nothing had been."""
        self.raise_if_aborted.set()
        record = await self.fleet.migration(self.migration.id)
        assert (await self.ended(record)).status is Status.COMPLETED
        assert self.world.running(self.moving) == ["host2"] and self.world.violations == []

    def forged(self, **change: object) -> Migration:
        """What host3 says of the migration under way."""
        return self.migration.model_copy(update=change)


@asynccontextmanager
async def stage_on(guarded: Guarded) -> AsyncIterator[Stage]:
    """A fleet on this bus, of which host3 is a member."""
    for who in (HOST1, HOST2, HOST3, CONTROLLER):
        guarded.enrol(who)
    await guarded.start()
    try:
        async with AsyncExitStack() as stack:
            stage = Stage(guarded)
            stack.push_async_callback(stage.world.close)
            await stage.start(stack)
            yield stage
    finally:
        await guarded.end()


async def reply_to(stage: Stage, subject: str, payload: bytes) -> Reply:
    """The answer that host3 gets."""
    async with asyncio.timeout(30), stage.host3.request(subject, payload) as replies:
        async for raw in replies:
            if (reply := decode_reply(raw)).kind != "heartbeat":
                return reply
    raise AssertionError("no answer")
