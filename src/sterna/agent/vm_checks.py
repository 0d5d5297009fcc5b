"""Reasons against moving a VM, from what is known of it and of its hosts. Used by the checks of both hosts."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sterna.domain import immovable, plugs
from sterna.domain.addresses import is_among
from sterna.domain.claims import volume_users
from sterna.domain.hosts import HostFacts, Transport
from sterna.domain.jobs import occupied
from sterna.domain.journal import Migration
from sterna.domain.model import Disk, DiskKind, GuestState, Refusal, Vm
from sterna.domain.objective import Objective
from sterna.domain.policies import Accept
from sterna.migration import media
from sterna.migration.context import HostPorts
from sterna.migration.source import stream

_MAXIMUM = re.compile(r"""<cpu\s[^>]*mode=.maximum.""")


def check_vm(vm: Vm, holder: Migration | None, outgoing: Sequence[Refusal]) -> list[Refusal]:
    """Reasons in the VM itself. `outgoing`: those of its hypervisor (`check_outgoing`)."""
    found = []
    if holder is not None:  # what libvirt does with it is this migration's, and so may its pause be
        message = f"{vm.name} is in migration {holder.id} to {holder.destination}"
        found.append(Refusal(code="migration-under-way", message=message, fix="wait for it, or abort it"))
    else:
        found += occupied(vm, outgoing)
    found += [immovable.refusal(what) for what in vm.immovable]
    found += [r for d in vm.disks for r in (*d.against, *_check_disk(d))]
    found += [r for d in vm.cold for r in _check_cold(vm, d)]
    found += [_only_persistent(vm, what) for what in vm.next_start.devices]
    plugged = vm.state is GuestState.RUNNING  # else nothing shows where its NICs belong
    found += plugs.twins(vm.nics)
    return found + [r for n in vm.nics for r in plugs.refusals(n) or (plugs.unknowns(n) if plugged else [])]


def _check_disk(disk: Disk) -> list[Refusal]:
    if disk.kind is DiskKind.OTHER:
        message = f"disk {disk.target}: {disk.detail or 'its kind'} is not supported yet"
        return [Refusal(code="disk-unsupported", message=message, fix="detach it first")]
    if disk.iscsi is not None and (disk.shareable or disk.read_only):
        message = (
            f"several VMs may share disk {disk.target}: their host has one connection to it, and migrating this "
            "VM would disconnect the others"
        )
        return [Refusal(code="volume-shared", message=message, fix="detach it for the migration")]
    if disk.local and disk.shareable:
        message = f"disk {disk.target} ({disk.path}) is only on this host, and others may write to it (shareable)"
        fix = "put it on storage that both hosts see, or remove <shareable/> if no other VM uses it"
        return [Refusal(code="disk-shareable", message=message, fix=fix)]
    if disk.local and disk.encrypted:
        message = f"disk {disk.target} ({disk.path}) is encrypted and only on this host: libvirt cannot copy it"
        return [Refusal(code="disk-not-copyable", message=message, fix="put it on shared storage")]
    if disk.local and disk.sliced and not disk.carried:
        message = (
            f"disk {disk.target} is a slice of {disk.path}, which is only on this host: its copy has no offset"
        )
        fix = (
            "put the file on storage that both hosts see; or, while the VM is off, copy the slice into its own "
            "file "
            "and remove <slices> from the definition"
        )
        return [Refusal(code="disk-not-copyable", message=message, fix=fix)]
    if disk.carried and media.is_plain(disk):
        size = media.size_of(disk)
        if size <= media.LARGEST_MEDIUM:
            return []
        message = (
            f"{disk.device} {disk.target} ({disk.path}) is only on this host, and its {size >> 20} MiB are more "
            f"than the {media.LARGEST_MEDIUM >> 20} MiB that can be copied"
        )
        fix = f"copy the file to {disk.path} there, or eject it"
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
        f"{disk.device} {disk.target} ({where}) is only in the persistent definition of {vm.name}: it would not be "
        "migrated, and the VM could not be started again on the destination"
    )
    if disk.device in ("cdrom", "floppy"):
        fix = f"virsh change-media {vm.name} {disk.target} --eject --config"
    else:
        fix = f"attach it to the running VM as well, or virsh detach-disk {vm.name} {disk.target} --config"
    return [Refusal(code="disk-only-persistent", message=message, fix=fix)]


def _only_persistent(vm: Vm, what: str) -> Refusal:
    """A device of the host that only the persistent definition names: another host has another one, or none."""
    message = (
        f"{what} is only in the persistent definition of {vm.name}: on the destination the VM could not be started "
        "again, or would get another device"
    )
    fix = f"remove it from the persistent definition (virsh edit {vm.name}, or detach-device --config)"
    return Refusal(code="device-only-persistent", message=message, fix=fix)


def not_known_as_shared(disk: Disk, host: str) -> Refusal:
    """A disk that both hosts see and that libvirt treats as local."""
    message = (
        f"disk {disk.target}: both hosts see {disk.path}, but libvirt on {host} treats its folder as local, and "
        "refuses the migration"
    )
    fix = (
        "add the folder to `shared_filesystems` in /etc/libvirt/qemu.conf on both hosts, and restart libvirtd (or "
        "virtqemud) there while no migration from or to that host is running"
    )
    return Refusal(code="folder-not-known-as-shared", message=message, fix=fix)


def check_stream(vm: Vm, here: HostFacts, there: HostFacts, wanted: Objective) -> tuple[Transport, list[Refusal]]:
    """How the memory would travel, and what of what was asked for cannot be."""
    found = stream.solution(wanted, here, there, vm)
    return found.parameters.transport if found.parameters else Transport.TCP, list(found.refusals)


def check_address(there: HostFacts, permitted: tuple[str, ...] | None) -> list[Refusal]:
    """A host is where it was enrolled, whatever it says. `permitted`: None where they are not known."""
    if permitted is None or is_among(there.address, permitted):
        return []
    places = f"it is enrolled with {', '.join(permitted)}" if permitted else "it is enrolled without an address"
    message = f"the migration address of {there.name} is {there.address}, but {places}"
    fix = f"sterna host add {there.name} --address ADDRESS, and join again on it; or correct its `address`"
    return [Refusal(code="address-not-enrolled", message=message, fix=fix)]


def check_initiators(vm: Vm, here: HostFacts, there: HostFacts) -> list[Refusal]:
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
        f"{there.name}'s initiator name, {there.initiator}, is also in use on {here.name}: revoking one host's "
        "access "
        f"to a volume ({', '.join(shared)}) revokes the other's"
    )
    fix = "give each host its own: `initiator` in `[volumes]` of its agent's settings"
    return [Refusal(code="initiator-shared", message=message, fix=fix)]


def check_maximum(vm: Vm, here: HostFacts, there: HostFacts, wanted: Objective) -> list[Refusal]:
    """`maximum` in software emulation is whatever that QEMU can emulate, and libvirt does not compare it."""
    all_of_it = vm.virt_type == "qemu" and _MAXIMUM.search(vm.cpu_xml)
    if not all_of_it or here.qemu_version == there.qemu_version or Accept.CPU in wanted.accept:
        return []
    message = (
        f"{vm.name} has the largest CPU that its QEMU can emulate (mode='maximum'), and {there.name} has another "
        f"QEMU than {here.name}: features may be missing there"
    )
    fix = "install the same QEMU; or give the VM a named CPU model while it is off; or take the risk: --accept cpu"
    return [Refusal(code="cpu-not-the-same", message=message, fix=fix)]


def reached(vm: Vm) -> list[Disk]:
    """The disks that a destination must reach where they are, now or at the VM's next start."""
    cold = [d for d in vm.cold if d.kind is DiskKind.FILE and not d.against]
    return [
        d
        for d in (*vm.disks, *cold)
        if not d.local
        and d.kind not in (DiskKind.EMPTY, DiskKind.OTHER)
        and not (d.medium and d.against)  # that it is another one there
    ]


OWN_FILE = "give that VM a file of its own, or detach it there; or put the file on shared storage"


async def in_use(host: HostPorts, vm: Vm, why: str) -> list[Refusal]:
    """Local disks whose file, or whose place, another domain of this host needs."""
    local = {d.path: d for d in vm.disks if d.local and d.path}
    if not local:
        return []
    users = await host.storage.used_by(tuple(local), await host.hypervisor.claims(besides=vm.uuid))
    return [
        Refusal(
            code="disk-in-use",
            message=f"disk {local[path].target}: {path} is used by {', '.join(owners)} as well: {why}",
            fix=OWN_FILE,
        )
        for path, owners in users.items()
    ]


async def volumes_in_use(host: HostPorts, vm: Vm) -> list[Refusal]:
    """LUNs that another domain of this host has, running or off. The host has one login for both: what the move of
    this VM, or its rollback, takes from the host, the other loses."""
    if not any(disk.iscsi is not None for disk in vm.disks):
        return []
    users = volume_users(vm.disks, await host.hypervisor.volume_claims(besides=vm.uuid))
    return [
        Refusal(
            code="volume-shared",
            message=f"disk {target}: on {host.name}, {', '.join(owners)} has its volume as well, and would lose it",
            fix=f"detach it from that VM on {host.name} (virsh detach-disk, also --config), or undefine that VM",
        )
        for target, owners in users.items()
    ]


def not_believed(host: str, vm: Vm, epoch: object) -> Refusal:
    """A host that names an epoch which cannot be."""
    message = f"{host} says that it has seen epoch {str(epoch)[:30]} of {vm.name}, which cannot be true"
    fix = "choose another destination, and find out what wrote that into the journal there"
    return Refusal(code="epoch-not-believed", message=message, fix=fix)
