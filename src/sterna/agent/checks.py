"""May this VM go there? Every reason at once (invariant 4 of the protocol). Changes nothing.

Called by the controller through `check_migration` before it admits a migration, and again by the source agent
when it accepts one: between the two the world may have changed.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from functools import partial

import structlog

from sterna.agent.tokens import CheckTokens
from sterna.domain import plugs, untrusted
from sterna.domain.errors import Permanent, SternaError, StorageSilent, Temporary, Unknown, Unreachable
from sterna.domain.jobs import occupied
from sterna.domain.journal import Migration, Role, leaps
from sterna.domain.model import Data, Disk, DiskKind, GuestState, HostFacts, Nic, Refusal, Transport, Vm
from sterna.domain.objective import Objective
from sterna.domain.policies import Accept, May
from sterna.kit.tasks import all_of, both
from sterna.migration import secrets
from sterna.migration.context import HostPorts
from sterna.migration.destination import promises
from sterna.migration.image import against, image_of
from sterna.migration.media import LARGEST_MEDIUM
from sterna.migration.sharing import PeersFiles, decide_local, silent_on
from sterna.migration.source import stream
from sterna.ports.records import Journal
from sterna.rpc.client import RpcClient

_MAXIMUM = re.compile(r"""<cpu\s[^>]*mode=.maximum.""")

log = structlog.get_logger(__name__)


def check_vm(vm: Vm, holder: Migration | None, outgoing: Sequence[Refusal]) -> list[Refusal]:
    """What the VM itself says against moving now. `outgoing`: what its hypervisor says (`check_outgoing`)."""
    found = []
    if holder is not None:  # what libvirt does with it is this migration's, and so may its pause be
        message = f"{vm.name} is in migration {holder.id} to {holder.destination}"
        found.append(Refusal(code="migration-under-way", message=message, fix="wait for it, or abort it"))
    else:
        found += occupied(vm, outgoing)
    for what in vm.immovable:
        found.append(Refusal(code="device-immovable", message=f"{what} cannot move", fix="detach it first"))
    found += [r for d in vm.disks for r in (*d.against, *_check_disk(d))]
    found += [r for d in vm.cold for r in _check_cold(vm, d)]
    plugged = vm.state is GuestState.RUNNING  # else nothing shows where its NICs belong
    found += plugs.twins(vm.nics)
    return found + [r for n in vm.nics for r in plugs.refusals(n) or (plugs.unknowns(n) if plugged else [])]


def _check_disk(disk: Disk) -> list[Refusal]:
    if disk.kind is DiskKind.OTHER:
        message = f"disk {disk.target}: {disk.detail or 'its kind'} is not supported yet"
        return [Refusal(code="disk-unsupported", message=message, fix="detach it first")]
    if disk.iscsi is not None and (disk.shareable or disk.read_only):
        message = (
            f"disk {disk.target} may be in use by several VMs: their host is admitted to it once, "
            "and a VM that leaves takes that away from the others"
        )
        return [Refusal(code="volume-shared", message=message, fix="detach it for the move")]
    if disk.local and disk.shareable:
        message = f"disk {disk.target} ({disk.path}) is only on this host, and others may write to it (shareable)"
        fix = "put it on storage both hosts see, or take <shareable/> out if nobody else uses it"
        return [Refusal(code="disk-shareable", message=message, fix=fix)]
    if disk.local and disk.encrypted:
        message = f"disk {disk.target} ({disk.path}) is encrypted and only on this host: libvirt cannot copy it"
        return [Refusal(code="disk-not-copyable", message=message, fix="put it on shared storage")]
    if disk.carried and disk.format == "raw" and not disk.files[1:]:
        size = disk.length_bytes or disk.capacity_bytes or 0
        if size <= LARGEST_MEDIUM:
            return []
        message = (
            f"{disk.device} {disk.target} ({disk.path}) is only on this host, and with {size >> 20} MiB more than "
            f"the {LARGEST_MEDIUM >> 20} that are sent along"
        )
        fix = f"put the same file there as {disk.path}, or eject it"
        return [Refusal(code="medium-missing", message=message, fix=fix)]
    if disk.local and (disk.read_only or disk.device != "disk"):
        message = f"{disk.device} {disk.target} ({disk.path}) is only on this host and libvirt cannot copy it"
        fix = "eject it, or put it on shared storage"
        return [Refusal(code="disk-not-copyable", message=message, fix=fix)]
    return []


def _check_cold(vm: Vm, disk: Disk) -> list[Refusal]:
    """A disk that only the persistent definition names; harmless where the other host reaches it as well."""
    if disk.kind is DiskKind.RBD or (disk.kind is DiskKind.FILE and disk.local is False and not disk.against):
        return []
    where = disk.path or (disk.iscsi.target if disk.iscsi else disk.detail)
    message = (
        f"{disk.device} {disk.target} ({where}) is in the persistent definition of {vm.name} only: it would stay "
        "behind, and the VM could not be started again where it goes"
    )
    if disk.device in ("cdrom", "floppy"):
        fix = f"virsh change-media {vm.name} {disk.target} --eject --config"
    else:
        fix = f"give it to the running VM as well, or virsh detach-disk {vm.name} {disk.target} --config"
    return [Refusal(code="disk-only-persistent", message=message, fix=fix)]


def _not_known_as_shared(disk: Disk, host: str) -> Refusal:
    message = (
        f"disk {disk.target}: both hosts see {disk.path}, but libvirt on {host} takes its folder for that host's "
        "own, and refuses to leave it there"
    )
    fix = (
        "name the folder in `shared_filesystems` of /etc/libvirt/qemu.conf on both hosts, and restart libvirtd (or "
        "virtqemud) there"
    )
    return Refusal(code="folder-not-known-as-shared", message=message, fix=fix)


def _cannot_tell(error: SternaError, destination: str) -> Refusal:
    """The check itself could not be made: that is a reason too."""
    return Refusal(code="check-failed", message=f"{destination} cannot be checked: {error.message}", fix=error.fix)


def _silent(error: StorageSilent) -> Refusal:
    """Until it answers, nobody knows what else is in the way."""
    return Refusal(code="path-silent", message=error.message, fix=error.fix)


def _check_stream(vm: Vm, here: HostFacts, there: HostFacts, wanted: Objective) -> tuple[Transport, list[Refusal]]:
    """How the memory would travel, and what of what was asked for cannot be."""
    found = stream.solution(wanted, here, there, vm)
    return found.parameters.transport if found.parameters else Transport.TCP, list(found.refusals)


def _check_initiators(vm: Vm, here: HostFacts, there: HostFacts) -> list[Refusal]:
    """Admission is an initiator's, and so is its withdrawal at R3 and F3: with one name on two hosts, either of
    them would cut off the guest that runs on the other."""
    shared = [
        disk.target
        for disk in vm.disks
        if disk.iscsi is not None and there.initiator and there.initiator in (here.initiator, disk.iscsi.initiator)
    ]
    if not shared:
        return []
    message = (
        f"{there.name}'s initiator name, {there.initiator}, is in use on {here.name} as well: a volume "
        f"({', '.join(shared)}) that is taken from the one is taken from the other"
    )
    fix = "give each host its own: `initiator` in `[volumes]` of its agent's settings"
    return [Refusal(code="initiator-shared", message=message, fix=fix)]


def _check_maximum(vm: Vm, here: HostFacts, there: HostFacts, wanted: Objective) -> list[Refusal]:
    """`maximum` in software emulation is whatever that QEMU can emulate, and nobody compares it."""
    all_of_it = vm.virt_type == "qemu" and _MAXIMUM.search(vm.cpu_xml)
    if not all_of_it or here.qemu_version == there.qemu_version or Accept.CPU in wanted.accept:
        return []
    message = (
        f"{vm.name} has the largest CPU that its QEMU can emulate (mode='maximum'), and {there.name} has another "
        f"QEMU than {here.name}: features may be missing there"
    )
    fix = "install the same QEMU; or give the VM a named CPU model while it is off; or take the risk: --accept cpu"
    return [Refusal(code="cpu-not-the-same", message=message, fix=fix)]


def _reached(vm: Vm) -> list[Disk]:
    """The disks that a destination must reach where they are, now or at the VM's next start."""
    cold = [d for d in vm.cold if d.kind is DiskKind.FILE and not d.against]
    return [
        d
        for d in (*vm.disks, *cold)
        if not d.local
        and d.kind not in (DiskKind.EMPTY, DiskKind.OTHER)
        and not (d.medium and d.against)  # that it is another one there
    ]


_OWN_FILE = "give that VM a file of its own, or detach it there; or put the file on shared storage"


async def _in_use(host: HostPorts, vm: Vm, why: str) -> list[Refusal]:
    """Local disks whose file, or whose place, another domain of this host needs."""
    local = {d.path: d for d in vm.disks if d.local and d.path}
    if not local:
        return []
    users = await host.storage.used_by(tuple(local), await host.hypervisor.claims(besides=vm.uuid))
    return [
        Refusal(
            code="disk-in-use",
            message=f"disk {local[path].target}: {path} is used by {', '.join(owners)} as well: {why}",
            fix=_OWN_FILE,
        )
        for path, owners in users.items()
    ]


def _not_believed(host: str, vm: Vm, epoch: object) -> Refusal:
    message = f"{host} says that it has seen epoch {str(epoch)[:30]} of {vm.name}, which cannot be true"
    fix = "choose another destination, and see what wrote that into the journal there"
    return Refusal(code="epoch-not-believed", message=message, fix=fix)


class SourceChecks:
    """The source agent's side of a check; asks the destination's side itself."""

    def __init__(self, host: HostPorts, journal: Journal, client: RpcClient) -> None:
        self._host, self._journal, self._client = host, journal, client
        self.tokens = CheckTokens(host)

    async def check(
        self, name_or_uuid: str, destination: str, wanted: Objective
    ) -> tuple[Vm, HostFacts | None, list[Refusal]]:
        """The VM (disks with `local` decided where the destination answered), the destination's facts, and why not.

        Raises NotFound where this host has no such VM.
        """
        vm, here = await both(self._host.hypervisor.vm(name_or_uuid), self._host.hypervisor.host())
        vm = self._believed(await self._as_plugged(vm))
        if destination == self._host.name:
            message = f"{vm.name} is on {destination} already"
            same = Refusal(code="same-host", message=message, fix="name another host")
            return vm, None, [same, *await self._own(vm)]
        try:
            facts, vm = await both(self._facts(destination), self._with_local(vm, destination))
            transport, against = _check_stream(vm, here, facts, wanted)
            needs = await secrets.needs_of(self._host, vm)
            params: Data = {"vm": vm.model_dump(mode="json"), "may": sorted(wanted.may)}
            params["definition"] = await self._host.hypervisor.definition_without_devices(vm.uuid)
            params["needs"] = [need.model_dump(mode="json") for need in needs]
            params["cpu"] = "" if Accept.CPU in wanted.accept else await self._host.hypervisor.host_cpu(vm)
            answer, unreachable = await both(
                self._client.call(destination, "check_destination", params),
                self._host.hypervisor.check_peer(stream.control_uri(self._host, facts.address, transport)),
            )
        except (Unreachable, Unknown) as error:
            message = f"{destination}'s agent does not answer: {error.message}"
            down = Refusal(code="destination-down", message=message, fix=f"start the sterna agent on {destination}")
            return vm, None, [*await self._own(vm), down]
        except StorageSilent as error:
            return vm, None, [*await self._own(vm), _silent(error.on(destination))]
        except (Temporary, Permanent) as error:  # somebody answered: that it cannot be told now
            return vm, None, [*await self._own(vm), _cannot_tell(error, destination)]
        # A VM that came here by other means says nothing of its past: its next epoch must be new there, too.
        theirs = answer.get("epoch", 0)
        refusals = await self._own(vm)
        if type(theirs) is not int or leaps(theirs, max(vm.epoch, self._journal.newest_epoch(vm.uuid))):
            refusals.append(_not_believed(destination, vm, theirs))
        else:
            vm = vm.model_copy(update={"epoch": max(vm.epoch, theirs)})
        refusals += [Refusal.model_validate(r) for r in answer["refusals"]]
        refusals += against + _check_initiators(vm, here, facts) + _check_maximum(vm, here, facts, wanted)
        refusals += secrets.cannot_bring(needs, answer["lacking"], here.name, facts.name)
        refusals += [unreachable] if unreachable is not None else []
        refusals += await self._check_probe(facts, transport)
        refusals += await self._check_sources(vm, destination)
        return vm, facts, refusals + await self._check_network(vm, facts)

    async def _with_local(self, vm: Vm, destination: str) -> Vm:
        """With `local` of its disks decided, and what speaks against them. Raises StorageSilent, with the host."""
        with silent_on(self._host.name):
            disks = await self._left_where_they_are(await self._decide_local(vm.disks, destination))
            cold = await self._decide_local(await self._there_at_all(vm.cold), destination)
        return vm.model_copy(update={"disks": disks, "cold": cold})

    async def _left_where_they_are(self, disks: tuple[Disk, ...]) -> tuple[Disk, ...]:
        """With a reason against each file that both hosts see and that the hypervisor takes for this host's own."""
        stay = [d for d in disks if d.kind is DiskKind.FILE and d.local is False and d.path and not d.read_only]
        paths = tuple(disk.path for disk in stay if disk.path)
        own = await self._host.hypervisor.taken_for_local(paths) if paths else ()
        alone = {disk.target: _not_known_as_shared(disk, self._host.name) for disk in stay if disk.path in own}
        return tuple(
            disk.model_copy(update={"against": (*disk.against, alone[disk.target])})
            if disk.target in alone
            else disk
            for disk in disks
        )

    async def _own(self, vm: Vm) -> list[Refusal]:
        """What the VM and its own hypervisor say against moving it now."""
        against: list[Refusal] = []
        if self._journal.holder(vm.uuid) is None:  # else the job is that migration's
            try:
                against = await self._host.hypervisor.check_outgoing(vm.uuid)
            except SternaError as error:
                message = f"whether something is under way with {vm.name} is not known: {error.message}"
                against = [Refusal(code="check-failed", message=message, fix=error.fix)]
        return check_vm(vm, self._journal.holder(vm.uuid), against)

    def _believed(self, vm: Vm) -> Vm:
        """Without the epoch of its metadata where that cannot be true: the next one is this journal's."""
        newest = self._journal.newest_epoch(vm.uuid)
        if not leaps(vm.epoch, newest):
            return vm
        log.warning("the epoch in a VM's metadata is not believed", vm=vm.name, epoch=vm.epoch, newest=newest)
        return vm.model_copy(update={"epoch": newest})

    async def _in_use_there(self, disks: tuple[Disk, ...], destination: str) -> list[Refusal]:
        """Local disks that a domain of the destination uses all the same, under another path."""
        found = []
        for disk in disks:
            path = disk.path or ""
            with self.tokens.fresh() as token:
                await self._host.storage.leave_token(path, token)
                try:
                    asked = {"path": path, "token": token, "name": posixpath.basename(path)}
                    with silent_on(destination):
                        answer = await self._client.call(destination, "sees_file", asked)
                finally:
                    await self._host.storage.drop_token(path, token)
            if answer["users"]:
                message = f"disk {disk.target}: {path} is used on {destination} by {', '.join(answer['users'])}"
                found.append(Refusal(code="disk-in-use", message=message, fix=_OWN_FILE))
        return found

    async def _check_probe(self, facts: HostFacts, transport: Transport) -> list[Refusal]:
        """Can a stream reach the destination? Its ports may all be taken just now: the migration waits for one."""
        if self._host.probe is None or transport is Transport.SSH:
            return []
        try:
            port = untrusted.port((await self._client.call(facts.name, "expect_stream", {}))["port"])
        except SternaError as error:
            return [] if isinstance(error, Temporary | Unknown) else [_cannot_tell(error, facts.name)]
        refused = await self._host.probe.knock(untrusted.address(facts.address), port) if port else None
        return [refused] if refused is not None else []

    async def _check_sources(self, vm: Vm, destination: str) -> list[Refusal]:
        """A disk that F10 may not remove here would leave the migration open for ever, the guest long gone."""
        try:
            with silent_on(self._host.name):
                return await self._against_removal(vm, destination)
        except StorageSilent as error:
            return [_silent(error)]

    async def _against_removal(self, vm: Vm, destination: str) -> list[Refusal]:
        local = tuple(d for d in vm.disks if d.local)
        found: list[Refusal] = []
        removable = []
        for disk in local:
            against = await self._host.storage.check_sources((disk,))
            found += against
            removable += [] if against else [disk]
        found += await _in_use(self._host, vm, "it would be removed here once the VM has moved")
        try:
            found += await self._in_use_there(tuple(removable), destination)
        except StorageSilent:
            raise
        except SternaError as error:
            found.append(_cannot_tell(error, destination))
        return [r.model_copy(update={"message": f"{self._host.name}: {r.message}"}) for r in found]

    async def _check_network(self, vm: Vm, facts: HostFacts) -> list[Refusal]:
        source, destination = self._host.network_host or self._host.name, facts.network_host or facts.name
        if self._host.network.service and source == destination:  # else its only binding is taken for the other one
            message = f"the network service knows {self._host.name} and {facts.name} by one name, {source}"
            fix = "give each host the name its network agent has: `host` in `[openstack]` of its agent's settings"
            return [Refusal(code="network-host-shared", message=message, fix=fix)]
        try:
            return await self._host.network.check(vm, source, destination)
        except SternaError as error:
            message = f"the network service cannot be asked: {error.message}"
            return [Refusal(code="network-service", message=message, fix=error.fix)]

    async def _as_plugged(self, vm: Vm) -> Vm:
        """Its NICs as they are plugged here, which the domain's XML need not say; as P2 does it."""
        nics = []
        for nic in vm.nics:
            try:
                nics.append(await self._host.vif.describe(nic) or nic)
            except SternaError:
                nics.append(nic)  # P2 will say so; what is known of it can be checked
        return vm.model_copy(update={"nics": tuple(nics)})

    async def _there_at_all(self, disks: tuple[Disk, ...]) -> tuple[Disk, ...]:
        """Without the files that are missing here: a VM that cannot be started here loses nothing by its move."""
        missing = [d for d in disks if d.path and await self._host.storage.identity(d.path) is None]
        return tuple(d for d in disks if d not in missing)

    async def _facts(self, destination: str) -> HostFacts:
        told = await self._client.call(destination, "describe_host", {})
        return untrusted.host_facts(told.get("host"), name=destination)

    async def _decide_local(self, disks: tuple[Disk, ...], destination: str) -> tuple[Disk, ...]:
        """`local` of each disk, by what the destination sees (as P2 does it)."""
        there = PeersFiles(partial(self._client.call, destination), destination)
        with self.tokens.fresh() as token:
            return await decide_local(self._host.storage, there, disks, token)


class DestinationChecks:
    """The destination agent's side of a check."""

    def __init__(self, host: HostPorts, journal: Journal) -> None:
        self._host, self._journal = host, journal

    async def check(self, vm: Vm, may: tuple[str, ...], definition: str = "", cpu: str = "") -> list[Refusal]:
        """All this host has against taking `vm` now, in the ways the user permits. `definition`: without disks and
        NICs; its libvirt is asked about that where nothing else says what is missing. `cpu`: what the guest sees of
        its host's, '' where that does not matter."""
        found = await promises.judge(self._host, self._journal, vm)
        if definition and not found:
            found += await self._host.hypervisor.check_definition(definition)
        if leaps(vm.epoch, newest := self._journal.newest_epoch(vm.uuid)):
            message = (
                f"the VM comes with epoch {vm.epoch}, which {self._host.name} does not believe: it knows {newest}"
            )
            fix = "see what wrote it into the VM's metadata or the source's journal"
            found.append(Refusal(code="epoch-not-believed", message=message, fix=fix))
        if May.POSTCOPY in may:
            found += await self._host.hypervisor.check_postcopy()
        if cpu:
            found += await self._host.hypervisor.compare_cpu(vm, cpu)
        found += await self._check_memory(vm)
        found += await self._check_image(vm)
        for nic in vm.nics:
            found += await self._check_nic(nic)
        for some in await all_of(self._check_volume(disk) for disk in _reached(vm)):
            found += some
        local = tuple(d for d in vm.disks if d.local)
        if local:
            found += await self._host.storage.check_targets(local)
            found += await _in_use(self._host, vm, f"no copy may be made there ({self._host.name})")
        holder = self._journal.holder(vm.uuid)
        if holder is not None:
            message = f"{self._host.name} still cleans up after migration {holder.id} of this VM"
            found.append(Refusal(code="destination-not-clean", message=message, fix="wait until it has finished"))
        return found

    async def _check_nic(self, nic: Nic) -> list[Refusal]:
        if plugs.unknowns(nic):
            return []  # a VM that is off, or what `check_vm` says
        try:
            refusals = await self._host.vif.check(plugs.as_bound(nic) if self._host.network.service else nic)
        except SternaError as error:
            return [Refusal(code="nic-unchecked", message=f"NIC {nic.mac}: {error.message}", fix=error.fix)]
        return [r.model_copy(update={"message": f"{self._host.name}: {r.message}"}) for r in refusals]

    async def _check_volume(self, disk: Disk) -> list[Refusal]:
        try:
            return await self._host.volumes_for(disk).check(disk)
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
                claimed += int(migration.options["memory_bytes"])
        free = facts.memory_free_bytes - claimed
        if free >= vm.ordinary_bytes:
            return []
        message = (
            f"{self._host.name} has {free // 2**20} MiB of memory free ({claimed // 2**20} MiB more are claimed by "
            f"other migrations), {vm.name} needs {vm.ordinary_bytes // 2**20} MiB"
        )
        return [
            Refusal(code="memory-short", message=message, fix="move or stop another VM there, or choose another")
        ]
