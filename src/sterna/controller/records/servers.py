"""VMs as users of a cloud see them: whose each is, its ports, and the migration that holds it.

Read from the records, which agents' lists and journals keep fresh: nobody is asked for each VM. What Neutron and
Cinder say is remembered for a moment. A VM whose project is not known has none: it is an administrator's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import structlog

from sterna.controller.records.shared_reading import SharedReading
from sterna.controller.records.under_way import under_way
from sterna.domain.errors import NotFound, SternaError
from sterna.domain.model import Value
from sterna.ports.clock import Clock
from sterna.ports.cloud import PortReads, ServerPort, VolumeReads
from sterna.ports.fleet import Fleet, MigrationRecord, VmRecord

log = structlog.get_logger(__name__)

KNOWN_MS = 30_000.0
"""So long a project and the ports of a VM are not asked about again."""
SILENT_MS = 10_000.0
"""So long a service that did not answer is not asked again: each question may take as long."""
LOOK_S = 15.0
"""For one look at the cloud; and so long a request waits for it, and for the one before."""
ASKED_AT_ONCE = 400
"""Servers that one look asks the cloud about: ten questions to Neutron. Of thousands the rest is asked about when
the next requests come."""


class Server(Value):
    """One VM."""

    vm: VmRecord
    project_id: str = ""
    """'' where it is not known."""
    ports: tuple[ServerPort, ...] = ()
    """As last known; none without Neutron."""
    ports_known: bool = False
    """Neutron has said which ports it has, or that it has none."""
    migration: MigrationRecord | None = None
    """The one that holds it, rehearsals included. None also where its record has just gone."""

    @property
    def moving(self) -> bool:
        """A migration holds it. The VM's own record says so: it changes together with the VM's host."""
        return self.vm.migration_id is not None


class _Known(Value):
    until_ms: float
    project_id: str
    ports: tuple[ServerPort, ...]


class Servers:
    """One controller's view of them."""

    def __init__(
        self,
        fleet: Fleet,
        clock: Clock,
        ports: PortReads | None = None,
        volumes: VolumeReads | None = None,
        default_project: str = "",
    ) -> None:
        self._fleet, self._clock = fleet, clock
        self._ports, self._volumes, self._default = ports, volumes, default_project
        self._every_vm = SharedReading(self._read_vms)
        self._known: dict[str, _Known] = {}
        self._silent_until_ms = 0.0
        self._wanted: dict[str, VmRecord] = {}
        """By UUID: what the next look is to ask about. Those who wait put it there again when it was too much."""
        self._looking: asyncio.Task[None] | None = None

    async def vms(self) -> list[VmRecord]:
        """All of them, as last seen, without what the cloud says. Not to be changed."""
        return await self._every_vm.latest()

    async def _read_vms(self) -> list[VmRecord]:
        return await self._fleet.vms()

    async def all(self) -> list[Server]:
        """Every VM that is known, by UUID."""
        vms = await self.vms()
        moving = await self._moving() if any(vm.migration_id for vm in vms) else {}
        await self._learn(vms)
        listed = {vm.uuid for vm in vms}
        self._known = {uuid: known for uuid, known in self._known.items() if uuid in listed}
        return [self._server(vm, moving) for vm in sorted(vms, key=lambda vm: vm.uuid)]

    async def one(self, uuid: str) -> Server:
        """Raises NotFound, also for a name."""
        found = [vm for vm in await self._fleet.vms_called(uuid) if vm.uuid == uuid.lower()]
        if not found:
            raise NotFound(f"there is no server {uuid}", fix="`openstack server list --all-projects` lists them")
        (vm,) = found
        moving = {}
        if vm.migration_id is not None:
            with contextlib.suppress(NotFound):  # it was withdrawn since
                moving = {vm.migration_id: await self._fleet.migration(vm.migration_id)}
        await self._learn([vm])
        return self._server(vm, moving)

    def _server(self, vm: VmRecord, moving: dict[str, MigrationRecord]) -> Server:
        known = self._known.get(vm.uuid)
        of_nova = vm.nova.project_id if vm.nova is not None else ""
        return Server(
            vm=vm,
            project_id=of_nova or (known.project_id if known else "") or self._default,
            ports=known.ports if known else (),
            ports_known=known is not None and self._ports is not None,
            migration=moving.get(vm.migration_id or ""),
        )

    async def _moving(self) -> dict[str, MigrationRecord]:
        return {record.id: record for record in await under_way(self._fleet)}

    # ------------------------------------------------------------ what the cloud says

    async def _learn(self, vms: Sequence[VmRecord]) -> None:
        """Ask about those that were not asked about lately. What nobody answers in time stays as it was known."""
        mine = self._unknown(vms)[:ASKED_AT_ONCE]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                while not self._silent and (left := self._unknown(mine)):
                    self._wanted |= {vm.uuid: vm for vm in left}
                    await asyncio.shield(self._under_way())

    @property
    def _silent(self) -> bool:
        return self._clock.monotonic_ms() < self._silent_until_ms

    def _under_way(self) -> asyncio.Task[None]:
        """The present look, or a new one. Nobody owns it: who leaves takes no answer from others."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_together(), name="servers-look")
        return self._looking

    async def _look_together(self) -> None:
        """At all that those who wait want to know, as far as one look goes."""
        wanted, self._wanted = self._unknown(list(self._wanted.values())), {}
        try:
            async with asyncio.timeout(LOOK_S):
                await self._look(wanted[:ASKED_AT_ONCE], self._clock.monotonic_ms() + KNOWN_MS)
        except (SternaError, TimeoutError) as error:
            self._silent_until_ms = self._clock.monotonic_ms() + SILENT_MS
            why = error.message if isinstance(error, SternaError) else f"no answer within {LOOK_S:g} s"
            log.warning("projects and addresses of servers are shown as last known", why=why)

    async def _look(self, vms: Sequence[VmRecord], until_ms: float) -> None:
        """Raises Unreachable."""
        ports = await self._ports_of([vm.uuid for vm in vms])
        for vm in vms:
            own = tuple(port for port in ports if port.server == vm.uuid)
            project = await self._project(vm, own)
            self._known[vm.uuid] = _Known(until_ms=until_ms, project_id=project, ports=own)

    def _unknown(self, vms: Sequence[VmRecord]) -> list[VmRecord]:
        """Those never asked about first."""
        now = self._clock.monotonic_ms()
        until = {vm.uuid: self._known[vm.uuid].until_ms if vm.uuid in self._known else -1.0 for vm in vms}
        return sorted((vm for vm in vms if until[vm.uuid] <= now), key=lambda vm: until[vm.uuid])

    async def _ports_of(self, uuids: Sequence[str]) -> list[ServerPort]:
        return [] if self._ports is None else await self._ports.ports(uuids)

    async def _project(self, vm: VmRecord, ports: Sequence[ServerPort]) -> str:
        """As the ports say, else a volume; '' where all of them say nothing, or contradict each other."""
        if vm.nova is not None and vm.nova.project_id:
            return vm.nova.project_id
        owners = {port.project_id for port in ports if port.project_id}
        if not owners and self._volumes is not None:
            volumes = [await self._volumes.volume(id) for id in vm.volumes]
            owners = {volume.project_id for volume in volumes if volume is not None and volume.project_id}
        return owners.pop() if len(owners) == 1 else ""
