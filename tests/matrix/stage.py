"""The stage on which a case is played: a world, real agents in mortal lives, and moments at which faults strike."""

from __future__ import annotations

import asyncio
import uuid as uuids
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from sterna.adapters.sealing import HpkeSealing
from sterna.agent.daemon import Agent, AgentParts
from sterna.domain.errors import Permanent, SternaError, Temporary, Unknown
from sterna.domain.forecast import Load
from sterna.domain.objective import Asked
from sterna.domain.trust.identities import CONTROLLER_TOKEN
from sterna.migration.context import HostPorts
from sterna.rpc.client import RpcClient
from sterna.sim.libvirt import guests as fate
from sterna.sim.libvirt.hypervisor import SimHypervisor
from sterna.sim.ports.attached import SimAttachedVolumes
from sterna.sim.ports.bus import MemoryBroker
from sterna.sim.ports.network import SimNetwork
from sterna.sim.ports.storage import SimStorage
from sterna.sim.ports.vif import SimVif
from sterna.sim.ports.volumes import SimIscsiVolumes, SimSharedFiles
from sterna.sim.simulation import SimWorld
from sterna.sim.world.clock import SimClock
from sterna.sim.world.things import Change, Pace
from tests.asking import to_start
from tests.matrix import virtual
from tests.matrix.auditor import Auditor
from tests.matrix.guarded_journal import GuardedJournal
from tests.matrix.ledger import Ledger
from tests.matrix.life import (
    LIFE,
    STEP,
    TOUCH,
    GuardedBus,
    GuardedClock,
    GuardedPort,
    HostClock,
    Life,
)
from tests.matrix.life import task_factory as life_of_task
from tests.matrix.memory_journal import MemoryJournal
from tests.matrix.moments import Moment
from tests.matrix.mortal_controller import NAME, MortalController
from tests.matrix.state import fingerprint

IN_AGENT = ("storage", "vif", "volumes", "network")
"""Ports whose work is done by the agent's own process: it can die half-way through one call."""

Fault = Callable[["Stage", str], None]
"""Strikes on the host it is given; may raise what the port or step shall raise."""


class Unsettled(AssertionError):
    """Virtual hours later something is still open."""


class Stage:
    """One world with its agents. `plans` says which fault strikes at which moment."""

    def __init__(self, hosts: tuple[str, ...] = ("host1", "host2"), *, pace: Pace | None = None) -> None:
        self.clock = SimClock()
        self.world = SimWorld(self.clock, pace=pace)
        self.auditor = Auditor(self.world)
        self.broker = MemoryBroker()
        for name in hosts:
            self.world.add_host(name)
        self.clocks = {name: HostClock(self.clock) for name in hosts}
        self.journals = {name: MemoryJournal(self.clocks[name]) for name in hosts}
        self.ledger = Ledger(self.world, self.journals, self.auditor.find)
        self.lives: dict[str, Life] = {}
        self.agents: dict[str, Agent] = {}
        self.client = RpcClient(self.broker.bus("controller", CONTROLLER_TOKEN), CONTROLLER_TOKEN, self.clock)
        self.controller: MortalController | None = None
        """The controller, where a case has one; else the client asks the agents itself."""
        self.plans: dict[str, Fault] = {}
        self.struck: list[str] = []
        self.trace: list[Moment] = []
        self.story: list[str] = []
        self.migration = ""
        self.vm = ""
        self.asked = Asked()
        """What a user wants of the migrations."""
        self.planned: Load | None = None
        """The guest's load, where a plan has measured it."""
        self.limit_s = 1800.0
        self.losing: set[str] = set()
        self.aborted_in_time = False
        """An abort was accepted while libvirt had not begun to copy."""
        self.fingerprinting = False
        """Each moment knows the state it finds."""
        self._version = self._asked = 0
        self._copied_ms = 0.0
        """When libvirt last said something of a copy."""
        self._state = (-1, 0)
        self._seen: Counter[tuple[str, str]] = Counter()
        self._born: Counter[str] = Counter()
        self._pending: set[asyncio.Task[Any]] = set()
        self.world.watch(self._changed)

    # ------------------------------------------------------------ moments

    def moment(self, host: str, what: str) -> None:
        """It happens now: record it, and let what is planned for it strike."""
        self._seen[host, what] += 1
        nth = self._seen[host, what]
        key = f"{host}: {what} #{nth}"
        self.trace.append(Moment(key, host, what, nth, self._version, self._fingerprint()))
        fault = self.plans.pop(key, None)
        if fault is not None:
            self.struck.append(key)
            self.tell_story(host, f"*** {what} #{nth}: struck by {getattr(fault, '__name__', 'fault')}")
            self.stirred()
            token = TOUCH.set("")  # what a fault does to the world is no agent's doing
            try:
                fault(self, host)
            finally:
                TOUCH.reset(token)

    def _fingerprint(self) -> int:
        if not self.fingerprinting:
            return 0
        if self._state[0] != self._version:
            self._state = self._version, fingerprint(self)
        return self._state[1]

    def begin(self, plans: dict[str, Fault]) -> None:
        """Moments count from here on."""
        self.trace.clear()
        self._seen.clear()
        self.plans = plans

    def stirred(self) -> None:
        """The state of the world, a journal or the bus is another one now."""
        self._version += 1

    def loses(self, message: str) -> bool:
        """Is this message to be lost? Once."""
        if message in self.losing:
            self.losing.discard(message)
            return True
        return False

    def tell_story(self, host: str, text: str) -> None:
        """One more line of what happened."""
        self.story.append(f"{self.clock.monotonic_ms():9.0f} ms  {host:6} {text}")

    def _changed(self, change: Change) -> None:
        self.stirred()
        self.tell_story(change.host, f"world: {change.what} {change.subject} {change.detail}")
        if change.what == "domain" and change.detail.startswith(("running (migrated", "running (postcopy)")):
            self._guest_writes(change.subject)
        host, _, label = TOUCH.get().partition("|")
        if label:
            self.ledger.changed(host, label, change)
            self.auditor.by_agent(change)
        if change.what == "job":
            self._copied_ms = self.clock.monotonic_ms()
        if change.what == "job" and change.detail == "started":
            self.ledger.job_started(change.host)
        if label and label.partition("/")[2].partition(".")[0] in IN_AGENT:
            self.lives[host].moment(f"{label} change {change.what}")
        elif change.what in ("job", "domain"):
            self.moment("world", f"{change.host} {change.what} {change.detail}")

    def _guest_writes(self, uuid: str) -> None:
        if len(self.world.running(uuid)) == 1:
            fate.guest_writes(self.world, uuid)

    # ------------------------------------------------------------ agents

    async def start_agent(self, host: str) -> None:
        """A new life on the same journal; tried again, as systemd would, until it comes up."""
        STEP.set("-")
        TOUCH.set("")
        while True:
            self._born[host] += 1
            life = self.lives[host] = Life(self, host, self._born[host])
            token = LIFE.set(life)
            try:
                bus = GuardedBus(life, self.broker.bus(life.name, host))
                book = GuardedJournal(life, self.journals[host])
                agent = Agent(AgentParts(self._ports(life), book, bus, life.name, life.strike))
                self.agents[host] = agent
                self.tell_story(host, f"agent starts ({life.name})")
                await agent.start()
                return
            except SternaError as error:
                self.tell_story(host, f"agent does not come up: {error}")
                life.die()
            except asyncio.CancelledError:
                if not life.dead:
                    raise
                return  # killed while it came up; whoever killed it starts it again
            finally:
                LIFE.reset(token)
            await self.clock.sleep(1.0)

    def kill(self, host: str, down_s: float) -> None:
        """kill -9, and a new start after `down_s` (0: never by itself)."""
        if host == NAME and self.controller is not None:
            self.controller.kill(down_s)
            return
        life = self.lives[host]
        if life.dead:
            return
        self.tell_story(host, f"agent dies, for {down_s:g} s")
        life.die()
        if down_s:
            self.later(down_s, lambda: self.revive(host))

    def revive(self, host: str) -> None:
        """Start the agent again, if its host has power."""
        if self.lives[host].dead and self.world.hosts[host].powered:
            self.spawn(self.start_agent(host))

    def peer_of(self, host: str) -> str:
        """The other one of two hosts."""
        return next(name for name in self.world.hosts if name != host)

    def _ports(self, life: Life) -> HostPorts:
        world, name = self.world, life.host

        def guard(port: object, label: str) -> Any:
            return GuardedPort(life, port, label)

        return HostPorts(
            name=name,
            address=world.hosts[name].address,
            uri=lambda address: f"qemu+tls://{address}/system",
            hypervisor=guard(SimHypervisor(world, name), "hypervisor"),
            vif=guard(SimVif(world, name), "vif"),
            network=guard(SimNetwork(world), "network"),
            volumes=tuple(
                guard(kind(world, name), "volumes")
                for kind in (SimSharedFiles, SimIscsiVolumes, SimAttachedVolumes)
            ),
            storage=guard(SimStorage(world, name), "storage"),
            clock=GuardedClock(life, self.clocks[name]),
            sealing=HpkeSealing(),
        )

    # ------------------------------------------------------------ time

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Do it after so many virtual seconds; a case is not over before that."""

        async def wait() -> None:
            await self.clock.sleep(seconds)
            self.stirred()
            act()

        self.spawn(wait())

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something that belongs to the stage, to no agent."""
        tokens = LIFE.set(None), TOUCH.set("")
        task = asyncio.get_running_loop().create_task(work)
        TOUCH.reset(tokens[1])
        LIFE.reset(tokens[0])
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    # ------------------------------------------------------------ the play

    def run(self, scene: Callable[[], Coroutine[Any, Any, None]], limit_s: float = 86_400.0) -> None:
        """Play `scene` on virtual time, from the agents' first start to the end of the world."""

        async def inside() -> None:
            try:
                for host in self.world.hosts:
                    await self.start_agent(host)
                if self.controller is not None:
                    await self.controller.start()
                await scene()
            finally:
                await self._close()

        virtual.run(self.clock, limit_s, life_of_task, inside())

    async def start(self, source: str, destination: str, migration: str = "", patience_s: float = 900.0) -> str:
        """Ask for a migration as the controller does: the same id until there is an answer. '' or the refusal."""
        self._asked += 1
        self.migration = migration or str(uuids.UUID(int=self._asked))
        if self.controller is not None:
            return await self.controller.migrate(self.migration, self.vm, destination, self.asked)
        params = to_start(
            self.vm, destination, self.asked, source=source, migration=self.migration, load=self.planned
        )
        until = self.clock.monotonic_ms() + patience_s * 1000
        while True:
            try:
                await self.client.call(source, "start_migration", params)
                return ""
            except (Temporary, Unknown) as error:
                if self.clock.monotonic_ms() > until:
                    raise Unsettled(f"start_migration: {error}") from error
                await self.clock.sleep(1.0)
            except Permanent as error:
                self.tell_story("client", f"refused: {error.message}")
                return error.message

    async def abort(self, source: str = "host1") -> None:
        """A user aborts; what the answer is does not matter here."""
        if self.controller is not None:
            await self.controller.abort(self.migration)
            return
        for _ in range(20):
            try:
                await self.client.call(source, "abort_migration", {"id": self.migration})
                began = any("world: job" in line and line.endswith(" started") for line in self.story)
                self.aborted_in_time = not began
                self.moment("client", "abort accepted")
                return
            except (Temporary, Unknown):
                await self.clock.sleep(1.0)
            except Permanent as error:
                self.tell_story("client", f"abort: {error.message}")
                return

    async def switch(self, source: str = "host1") -> None:
        """A user asks for post-copy; what the answer is does not matter here."""
        with suppress(SternaError):
            await self.client.call(source, "switch_to_postcopy", {"id": self.migration})

    async def settled(self) -> None:
        """Wait until nothing is open, nothing waits and nothing is planned. Raises Unsettled."""
        began = self.clock.monotonic_ms()
        while waiting := self.waits_for():
            waited_s = (self.clock.monotonic_ms() - began) / 1000
            if waited_s > self.limit_s:
                raise Unsettled("; ".join(waiting))
            await self.clock.sleep(0.5 + waited_s / 10)

    def waits_for(self) -> list[str]:
        """Everything that is not at rest, in words; from the journals' raw pages, not through Sterna's code."""
        found = [f"the agent of {host} is dead" for host, life in self.lives.items() if life.dead]
        found += ["the stage has plans"] if self._pending else []
        found += ["libvirt copies"] if self.world.copies else []
        for place in self.world.hosts.values():  # a check that nobody waits for any more may still hold one
            found += [f"{place.name}: {path}" for path, _ in place.files() if "/.sterna-" in path]
            for device in place.taps & place.ports.keys():  # made ahead of a guest that has ended since
                guest = place.domains.get(place.ports[device].external_ids.get("vm-uuid", ""))
                found += [f"{place.name}: tap {device} of no guest"] if guest and not guest.active else []
        for host, book in self.journals.items():
            for key, page in book.pages.items():
                if not page.closed or page.held:
                    lines = [e for e in book.lines if e["migration_id"] == key][-3:]
                    last = [f"{e['kind']}:{e['name'] or e['row']} {e['text']}" for e in lines]
                    found.append(f"{host}: {page.role} of {key[:8]} is open, last: {last}")
            found += [f"{host}: cast {key} not delivered" for key, (_, text) in book.casts_out.items() if text]
            found += [f"{host}: cast {key} not handled" for key, text in book.casts_in.items() if text]
        for host, life in self.lives.items():
            found += [f"{host}: no outcome of {step}" for step in self.ledger.awaited(host, life.name)]
        found += self.controller.wrong() if self.controller is not None else []
        return found

    def status(self, host: str, migration: str = "") -> str:
        """The last status in a host's journal, read raw; '' for a migration it does not know."""
        wanted = migration or self.migration
        lines = [e for e in self.journals[host].lines if e["migration_id"] == wanted and e["kind"] == "status"]
        return str(lines[-1]["name"]) if lines else ""

    def closed_ms(self, host: str) -> float:
        """When this host's half of the migration was closed; never: infinity."""
        mine = [e for e in self.journals[host].lines if e["migration_id"] == self.migration]
        lines = [e for e in mine if e["kind"] == "closed"]
        return float(str(lines[-1]["mono_ms"])) if lines else float("inf")

    def copied_until_s(self, source: str) -> float:
        """How long after this migration was accepted libvirt still copied; 0.0 where it never did."""
        mine = [e for e in self.journals[source].lines if e["migration_id"] == self.migration]
        accepted = [float(str(e["mono_ms"])) for e in mine if e["kind"] == "accepted"]
        if not accepted or self._copied_ms < accepted[0]:
            return 0.0
        return (self._copied_ms - accepted[0]) / 1000

    async def _close(self) -> None:
        if self.controller is not None:
            self.controller.close()
        for life in self.lives.values():
            life.die()
        for task in tuple(self._pending):
            task.cancel()
        await asyncio.gather(*self._pending, return_exceptions=True)
        await self.world.close()
