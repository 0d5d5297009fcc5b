"""The fleet at this moment, from the records, in the planner's words.

A migration counts as long as it holds its VM. Migrations are read before VMs: one that ends between the two does
not count any more. What begins between the two is found when a decision is written (`Fleet.decide`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from sterna.controller.calls import AgentCalls
from sterna.controller.operations.calculating import calculated
from sterna.controller.records.forecasts import ForecastHistory
from sterna.controller.records.registry import Host, Registry
from sterna.controller.records.shared_reading import SharedReading
from sterna.controller.records.snapshot import Snapshot
from sterna.controller.records.under_way import under_way
from sterna.domain.errors import SternaError
from sterna.domain.fleet import snapshot as planner
from sterna.domain.fleet.admission import Settling
from sterna.domain.fleet.attempts import Attempt
from sterna.domain.fleet.rules import Resolved, Rule, VmNames, resolve
from sterna.domain.fleet.stages import Heard
from sterna.domain.forecast import Load
from sterna.domain.journal import Migration
from sterna.domain.model import GuestState, Value
from sterna.domain.status import Status
from sterna.kit.errors import copy_of
from sterna.ports.bus import BusState
from sterna.ports.fleet import Fleet, MigrationRecord, VmRecord

BEFORE_PIVOT = frozenset({Status.QUEUED, Status.PREPARING, Status.MIGRATING})
"""Of these the user may think that an abort comes in time; the source knows."""
PREPARING = frozenset({Status.QUEUED, Status.PREPARING})
_PINNED = {
    GuestState.PAUSED: "it is paused",
    GuestState.SHUTOFF: "it is off, and only running VMs are migrated",
    GuestState.UNKNOWN: "its state is unknown",
}


class Capacity(Value):
    """What hosts may be filled with."""

    vcpus_per_cpu: float = 16.0
    kept_memory_bytes: int = 512 * 2**20
    """Of each host, for itself."""
    spare_hosts: int = 0
    """So many of the largest hosts may fail, and the rest has room for their VMs."""
    preparing: int = 4
    """Migrations that a host prepares at once in each direction."""


class Observed(Value):
    """The fleet, and what the planner need not know."""

    snapshot: planner.Snapshot
    migrations: frozenset[str]
    """Ids of all that are under way, or are decided on."""
    preparing: frozenset[str] = frozenset()
    """UUIDs of VMs whose migrations do not copy yet."""
    holders: dict[str, str] = {}
    """VM -> id of the migration that holds it, by the records."""
    settling: tuple[Settling, ...] = ()
    rules: tuple[Rule, ...] = ()
    """All placement rules."""


class Observer:
    """Reads only."""

    def __init__(
        self,
        fleet: Fleet,
        registry: Registry,
        known: Snapshot,
        calls: AgentCalls,
        history: ForecastHistory,
    ) -> None:
        self._fleet, self._registry, self._known, self._calls = fleet, registry, known, calls
        self._history, self.capacity = history, Capacity()
        self._shared = SharedReading(self._read)

    def connected(self) -> bool:
        """Has this controller a connection to the bus?"""
        return self._calls.bus_state().connected

    async def heard(self, hosts: Collection[str]) -> dict[str, Heard]:
        """What is known of these hosts' agents now. Raises Unreachable."""
        if not hosts:
            return {}
        bus, known = self._calls.bus_state(), {host.name: host for host in await self._registry.hosts()}
        nothing = Heard(up=False, why="no controller knows it any more", gone="is not known any more")
        return {name: _heard(known[name], bus) if name in known else nothing for name in hosts}

    def silent(self, hosts: Iterable[str]) -> list[str]:
        """Those of them whose agents cannot be asked."""
        return sorted({host for host in hosts if not self._registry.is_up(host)})

    async def ask(self, hosts: Collection[str]) -> dict[str, str]:
        """Have these hosts list their VMs into the records now. The hosts of which the records cannot be relied on,
        and why: one has not answered, or is down and has never listed them. Of one that is gone nothing more will
        be heard. Raises Unreachable, NotFound."""
        up = [host for host in hosts if self._registry.is_up(host)]
        unheard = {host: error.message for host, error in (await self._known.ask_now(up)).items()}
        listed = await self._fleet.marks() if len(up) < len(hosts) else {}
        never = set(hosts) - set(up) - set(listed)
        for host in await self._registry.named(never) if never else ():
            if not host.gone:
                unheard[host.name] = "it is down, and has never listed its VMs"
        return dict(sorted(unheard.items()))

    async def observe(self) -> Observed:
        """The fleet as it is known now, or a little later: who asks at the same time shares one reading of all VMs.
        Raises Unreachable."""
        try:
            return await self._shared.latest()
        except SternaError as error:
            raise copy_of(error) from error.__cause__

    async def _read(self) -> Observed:
        running = await under_way(self._fleet)
        read = _Read(
            running=running,
            active=await self._fleet.active_attempts(),
            hosts=await self._registry.hosts(),
            vms=await self._fleet.vms(),
            rules=await self.rules(),
            loads=self._history.loads(),
            bus=self._calls.bus_state(),
        )
        return await calculated(len(read.vms), lambda: _observed(read, self.capacity))

    async def rules(self) -> tuple[Rule, ...]:
        """All placement rules. Raises Unreachable."""
        return tuple(await self._fleet.rules())


class _Read(NamedTuple):
    """From the records, and what this controller knows besides."""

    running: list[MigrationRecord]
    active: list[Attempt]
    hosts: list[Host]
    vms: list[VmRecord]
    rules: tuple[Rule, ...]
    loads: dict[str, Load]
    bus: BusState


def _observed(read: _Read, capacity: Capacity) -> Observed:
    """Only calculates."""
    holders = {vm.uuid: vm.migration_id for vm in read.vms if vm.migration_id is not None}
    running = [one for one in read.running if holders.get(one.migration.vm_uuid) == one.id]
    at = {vm.uuid: vm.host for vm in read.vms}
    vms = [vm for vm in read.vms if vm.state is not GuestState.ABSENT]
    resolved = resolve(read.rules, VmNames((vm.uuid, vm.name) for vm in vms))
    known = {one.migration.vm_uuid for one in running}
    return Observed(
        snapshot=planner.Snapshot(
            hosts=tuple(_host(host, read.bus, capacity, resolved) for host in read.hosts),
            vms=tuple(_vm(vm, read.loads.get(vm.uuid), resolved) for vm in vms),
            rules=resolved.rules,
            moving=tuple(_moving(running, read.active, at)),
            limits=planner.Limits(spare_hosts=capacity.spare_hosts, preparing=capacity.preparing),
        ),
        migrations=frozenset([*(one.id for one in running), *(one.migration for one in read.active)]),
        preparing=frozenset(
            [
                *(one.migration.vm_uuid for one in running if one.status in PREPARING),
                *({one.vm for one in read.active} - known),
            ]
        ),
        holders=holders,
        settling=tuple(_settling(one.migration) for one in running if _has_arrived(one, at)),
        rules=read.rules,
    )


def _host(host: Host, bus: BusState, capacity: Capacity, by_rules: Resolved) -> planner.Host:
    facts, trouble = host.facts, host.not_usable(bus)
    closed = (host.maintenance_reason or "it is in maintenance") if host.maintenance else ""
    return planner.Host(
        name=host.name,
        memory_bytes=max(0, facts.memory_total_bytes - capacity.kept_memory_bytes),
        cpus=facts.cpus,
        overcommit=capacity.vcpus_per_cpu,
        out_bytes_s=facts.abilities.link_bytes_s,
        in_bytes_s=facts.abilities.link_bytes_s,
        domain=by_rules.domain_of.get(host.name, ""),
        closed=closed,
        unreachable="it was declared dead" if host.dead else (trouble.why if trouble is not None else ""),
        gone=host.gone,
    )


def _heard(host: Host, bus: BusState) -> Heard:
    trouble = host.not_usable(bus)
    return Heard(
        up=host.usable,
        why="" if trouble is None else trouble.why,
        seen_at=host.seen_at,
        boot=host.boot,
        version=host.agent_version,
        gone="was removed from the fleet" if host.removed else "was declared dead" if host.dead else "",
    )


def _vm(vm: VmRecord, load: Load | None, by_rules: Resolved) -> planner.Vm:
    """`load`: as last measured; None: never. One that is off takes no memory and no CPU."""
    off = vm.state is GuestState.SHUTOFF
    why = f"it runs on {', '.join(vm.also)} as well" if vm.also else _PINNED.get(vm.state, "")
    return planner.Vm(
        uuid=vm.uuid,
        name=vm.name,
        host=vm.host,
        also=vm.also,
        memory_bytes=0 if off else vm.memory_bytes or 0,
        vcpus=0 if off else vm.vcpus or 0,
        touched_bytes=load.allocated_bytes if load is not None else None,
        disk_bytes=load.disk_bytes if load is not None else 0,
        dirty_bytes_s=int(load.dirty_bytes / load.dirty_period_s) if load is not None else None,
        priority=by_rules.priority_of.get(vm.uuid, 0),
        pinned=why or ("" if vm.memory_bytes and vm.vcpus else "its size is unknown"),
    )


def _moving(
    running: Iterable[MigrationRecord], active: Iterable[Attempt], at: dict[str, str]
) -> Iterable[planner.Moving]:
    """Each VM once, and none that has arrived."""
    found = {one.vm: planner.Moving(vm=one.vm, target=one.target) for one in active if at.get(one.vm) != one.target}
    for record in running:
        migration = record.migration
        if _has_arrived(record, at):
            found.pop(migration.vm_uuid, None)
            continue
        found[migration.vm_uuid] = planner.Moving(
            vm=migration.vm_uuid,
            target=migration.destination,
            left_bytes=record.progress.bytes_remaining,
            may_abort=record.status in BEFORE_PIVOT,
        )
    return found.values()


def _has_arrived(record: MigrationRecord, at: dict[str, str]) -> bool:
    return at.get(record.migration.vm_uuid) == record.migration.destination


def _settling(migration: Migration) -> Settling:
    return Settling(
        vm=migration.vm_uuid, name=migration.vm_name, source=migration.source, target=migration.destination
    )
