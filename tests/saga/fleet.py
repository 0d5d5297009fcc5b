"""Agents on a simulated world, on virtual time: the real agent, saga, RPC and journal; only the hosts are not."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sterna.adapters.sealing import HpkeSealing
from sterna.adapters.sql.journal import SqlJournal
from sterna.agent.condition import JournalChecks, no_warning
from sterna.agent.daemon import Agent, AgentParts
from sterna.domain.errors import Permanent, Unknown, Unreachable
from sterna.domain.model import Data
from sterna.domain.objective import Asked
from sterna.domain.status import Status
from sterna.domain.step import History
from sterna.domain.trouble import Trouble
from sterna.domain.trust.identities import CONTROLLER_TOKEN
from sterna.migration.context import HostPorts
from sterna.ports.identity import RevokedHere
from sterna.rpc.client import RpcClient
from sterna.sim.libvirt.guests import add_vm
from sterna.sim.libvirt.handshake import SimHandshake
from sterna.sim.libvirt.hypervisor import SimHypervisor
from sterna.sim.ports.attached import SimAttachedVolumes
from sterna.sim.ports.bus import MemoryBroker
from sterna.sim.ports.network import SimNetwork
from sterna.sim.ports.storage import SimStorage
from sterna.sim.ports.vif import SimVif
from sterna.sim.ports.volumes import SimIscsiVolumes, SimSharedFiles
from sterna.sim.simulation import SimWorld
from sterna.sim.world.clock import SimClock
from sterna.sim.world.snapshot import HostSnapshot
from tests.asking import to_start

Action = str | Callable[[], object]
"""What a rule does: `permanent` (the step fails each time), `kill`, `abort` or `disk-full`; or a function. The step
waits for its end, where it is asynchronous."""


class HostClock:
    """One host's clock: the fleet's time, and a wall clock that can be set wrong."""

    def __init__(self, clock: SimClock) -> None:
        self._clock = clock
        self.wrong_by_s = 0.0

    def now(self) -> datetime:
        return self._clock.now() + timedelta(seconds=self.wrong_by_s)

    def monotonic_ms(self) -> float:
        return self._clock.monotonic_ms()

    async def sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)


class SimAgent:
    """One host's agent, which can be killed and started again; its journal is what survives."""

    def __init__(self, fleet: SimFleet, name: str) -> None:
        self.fleet, self.name = fleet, name
        self.clock = HostClock(fleet.clock)
        self.journal = SqlJournal.at(None, clock=self.clock)
        self.settings: dict[str, object] = {}
        """Of its `HostPorts`, where a test wants others."""
        self.revoked: RevokedHere | None = None
        """Takes lists of revoked certificates."""
        self.warning: Callable[[], Trouble | None] = no_warning
        self.rules: list[tuple[str, str, Action]] = []
        """Step, moment (`before` or `after`), and what happens then: once, but for `permanent`, which stays."""
        self.applied: list[tuple[str, str]] = []
        """The steps and moments at which a rule was."""
        self._agent: Agent | None = None
        self._life = 0

    async def start(self) -> None:
        self._life += 1
        self.journal.boot = f"{self.name}-{self._life}"
        bus = self.fleet.broker.bus(f"{self.name}-{self._life}", self.name)
        checks = JournalChecks(journal=self.journal.check_writable)
        boot, rules = self.journal.boot, self._apply_rules
        parts = AgentParts(self.ports(), self.journal, bus, boot, rules, checks, self.revoked, self.warning)
        self._agent = Agent(parts)
        await self._agent.start()

    async def kill(self) -> None:
        """As kill -9 would: from now on it neither says nor does anything."""
        agent, self._agent = self._agent, None
        assert agent is not None
        self.fleet.broker.cut(f"{self.name}-{self._life}")
        await agent.stop()

    def disk_full(self, full: bool) -> None:
        """Its journal's disk takes nothing more, or does again; what is on it can be read."""
        self.journal._db.execute(f"PRAGMA query_only = {'ON' if full else 'OFF'}")

    @property
    def alive(self) -> bool:
        return self._agent is not None

    def ports(self) -> HostPorts:
        world, name = self.fleet.world, self.name
        ports = HostPorts(
            name=name,
            address=world.hosts[name].address,
            uri=lambda address: f"qemu+tls://{address}/system",
            hypervisor=SimHypervisor(world, name),
            vif=SimVif(world, name),
            network=SimNetwork(world),
            volumes=(SimSharedFiles(world, name), SimIscsiVolumes(world, name), SimAttachedVolumes(world, name)),
            storage=SimStorage(world, name),
            clock=self.clock,
            sealing=HpkeSealing(),
            handshake=SimHandshake(world, name),
        )
        return replace(ports, **self.settings)  # type: ignore[arg-type]

    @property
    def unapplied(self) -> list[tuple[str, str, Action]]:
        """The rules that have not been applied: their test has not tested what it is about."""
        return [rule for rule in self.rules if rule[:2] not in self.applied]

    async def _apply_rules(self, step: str, row: str, moment: str, /) -> None:
        for rule in list(self.rules):
            if rule[:2] != (step, moment):
                continue
            self.applied.append((step, moment))
            if rule[2] == "permanent":
                raise Permanent(f"forced at {step} ({moment})")
            self.rules.remove(rule)
            await self._apply(rule[2])

    async def _apply(self, action: Action) -> None:
        if callable(action):
            done = action()
            if inspect.isawaitable(done):
                await done
        elif action == "kill":
            self.fleet.dying.append(self)
            self.fleet.death.set()
            await asyncio.Event().wait()
        elif action == "abort":
            await self.fleet.abort()
        elif action == "disk-full":
            self.disk_full(True)
            self.fleet.later(self.fleet.full_s, lambda: self.disk_full(False))
        else:
            raise AssertionError(f"{action!r} is not an action of a rule")

    def history(self, migration: str) -> History:
        return History.read(self.journal.entries(migration))


class SimFleet:
    """A world, its agents, and a client that does what the controller would."""

    def __init__(self, hosts: tuple[str, ...] = ("host1", "host2")) -> None:
        self.clock = SimClock()
        self.world = SimWorld(self.clock)
        self.broker = MemoryBroker()
        for name in hosts:
            self.world.add_host(name)
        self.agents = {name: SimAgent(self, name) for name in hosts}
        self.client = RpcClient(self.broker.bus("controller", CONTROLLER_TOKEN), CONTROLLER_TOKEN, self.clock)
        self.dying: list[SimAgent] = []
        self.death = asyncio.Event()
        self.migration = ""
        self.down_s = 3.0
        self.full_s = 40.0
        self._later: set[asyncio.Task[None]] = set()
        self._reaper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> SimFleet:
        for agent in self.agents.values():
            await agent.start()
        self._reaper = asyncio.create_task(self._reap())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._reaper:
            self._reaper.cancel()
        for task in self._later:
            task.cancel()
        for agent in self.agents.values():
            if agent.alive:
                await agent.kill()
        await self.world.close()
        assert self.broker.refused == []
        if kind is None:
            assert not {name: agent.unapplied for name, agent in self.agents.items() if agent.unapplied}

    def vm(self, name: str = "tern", **more: Any) -> str:
        return add_vm(self.world, "host1", name, disks=("shared", "local", "iscsi"), **more)

    async def start(
        self,
        vm: str,
        to: str = "host2",
        source: str = "host1",
        migration: str = "",
        asked: Asked | None = None,
        rehearse: str = "",
    ) -> Data:
        """Ask the source's agent with what the API sends, until there is an answer."""
        params = to_start(vm, to, asked, source=source, migration=migration, rehearse=rehearse)
        self.migration = str(params["id"])
        while True:
            try:
                return await self.client.call(source, "start_migration", params)
            except (Unreachable, Unknown):  # the same id again: as the controller does
                await self.clock.sleep(1)

    async def abort(self, source: str = "host1") -> None:
        await self.client.call(source, "abort_migration", {"id": self.migration})

    async def ended(self, source: str = "host1", limit_s: float = 600.0) -> Status:
        """Wait, in virtual time, until both journals have closed the migration; its final status."""
        until = self.clock.monotonic_ms() + limit_s * 1000
        while True:
            history = self.agents[source].history(self.migration)
            open_anywhere = any(m.id == self.migration for a in self.agents.values() for m, _ in a.journal.open())
            if history.closed and not open_anywhere:
                return Status(str(history.status))
            if self.clock.monotonic_ms() > until:
                raise AssertionError(
                    f"still {history.status}: {self.agents[source].journal.entries(self.migration)[-4:]}"
                )
            await self.clock.sleep(0.5)

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Do that in a while."""

        async def wait() -> None:
            await self.clock.sleep(seconds)
            act()

        self._later.add(asyncio.create_task(wait()))

    def snapshots(self) -> dict[str, HostSnapshot]:
        return {name: self.world.snapshot(name) for name in self.agents}

    def own(self, host: str) -> HostSnapshot:
        """What is on this host alone: shared folders left out."""
        seen = self.world.snapshot(host)
        return replace(seen, files={p: f for p, f in seen.files.items() if not p.startswith("/srv/shared/")})

    async def _reap(self) -> None:
        """Agents that met a `kill` rule die, and are started again after a while."""
        while True:
            await self.death.wait()
            self.death.clear()
            while self.dying:
                agent = self.dying.pop()
                await agent.kill()
                await self.clock.sleep(self.down_s)
                await agent.start()
