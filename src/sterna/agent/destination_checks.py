"""What the destination has against a VM (`check_destination`): in the plan, and when a migration is accepted."""

from __future__ import annotations

from sterna.agent.vm_checks import in_use, reached
from sterna.domain import plugs
from sterna.domain.calls import CheckDestination
from sterna.domain.errors import SternaError
from sterna.domain.journal import Role, leaps
from sterna.domain.model import Disk, Nic, Refusal, Vm
from sterna.domain.next_start import ONLY_PERSISTENT
from sterna.domain.policies import May
from sterna.kit.tasks import all_of
from sterna.migration.context import HostPorts
from sterna.migration.destination import reserved, targets
from sterna.migration.image import against, image_of
from sterna.ports.records import Journal


class DestinationChecks:
    """The destination agent's side of a check."""

    def __init__(self, host: HostPorts, journal: Journal) -> None:
        self._host, self._journal = host, journal

    async def check(self, vm: Vm, asked: CheckDestination, source: str) -> list[Refusal]:
        """All this host has against taking `vm` from the host `source` now, in the ways the user permits. Its
        definition is checked by libvirt where no other check has found something missing."""
        found = await reserved.refusals(self._host.hypervisor, self._journal, vm)
        if asked.definition and not found:
            found += await self._host.hypervisor.check_definition(asked.definition)
        if leaps(vm.epoch, newest := self._journal.newest_epoch(vm.uuid)):
            message = (
                f"the VM's epoch {vm.epoch} is implausible: the newest that {self._host.name} has seen is {newest}"
            )
            fix = "find out which program wrote it into the VM's metadata or the source's journal"
            found.append(Refusal(code="epoch-not-believed", message=message, fix=fix))
        if May.POSTCOPY in asked.may:
            found += await self._host.hypervisor.check_postcopy()
        if asked.cpu:
            found += await self._host.hypervisor.compare_cpu(vm, asked.cpu)
        found += await self._check_memory(vm)
        found += await self._check_image(vm)
        for nic in vm.nics:
            found += await self._check_nic(plugs.of_vm(nic, vm.uuid))
        found += await self._check_next_start(vm)
        found += await targets.in_use(self._host, self._journal, reached(vm), vm.uuid)
        for some in await all_of(self._check_volume(disk, asked.network_host or source) for disk in reached(vm)):
            found += some
        found += await reserved.overwritten(self._host, self._journal, vm)
        local = tuple(d for d in vm.disks if d.local)
        if local:
            found += await self._host.storage.check_targets(local)
            found += await in_use(self._host, vm, f"no copy may be made there ({self._host.name})")
        holder = self._journal.holder(vm.uuid)
        if holder is not None:
            message = f"{self._host.name} is still cleaning up after migration {holder.id} of this VM"
            found.append(Refusal(code="destination-not-clean", message=message, fix="wait until it has finished"))
        return found

    async def _check_nic(self, nic: Nic) -> list[Refusal]:
        if plugs.unknowns(nic):
            return []  # a VM that is off, or an error that `check_vm` reports
        try:
            refusals = await self._host.vif.check(plugs.as_bound(nic) if self._host.network.service else nic)
        except SternaError as error:
            return [Refusal(code="nic-unchecked", message=f"NIC {nic.mac}: {error.message}", fix=error.fix)]
        return [r.model_copy(update={"message": f"{self._host.name}: {r.message}"}) for r in refusals]

    async def _check_next_start(self, vm: Vm) -> list[Refusal]:
        """NICs of the persistent definition only: where they hang must exist here, or the VM cannot be started."""
        found = []
        for nic in vm.next_start.nics:
            if plugs.is_supported(nic):
                found += await self._check_nic(plugs.as_bound(plugs.of_vm(nic, vm.uuid)))
        return [r.model_copy(update={"message": f"{r.message} {ONLY_PERSISTENT}"}) for r in found]

    async def _check_volume(self, disk: Disk, source: str) -> list[Refusal]:
        try:
            return await self._host.volumes_for(disk).check(disk, source)
        except SternaError as error:
            return [Refusal(code="disk-unreachable", message=f"{disk.target}: {error.message}", fix=error.fix)]

    async def _check_image(self, vm: Vm) -> list[Refusal]:
        try:
            return await against(self._host, await image_of(self._host, vm))
        except SternaError as error:
            return [Refusal(code="image-unknown", message=error.message, fix=error.fix)]

    async def _check_memory(self, vm: Vm) -> list[Refusal]:
        """Free now, less what migrations already under way to this host will still fill."""
        facts = await self._host.hypervisor.host()
        claimed = 0
        for migration, role in self._journal.open():
            if role is Role.DESTINATION and migration.vm_uuid != vm.uuid:
                claimed += migration.options.memory_bytes or 0
        free = facts.memory_free_bytes - claimed
        if free >= vm.ordinary_bytes:
            return []
        message = (
            f"{self._host.name} has {free // 2**20} MiB of memory free ({claimed // 2**20} MiB more are claimed by "
            f"other migrations), {vm.name} needs {vm.ordinary_bytes // 2**20} MiB"
        )
        return [
            Refusal(code="memory-short", message=message, fix="migrate or stop another VM there, or choose another")
        ]
