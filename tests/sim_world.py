"""Two simulated hosts and their adapters, ready to use: `from tests.sim_world import ...` in a conftest or a test.

world = SimWorld(clock); a = SimSide(world, "a")   one host's adapters, named as the ports are
plan_for(world, uuid, "b")                         the CopyPlan Sterna's destination would have answered with
prepare(world, uuid, "b")                          P8-P10 on the destination, through the ports; the plan
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sterna.domain.copying import CopyPlan, DestinationDisk, DestinationNic
from sterna.domain.model import Disk, DiskKind, Vm
from sterna.domain.plugs import plug_type
from sterna.sim.libvirt.hypervisor import SimHypervisor
from sterna.sim.ports.attached import SimAttachedVolumes
from sterna.sim.ports.network import SimNetwork
from sterna.sim.ports.storage import SimStorage
from sterna.sim.ports.vif import SimVif
from sterna.sim.ports.volumes import SimIscsiVolumes, SimSharedFiles
from sterna.sim.simulation import SimWorld
from sterna.sim.world.clock import SimClock
from sterna.sim.world.things import Change

EPOCH = 7
MIGRATION = "11111111-2222-4333-8444-555555555555"


class SimSide:
    """One host of the world with an adapter for every port."""

    def __init__(self, world: SimWorld, name: str) -> None:
        self.name = name
        self.host = world.hosts[name]
        self.hypervisor = SimHypervisor(world, name)
        self.vif = SimVif(world, name)
        self.storage = SimStorage(world, name)
        self.shared_files = SimSharedFiles(world, name)
        self.iscsi = SimIscsiVolumes(world, name)
        self.attached = SimAttachedVolumes(world, name)
        self.network = SimNetwork(world)


class Auditor:
    """Watches every change of a world, sharing no code with it: never two running copies of a guest."""

    def __init__(self, world: SimWorld) -> None:
        self.world = world
        self.changes: list[Change] = []
        self.twins: list[str] = []
        world.watch(self.look)

    def look(self, change: Change) -> None:
        """Count the running copies, whatever it was that changed."""
        self.changes.append(change)
        seen: dict[str, str] = {}
        for host in self.world.hosts.values():
            for uuid, domain in host.domains.items():
                if domain.live is not None and domain.state == "running":
                    if uuid in seen:
                        self.twins.append(f"{uuid} on {seen[uuid]} and {host.name} at {change}")
                    seen[uuid] = host.name

    def when(self, what: str, detail: str) -> float:
        """Virtual ms of the first change like that."""
        return next(c.at_ms for c in self.changes if c.what == what and c.detail.startswith(detail))


@pytest.fixture
def clock() -> SimClock:
    return SimClock()


@pytest.fixture
async def world(clock: SimClock) -> AsyncIterator[SimWorld]:
    """Hosts `a` and `b`; it fails the test if the world saw a violation, unless the test takes them away."""
    world = SimWorld(clock)
    world.add_host("a")
    world.add_host("b")
    auditor = Auditor(world)
    yield world
    await world.close()
    assert world.violations == []
    assert auditor.twins == []


@pytest.fixture
def a(world: SimWorld) -> SimSide:
    return SimSide(world, "a")


@pytest.fixture
def b(world: SimWorld) -> SimSide:
    return SimSide(world, "b")


def tap_of(vm: Vm, index: int) -> str:
    return f"tap{vm.uuid[:8]}{index}"


def is_local(world: SimWorld, host: str, disk: Disk) -> bool:
    return disk.kind is DiskKind.FILE and not world.hosts[host].folder(disk.path or "").shared


def plan_for(world: SimWorld, vm: Vm, source: str, destination: str, *, epoch: int = EPOCH) -> CopyPlan:
    """As Sterna's two agents would agree on it; taps are named by `tap_of`."""
    there = world.hosts[destination]
    disks = tuple(
        DestinationDisk(
            target=d.target,
            kind=d.kind,
            path=d.path,
            iscsi=d.iscsi.model_copy(update={"initiator": there.initiator}) if d.iscsi else None,
            copied=is_local(world, source, d),
        )
        for d in vm.disks
    )
    nics = tuple(
        DestinationNic(
            mac=n.mac,
            plug=n.plug,
            device=tap_of(vm, i) if plug_type(n).made_ahead else "",
            bridge=n.bridge or "",
            port_id=n.port_id or "",
            mtu=n.mtu,
            vlan=n.vlan,
            parent=n.parent,
            mode=n.mode,
        )
        for i, n in enumerate(vm.nics)
    )
    return CopyPlan(
        migration_id=MIGRATION,
        epoch=epoch,
        destination_uri=there.uri,
        migrate_uri=f"tcp://{there.address}",
        disks=disks,
        nics=nics,
        persistent=vm.persistent,
    )


async def prepare(world: SimWorld, uuid: str, source: SimSide, destination: SimSide) -> CopyPlan:
    """Mark the guest and make on the destination what it needs, through the ports; the plan for `migrate`."""
    vm = await source.hypervisor.vm(uuid)
    local = tuple(d for d in vm.disks if is_local(world, source.name, d))
    created = await destination.storage.plan_targets(uuid, local)
    await destination.storage.create_targets(local, await destination.storage.reserve_targets(created, "m1"))
    for disk in vm.disks:
        if destination.iscsi.handles(disk):
            await destination.iscsi.connect(await destination.iscsi.attach(disk, source.name))
    for i, nic in enumerate(vm.nics):
        await destination.vif.make_way(await destination.vif.plug(nic, vm_uuid=uuid, device=tap_of(vm, i)))
    await source.hypervisor.mark(uuid, MIGRATION, EPOCH)
    return plan_for(world, vm, source.name, destination.name)
