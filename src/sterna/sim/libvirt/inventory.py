"""`ports.hypervisor.Inventory` of a simulated host: reads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeGuard

from sterna.domain.claims import Claim, VolumeClaim
from sterna.domain.copying import CompletedJob, CopyPlan, GuestLoad
from sterna.domain.cpus import HostCpu
from sterna.domain.definition_changes import DefinitionChanges
from sterna.domain.errors import NotFound, Permanent
from sterna.domain.hosts import HostFacts, VmSummary
from sterna.domain.jobs import job_refusal
from sterna.domain.model import Observation, Refusal, Vm
from sterna.kit.digests import digest_of
from sterna.ports.hypervisor import COPYING, GuestEvent
from sterna.sim.libvirt import admission, checks, qemu
from sterna.sim.libvirt.describe import claims_of, describe, volume_claims_of
from sterna.sim.libvirt.part import SimPart
from sterna.sim.libvirt.rendering import changes_for, incoming_definition
from sterna.sim.world.host import SimHost


class SimInventory(SimPart):
    """Reads of one host's libvirt."""

    async def host(self) -> HostFacts:
        """See ports.hypervisor.Inventory.host."""
        here = await self._called()
        return HostFacts(
            name=here.name,
            host_uuid=here.host_uuid,
            address=here.address,
            libvirt_version=here.libvirt_version,
            qemu_version=here.qemu_version,
            memory_total_bytes=here.memory_bytes,
            memory_free_bytes=here.memory_free_bytes,
            cpus=here.cpus,
            cpu_model=here.cpu,
            cpu_id=digest_of(_cpu_of(here).text),
            initiator=here.initiator,
            instances_dir=here.instances_dir,
            disk_free_bytes=here.folder(here.instances_dir).free_bytes,
            maintenance=here.maintenance,
            abilities=here.abilities.model_copy(update={"userfaultfd": here.userfaultfd}),
        )

    async def vms(self) -> list[VmSummary]:
        """Every domain, running or not."""
        here = await self._called()
        return [
            VmSummary(
                uuid=d.uuid,
                name=d.definition.name,
                state=d.state,
                memory_bytes=d.definition.memory_bytes,
                vcpus=d.definition.vcpus,
                volumes=tuple(dict.fromkeys(x.volume_id for x in d.definition.disks if _is_uuid(x.volume_id))),
            )
            for d in here.domains.values()
        ]

    @asynccontextmanager
    async def changes(self) -> AsyncIterator[AsyncIterator[None]]:
        """See ports.hypervisor.Changes.changes."""
        here = await self._called()
        async with self._world.events.subscribe(here.name, "") as events:
            yield _of_life(events)

    async def vm(self, name_or_uuid: str) -> Vm:
        """One VM. Raises NotFound."""
        here = await self._called()
        found = [d for d in here.domains.values() if name_or_uuid in (d.uuid, d.definition.name)]
        if not found:
            raise NotFound(f"{here.name}: Domain not found: no domain with matching name or UUID '{name_or_uuid}'")
        return describe(here, found[0])

    async def observe(self, uuid: str) -> Observation:
        """What this libvirt says of the guest now."""
        return self._look(uuid, (await self._called()).domains.get(uuid))

    async def claims(self, besides: str = "") -> tuple[Claim, ...]:
        """What its domains name."""
        here = await self._called()
        return tuple(claim for d in here.domains.values() if d.uuid != besides for claim in claims_of(d))

    async def volume_claims(self, besides: str = "") -> tuple[VolumeClaim, ...]:
        """The LUNs of its domains' disks."""
        here = await self._called()
        return tuple(claim for d in here.domains.values() if d.uuid != besides for claim in volume_claims_of(d))

    async def check_incoming(self, vm: Vm) -> list[Refusal]:
        """Everything this hypervisor has against running `vm`."""
        return list(checks.refusals(await self._called(), vm))

    async def check_outgoing(self, uuid: str) -> list[Refusal]:
        """See ports.hypervisor.Inventory.check_outgoing."""
        domain = self._require(await self._called(), uuid)
        jobs = [job_refusal(domain.definition.name, "migration-out")] if domain.job is not None else []
        return [*jobs, *domain.against]

    async def listens_for(self, vm: Vm) -> dict[str, str]:
        """Its guests listen nowhere."""
        return {}

    async def taken_for_local(self, paths: tuple[str, ...]) -> tuple[str, ...]:
        """See ports.hypervisor.Inventory.taken_for_local."""
        here = await self._called()
        return tuple(path for path in paths if not here.takes_for_shared(path))

    async def host_cpu(self, vm: Vm) -> str:
        """The host's `cpu`, for guests that see it."""
        here = await self._called()
        return here.cpu if "host-passthrough" in vm.cpu_xml else ""

    async def own_cpu(self) -> HostCpu | None:
        """Its word, and its features."""
        return _cpu_of(await self._called())

    async def compare_cpu(self, vm: Vm, cpu: str) -> list[Refusal]:
        """Another word is another CPU."""
        here = await self._called()
        if here.cpu == cpu:
            return []
        return [Refusal(code="cpu-not-the-same", message=f"{here.name} has a {here.cpu}", fix="--accept cpu")]

    async def measure_load(self, uuid: str, seconds: int) -> None:
        """Measured at once: the simulation knows."""
        domain = self._require(await self._called(), uuid)
        if not domain.running:
            raise Permanent("libvirt refused: Requested operation is not valid: domain is not running")
        guest = self._world.guests[uuid]
        dirty = min(guest.working_set_bytes, guest.dirty_bytes_per_s * seconds)
        domain.load = GuestLoad(dirty_bytes=dirty, period_s=seconds, allocated_bytes=domain.definition.memory_bytes)

    async def load(self, uuid: str) -> GuestLoad | None:
        """See ports.hypervisor.Inventory.load."""
        domain = self._require(await self._called(), uuid)
        if not domain.active:
            raise Permanent("libvirt refused: Requested operation is not valid: domain is not running")
        return domain.load

    async def check_postcopy(self) -> list[Refusal]:
        """Why no guest could arrive here by post-copy."""
        here = await self._called()
        if here.userfaultfd:
            return []
        message = f"{here.name}'s kernel does not let QEMU handle page faults, as post-copy needs it"
        return [Refusal(code="postcopy-impossible", message=message, fix="sysctl vm.unprivileged_userfaultfd=1")]

    async def definition_for(self, uuid: str, plan: CopyPlan) -> str:
        """The incoming definition, as text nobody but `check_definition` reads."""
        domain = self._require(await self._called(), uuid)
        if domain.live is None:
            raise Permanent("libvirt refused: Requested operation is not valid: domain is not running")
        return repr(incoming_definition(domain.live, plan))

    async def definition_changes(self, uuid: str, plan: CopyPlan) -> DefinitionChanges:
        """See ports.hypervisor.Inventory.definition_changes."""
        domain = self._require(await self._called(), uuid)
        if domain.live is None:
            raise Permanent("libvirt refused: Requested operation is not valid: domain is not running")
        return changes_for(domain.live, domain.inactive, plan)

    async def persistent_definition(self, uuid: str) -> str:
        """As text that only differs where the definition does."""
        inactive = self._require(await self._called(), uuid).inactive
        return repr(inactive) if inactive is not None else ""

    async def definition_without_devices(self, uuid: str) -> str:
        """What its libvirt cannot translate is of the guest's disks and NICs."""
        self._require(await self._called(), uuid)
        return ""

    async def check_definition(self, xml: str) -> list[Refusal]:
        """See ports.hypervisor.Inventory.check_definition."""
        here = await self._called()
        found = [word for word in sorted(here.untranslatable) if word in xml]
        message = f"{here.name}'s libvirt cannot start it: unsupported configuration: {', '.join(found)}"
        fix = "find out what its libvirt or QEMU lacks"
        return [Refusal(code="definition-refused", message=message, fix=fix)] if found else []

    async def check_peer(self, destination_uri: str) -> Refusal | None:
        """Can this libvirtd dial the other?"""
        try:
            admission.dial(self._world, await self._called(), destination_uri)
        except qemu.LibvirtSays as refusal:
            return Refusal(
                code="peer-unreachable",
                message=f"{self._host.name} cannot reach {destination_uri}: {refusal}",
                fix="check that libvirtd listens there and that the path between the hosts is open",
            )
        return None

    async def completed_job(self, uuid: str) -> CompletedJob | None:
        """Statistics of the guest's last finished migration as this host saw it."""
        domain = (await self._called()).domains.get(uuid)
        return domain.completed if domain is not None else None


def _cpu_of(here: SimHost) -> HostCpu:
    kind = "kvm" if "kvm" in here.virt_types else "qemu"
    features = tuple(sorted(here.cpu_features))
    return HostCpu(arch="x86_64", virt_type=kind, model=here.cpu, features=features, models=(here.cpu,))


def _is_uuid(serial: str | None) -> TypeGuard[str]:
    return serial is not None and len(serial) == 36


async def _of_life(events: AsyncIterator[GuestEvent]) -> AsyncIterator[None]:
    async for event in events:
        if event.kind not in COPYING:
            yield
