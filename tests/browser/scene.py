"""A fleet for a browser to look at: three racks, and something of everything that operators meet.

Its agents are those of the controller's unit tests: they answer what real agents answer, and write the journals
that real agents write. Time stands still, so that a picture of it is the same each time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sterna.adapters.sql.fleet import SqlFleet
from sterna.controller.controller import Controller
from sterna.controller.intents.operate import OperationRequest
from sterna.controller.intents.request import MigrateRequest
from sterna.domain.fleet.course import OperationKind
from sterna.domain.fleet.rules import Rule, RuleKind
from sterna.domain.fleet.stages import Stage
from sterna.domain.hosts import Abilities, HostFacts, VmSummary
from sterna.domain.model import Disk, DiskKind, GuestState, Nic, Refusal, Vm
from sterna.domain.status import Status
from sterna.ports.operations import OperationRecord
from tests.browser import stories
from tests.unit.controller.fakes import GIB, FakeAgent, FakeBus, HandClock, uuid
from tests.unit.controller.rebooting import HOOK, Rebooting

COMPLETED = "c0000000-1111-4111-8111-000000000001"
FAILED = "f0000000-1111-4111-8111-000000000002"
RUNNING = "a0000000-1111-4111-8111-000000000003"
QUEUED = "b0000000-1111-4111-8111-000000000004"
DRAIN = "d0000000-2222-4222-8222-000000000001"
ROLLING = "e0000000-2222-4222-8222-000000000002"
DONE = "d1000000-2222-4222-8222-000000000003"

RACKS = ("rack-a", "rack-b", "rack-c")
EACH = 6
KINDS = (("web-shop", 4, 2), ("db-orders", 32, 8), ("k8s-worker", 16, 8), ("cache", 8, 2), ("ci-runner", 8, 4))
"""Name, GiB and vCPUs of the VMs."""


class Agent(FakeAgent):
    """With the size of a host in a rack."""

    def facts(self) -> HostFacts:
        used = sum(vm.memory_bytes for vm in self.vms.values())
        abilities = Abilities(userfaultfd=True, tls=True, zstd=True, insecure=True, link_bytes_s=25 * 10**9 // 8)
        more = {
            "address": f"10.20.{self.number // EACH}.{self.number}",
            "memory_total_bytes": 256 * GIB,
            "memory_free_bytes": 250 * GIB - used,
            "cpus": 64,
            "cpu_model": "EPYC-Milan",
            "disk_free_bytes": 1400 * GIB,
            "abilities": abilities,
        }
        return super().facts().model_copy(update=more)

    def take(self, name: str, n: int, gib: int, vcpus: int, state: GuestState = GuestState.RUNNING) -> str:
        """One more VM."""
        vm = VmSummary(uuid=uuid(n), name=name, state=state, memory_bytes=gib * GIB, vcpus=vcpus)
        self.vms[vm.uuid] = vm
        root = f"/var/lib/libvirt/images/{name}"
        self.disks[vm.uuid] = (
            Disk(target="vda", kind=DiskKind.FILE, format="qcow2", path=f"{root}.qcow2", capacity_bytes=40 * GIB),
            Disk(target="vdb", kind=DiskKind.FILE, format="raw", path=f"{root}-data.raw", capacity_bytes=200 * GIB),
        )
        return vm.uuid


class Bus(FakeBus):
    """Its VMs have NICs, too."""

    on_abort: Callable[[str], None] = staticmethod(lambda id: None)

    def _abort_migration(self, agent: FakeAgent, params: dict[str, Any]) -> dict[str, Any]:
        answer = super()._abort_migration(agent, params)
        self.on_abort(params["id"])
        return answer

    def _details(self, agent: FakeAgent, summary: VmSummary) -> dict[str, Any]:
        vm = Vm.model_validate(super()._details(agent, summary))
        nics = (Nic(mac=f"52:54:00:{vm.uuid[-6:-4]}:{vm.uuid[-4:-2]}:{vm.uuid[-2:]}", plug="ovs", bridge="br-int"),)
        return vm.model_copy(update={"nics": nics}).model_dump(mode="json")


def agents() -> list[Agent]:
    """Each rack's hosts, with their VMs."""
    found, n = list[Agent](), 0
    for rack in RACKS:
        for place in range(1, EACH + 1):
            agent = Agent(f"{rack.replace('rack', 'kvm')}{place:02}", len(found) + 1)
            for name, gib, vcpus in KINDS[: 3 + (len(found) * 2) % 3]:
                n += 1
                agent.take(f"{name}-{agent.number:02}", n, gib, vcpus)
            found.append(agent)
    return found


@dataclass
class Scene(Rebooting):
    """The fleet and its controller."""

    def host(self, name: str) -> Agent:
        found = self.bus.agents[name]
        assert isinstance(found, Agent)
        return found

    def vm_of(self, host: str, kind: str) -> VmSummary:
        """One of its VMs."""
        return next(vm for vm in self.host(host).vms.values() if vm.name.startswith(kind))

    async def show(self) -> None:
        """Everything that agents have written is in the records."""
        await self.refresh()

    async def empty(self, id: str, *hosts: str, **more: object) -> OperationRecord:
        """An operation on these hosts begins."""
        await self.refresh()
        asked = {"id": id, "hosts": hosts, "requested_by": "token:mara"} | more
        return (await self.controller.operate.begin(OperationRequest.model_validate(asked)))[0]

    async def move(self, id: str, vm: VmSummary, to: str) -> None:
        """A single migration is accepted."""
        await self.controller.migrate(
            MigrateRequest(id=id, vm=vm.uuid, destination=to, requested_by="token:jonas", asked=stories.ASKED)
        )
        await self.refresh()


async def set_up(database: str) -> Scene:
    """The fleet, in the middle of its day. `database`: a new one."""
    bus, clock = Bus(*agents()), HandClock()
    scene = Scene(bus, clock, Controller(SqlFleet.open(database), bus, clock))
    for rack in RACKS:
        hosts = tuple(name for name in bus.agents if name.startswith(rack.replace("rack", "kvm")))
        await scene.controller.fleet.put_rule(
            Rule(name=rack, kind=RuleKind.FAILURE_DOMAIN, hosts=hosts), replace=False
        )
    await scene.refresh()
    await _past(scene)
    await _operations(scene)
    await _present(scene)
    return scene


async def _past(scene: Scene) -> None:
    """Migrations and an operation that have ended."""
    web = scene.vm_of("kvm-b01", "web-shop")
    await scene.move(COMPLETED, web, "kvm-b02")
    stories.complete(scene, COMPLETED)
    await scene.move(FAILED, scene.vm_of("kvm-b03", "db-orders"), "kvm-b04")
    stories.begin_copy(scene, FAILED)
    await scene.refresh()
    await stories.copy_on(scene, FAILED, stories.SAMPLES[:14])
    stories.fail(scene, FAILED)
    await scene.empty(DONE, "kvm-b05", reason="BIOS update 2.14")
    await scene.run(id=DONE)
    scene.host("kvm-c06").take("batch-nightly", 901, 8, 4, GuestState.SHUTOFF)
    await scene.refresh()


async def _operations(scene: Scene) -> None:
    """A rolling one between two hosts, and a drain in which something waits and something stays."""
    await scene.empty(
        ROLLING,
        "kvm-c01",
        "kvm-c02",
        "kvm-c03",
        kind=OperationKind.ROLLING,
        reason="kernel 6.12.48",
        between={"webhook": HOOK},
    )
    first = await _first_back(scene)
    scene.hooks.ignores |= {"kvm-c01", "kvm-c02", "kvm-c03"} - {first}
    full = scene.host("kvm-a01")
    for number in range(1, 8):
        full.take(f"k8s-worker-{number + 50}", 700 + number, 16, 8)
    full.take("legacy-erp", 720, 8, 4, GuestState.PAUSED)
    await scene.empty(
        DRAIN, "kvm-a01", reason="replace DIMM A3, ticket OPS-4711", finish_within_s=3600, even_if_late=True
    )
    await scene.tick()
    ours = [one for one in scene.open() if one.source == "kvm-a01"]
    scene.complete(ours[0])
    scene.fail(ours[1], "kvm-b01 has no bridge br-ex")
    for _ in range(10):
        await scene.tick()
    ours = [one for one in scene.open() if one.source == "kvm-a01"]
    for one in ours[:2]:
        scene.set_status(one, Status.MIGRATING)
    await scene.tick()


async def _first_back(scene: Scene) -> str:
    """The rolling operation's first host has been rebooted; its name."""
    for _ in range(60):
        await scene.tick()
        steps = {step.host: step.stage for step in await scene.controller.fleet.host_steps(ROLLING)}
        if done := [host for host, stage in steps.items() if stage is Stage.DONE]:
            return done[0]
        scene.complete_all()
    raise AssertionError(steps)


async def _present(scene: Scene) -> None:
    """What goes on, and what is wrong."""
    await scene.controller.registry.set_maintenance("kvm-b06", True, "kept for spare parts")
    silent, broken = scene.host("kvm-c05"), scene.host("kvm-c04")
    silent.listening = False
    scene.clock.ms += 6_000
    broken.lost = "libvirtd does not answer: connection refused at /run/libvirt/libvirt-sock"
    await scene.refresh()
    scene.host("kvm-a05").against = [
        Refusal(
            code="memory-short",
            message="kvm-a05 has 3.0 GiB of memory free, and 4.0 GiB are needed",
            fix="move another VM away from kvm-a05 first, or choose another host",
        )
    ]
    await scene.move(RUNNING, scene.vm_of("kvm-a02", "db-orders"), "kvm-a03")
    stories.begin_copy(scene, RUNNING)
    await scene.refresh()
    await stories.copy_on(scene, RUNNING, stories.SAMPLES)
    await scene.move(QUEUED, scene.vm_of("kvm-a04", "cache"), "kvm-a06")
    scene.host("kvm-b03").leftovers = stories.LEFTOVERS
    await scene.controller.users.asked(
        "r1",
        stories.MARA,
        "10.20.9.14",
        (stories.Action.OPERATE, "kvm-a01", {"hosts": ["kvm-a01"], "kind": "drain"}),
    )
    await scene.controller.users.answered("r1", 202)
