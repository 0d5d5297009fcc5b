"""Agents without hosts: they answer what real agents answer and write the journals real agents write."""

from __future__ import annotations

import asyncio
import fnmatch
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sterna.controller.controller import Controller
from sterna.domain.copying import GuestLoad
from sterna.domain.cpus import HostCpu
from sterna.domain.errors import Conflict, NotFound, Refused, SternaError, Undelivered
from sterna.domain.hosts import Abilities, HostFacts, VmSummary
from sterna.domain.journal import Entry, Kind, Migration, Role
from sterna.domain.model import Data, Disk, GuestState, Refusal, Vm
from sterna.domain.sightings import text_of
from sterna.kit.digests import digest_of
from sterna.ports.bus import BusState

from ..domain.journals import Book

GIB = 2**30
Handler = Callable[[str, Data], Awaitable[None]]


class HandClock:
    """Moves when told; sleeping takes no time."""

    def __init__(self) -> None:
        self.ms = 1_000_000.0
        self.jump_s = 0.0
        """How far the wall clock alone was set forward (or back)."""

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(milliseconds=self.ms, seconds=self.jump_s)

    def monotonic_ms(self) -> float:
        return self.ms

    async def sleep(self, seconds: float) -> None:
        self.ms += seconds * 1000
        await asyncio.sleep(0)


def uuid(n: int) -> str:
    return f"aaaaaaaa-0000-4000-8000-{n:012d}"


@dataclass
class FakeAgent:
    name: str
    number: int
    free: int = 8 * GIB
    userfaultfd: bool = True
    vms: dict[str, VmSummary] = field(default_factory=dict)
    disks: dict[str, tuple[Disk, ...]] = field(default_factory=dict)
    """Of its VMs, by UUID."""
    against: list[Refusal] = field(default_factory=list)
    """What `check_migration` to this host says."""
    journal: list[Entry] = field(default_factory=list)
    migrations: dict[str, Migration] = field(default_factory=dict)
    boot: str = "life-1"
    version: str = "1.0"
    listening: bool = True
    counts: bool = False
    """Its agent counts the changes of its VMs, as those of this version do."""
    seq: int = 1
    told: dict[str, VmSummary] = field(default_factory=dict)
    """Its VMs as of `seq`."""
    lost: str = ""
    """Why it cannot describe its host; '' where it can."""
    limits: list[int | None] = field(default_factory=list)
    loads: list[GuestLoad] = field(
        default_factory=lambda: [
            GuestLoad(dirty_bytes=10 * 2**20, period_s=1, allocated_bytes=600 * 2**20),
            GuestLoad(dirty_bytes=40 * 2**20, period_s=4, allocated_bytes=600 * 2**20),
        ]
    )
    shared: list[Data] = field(default_factory=list)
    """What it would do about migrations it has in common with a dead host."""
    told_dead: list[str] = field(default_factory=list)
    looks: Data = field(default_factory=dict)
    """What its doctor sees of it, besides its facts and its clock."""
    ways: Data = field(default_factory=dict)
    """And of each other host it is asked about."""
    cpu: HostCpu | None = None
    """None: of an earlier version, which does not describe it."""
    said_cpu: Data | None = None
    """Its answer, where that is another one."""
    leftovers: list[Data] = field(default_factory=list)
    """What its audit finds; with `repair` it is gone afterwards."""

    def facts(self) -> HostFacts:
        return HostFacts(
            name=self.name,
            host_uuid=f"00000000-0000-4000-8000-{self.number:012d}",
            address=f"10.0.0.{self.number}",
            libvirt_version=11_003_000,
            qemu_version=10_000_002,
            memory_total_bytes=16 * GIB,
            memory_free_bytes=self.free,
            cpus=4,
            cpu_id=digest_of(self.cpu.text) if self.cpu is not None else "",
            abilities=Abilities(userfaultfd=self.userfaultfd, insecure=True),
        )

    def add_vm(self, name: str, n: int, state: GuestState = GuestState.RUNNING) -> str:
        self.vms[uuid(n)] = VmSummary(uuid=uuid(n), name=name, state=state, memory_bytes=GIB, vcpus=1)
        return uuid(n)

    def count(self) -> Data | None:
        """The change since the last one, if there is any."""
        seen = [vm.model_dump(mode="json") for uuid, vm in self.vms.items() if self.told.get(uuid) != vm]
        gone = sorted(self.told.keys() - self.vms.keys())
        if not seen and not gone:
            return None
        self.seq, self.told = self.seq + 1, dict(self.vms)
        return self.mark() | {"boot": self.boot, "seen": seen, "gone": gone}

    def mark(self) -> Data:
        return {"seq": self.seq, "digest": digest_of(text_of(self.told.values()))}

    def write(self, book: Book) -> None:
        """Append a book's entries, numbered as this journal goes on."""
        for entry in book.entries:
            self.journal.append(entry.model_copy(update={"seq": len(self.journal) + 1}))
        self.migrations.setdefault(book.migration.id, book.migration)


class FakeBus:
    """Implements AgentCalls over fake agents."""

    def __init__(self, *agents: FakeAgent) -> None:
        self.agents = {a.name: a for a in agents}
        self.calls: list[tuple[str, str, Data]] = []
        self.faults: dict[str, list[SternaError | None]] = {}
        """Per method: errors to raise AFTER the agent has acted (None: no error this time)."""
        self.handlers: list[tuple[str, Handler]] = []
        self.announced: list[tuple[str, Data]] = []
        self.bus = BusState(connected=True, since=datetime(2026, 1, 1, tzinfo=UTC))
        self.on_accept: Callable[[Migration], None] = lambda migration: None
        self.now: Callable[[], str] = lambda: datetime(2026, 1, 1, tzinfo=UTC).isoformat()
        """The hosts' clocks."""

    async def call(
        self,
        to: str,
        method: str,
        params: Data,
        *,
        migration_id: str = "",
        epoch: int = 0,
        silence_s: float = 5.0,
        total_s: float | None = 300.0,
    ) -> Data:
        await asyncio.sleep(0)
        self.calls.append((to, method, params))
        agent = self.agents.get(to)
        if agent is None or not agent.listening:
            raise Undelivered(f"nobody answers for {to}", fix=f"start the agent on {to}")
        answer: Data = getattr(self, f"_{method}")(agent, params)
        fault = (self.faults.get(method) or [None]).pop(0) if self.faults.get(method) else None
        if fault is not None:
            raise fault
        return answer

    def bus_state(self) -> BusState:
        return self.bus

    async def announce(self, topic: str, data: Data) -> None:
        self.announced.append((topic, data))

    async def listen(self, topic_pattern: str, handler: Handler) -> FakeSubscription:
        self.handlers.append((topic_pattern, handler))
        return FakeSubscription()

    async def hint(self, topic: str, data: Data) -> None:
        """Deliver it to all who listen. Somebody must: a hint that nobody takes tests nothing."""
        handlers = [handler for pattern, handler in self.handlers if fnmatch.fnmatch(topic, pattern)]
        assert handlers, f"nobody listens to {topic}"
        for handler in handlers:
            await handler(topic, data)

    async def beat(self, controller: Controller, *names: str) -> None:
        """One beacon of each named host (all that listen, if none is named)."""
        for agent in self.agents.values():
            if agent.name in names or (not names and agent.listening):
                facts = None if agent.lost else agent.facts().model_dump()
                data = {"name": agent.name, "host": facts, "boot": agent.boot, "journal_last": 0}
                data["trouble"] = {"why": agent.lost, "since": "2026-11-29T11:00:00Z"} if agent.lost else None
                data["version"] = agent.version
                data["bus_since"] = "2026-11-29T11:00:00+00:00"
                data["vms"] = agent.mark() if agent.counts else None
                if await controller.registry.beacon(f"host.{agent.name}", data) is not None:
                    controller.snapshot.heard(agent.name, data)

    def asked(self, method: str) -> int:
        return sum(1 for _, m, _ in self.calls if m == method)

    def _list_vms(self, agent: FakeAgent, params: Data) -> Data:
        vms = [v.model_dump(mode="json") for v in agent.vms.values()]
        if not agent.counts:
            return {"vms": vms}
        agent.count()
        return {"vms": vms, "boot": agent.boot} | agent.mark()

    def _show_vm(self, agent: FakeAgent, params: Data) -> Data:
        summary = agent.vms.get(params["vm"])
        if summary is None:
            raise NotFound(f"no VM {params['vm']}")
        return {"vm": self._details(agent, summary)}

    def _details(self, agent: FakeAgent, summary: VmSummary) -> Data:
        vm = Vm(**summary.model_dump(), disks=agent.disks.get(summary.uuid, ()))
        return vm.model_dump(mode="json")

    def _measure_load(self, agent: FakeAgent, params: Data) -> Data:
        assert params["vm"] in agent.vms
        return {"windows": [load.model_dump(mode="json") for load in agent.loads]}

    def _check_migration(self, agent: FakeAgent, params: Data) -> Data:
        vm = agent.vms[params["vm"]]
        found = []
        if params["destination"] == agent.name:
            found.append(Refusal(code="same-host", message=f"{vm.name} is on {agent.name} already"))
        if vm.state is GuestState.PAUSED:
            found.append(Refusal(code="vm-paused", message=f"{vm.name} is paused", fix="resume it first"))
        elif vm.state is not GuestState.RUNNING:
            found.append(Refusal(code="vm-not-running", message=f"{vm.name} is {vm.state}", fix="start it first"))
        if params["destination"] != agent.name:
            found += self.agents[params["destination"]].against
        return {"vm": self._details(agent, vm), "refusals": [r.model_dump() for r in found]}

    def _start_migration(self, agent: FakeAgent, params: Data) -> Data:
        if params["id"] in agent.migrations:
            return {"migration": agent.migrations[params["id"]].model_dump(mode="json"), "repeated": True}
        refusals = [Refusal.model_validate(r) for r in self._check_migration(agent, params)["refusals"]]
        if refusals:
            raise Refused(refusals)
        closed = {e.migration_id for e in agent.journal if e.kind in (Kind.CLOSED, Kind.RELEASED)}
        for other in agent.migrations.values():
            if other.vm_uuid == params["vm"] and other.id not in closed and other.source == agent.name:
                raise Conflict(f"the VM is in migration {other.id} already")
        vm = agent.vms[params["vm"]]
        migration = Migration(
            id=params["id"],
            epoch=7,
            vm_uuid=vm.uuid,
            vm_name=vm.name,
            source=agent.name,
            destination=params["destination"],
            options=params["options"],
            created_at="2026-01-01T00:00:00+00:00",
            requested_by=params["requested_by"],
        )
        agent.write(Book(Role.SOURCE, migration=migration).accepted().status("queued", "accepted"))
        self.on_accept(migration)
        return {"migration": migration.model_dump(mode="json"), "repeated": False}

    def _decline_migration(self, agent: FakeAgent, params: Data) -> Data:
        return {}

    def _tune_migration(self, agent: FakeAgent, params: Data) -> Data:
        if params["id"] not in agent.migrations:
            raise NotFound(f"no migration {params['id']} starts on {agent.name}")
        agent.limits.append(params["bandwidth_bytes_s"])
        return {"accepted": True}

    def _switch_to_postcopy(self, agent: FakeAgent, params: Data) -> Data:
        if params["id"] not in agent.migrations:
            raise NotFound(f"no open migration {params['id']} starts on {agent.name}")
        return {"accepted": True}

    def _pause_guest(self, agent: FakeAgent, params: Data) -> Data:
        return self._switch_to_postcopy(agent, params)

    def _abort_migration(self, agent: FakeAgent, params: Data) -> Data:
        if params["id"] not in agent.migrations:
            raise NotFound(f"no migration {params['id']} starts on {agent.name}")
        if any(e.row == "M5" for e in agent.journal if e.migration_id == params["id"]):
            raise Conflict("the VM is already on DHOST")
        return {"accepted": True}

    def _describe_host(self, agent: FakeAgent, params: Data) -> Data:
        cpu = agent.cpu.model_dump(mode="json") if agent.cpu is not None else None
        return {"host": agent.facts().model_dump(mode="json"), "cpu": agent.said_cpu or cpu}

    def _ping(self, agent: FakeAgent, params: Data) -> Data:
        return {}

    def _fencing_plan(self, agent: FakeAgent, params: Data) -> Data:
        return {"migrations": agent.shared, "answers": False}

    def _declare_dead(self, agent: FakeAgent, params: Data) -> Data:
        agent.told_dead.append(params["host"])
        return {"migrations": agent.shared}

    def _declare_alive(self, agent: FakeAgent, params: Data) -> Data:
        agent.told_dead.remove(params["host"])
        return {"migrations": []}

    def _examine(self, agent: FakeAgent, params: Data) -> Data:
        look = {"host": agent.name, "now": self.now(), "facts": agent.facts().model_dump(mode="json")}
        peers = [{"peer": one["name"], "address": one["address"]} | agent.ways for one in params["peers"]]
        return {"look": look | agent.looks, "peers": peers}

    def _audit(self, agent: FakeAgent, params: Data) -> Data:
        found = list(agent.leftovers)
        if params["repair"]:
            agent.leftovers.clear()
            found = [f | {"done": "done"} for f in found]
        return {"leftovers": found}

    def _journal_since(self, agent: FakeAgent, params: Data) -> Data:
        entries = [e for e in agent.journal if e.seq > params["cursor"]][: params["limit"]]
        ids = {e.migration_id for e in entries}
        return {
            "entries": [e.model_dump(mode="json") for e in entries],
            "migrations": [m.model_dump(mode="json") for i, m in agent.migrations.items() if i in ids],
            "last": entries[-1].seq if entries else params["cursor"],
        }


class FakeSubscription:
    async def close(self) -> None:
        return None
