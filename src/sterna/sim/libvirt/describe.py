"""What a simulated libvirt tells of one of its domains."""

from __future__ import annotations

from sterna.domain.claims import Claim, VolumeClaim, cold_disks, lun_name
from sterna.domain.model import Disk, DiskKind, NextStart, Vm
from sterna.domain.next_start import next_start
from sterna.sim.world.host import SimHost
from sterna.sim.world.things import SimDomain


def describe(here: SimHost, domain: SimDomain) -> Vm:
    """The VM as this host's libvirt has it."""
    definition, live, inactive = domain.definition, domain.live, domain.inactive
    return Vm(
        uuid=domain.uuid,
        name=definition.name,
        state=domain.state,
        reason=domain.reason,
        persistent=inactive is not None,
        autostart=domain.autostart,
        memory_bytes=definition.memory_bytes,
        vcpus=definition.vcpus,
        virt_type=definition.virt_type,
        arch=definition.arch,
        machine=definition.machine,
        emulator=definition.emulator,
        cpu_xml=definition.cpu_xml,
        disks=tuple(_sized(here, d.model_copy(update={"vm_uuid": domain.uuid})) for d in definition.disks),
        nics=definition.nics,
        cold=cold_disks(live.disks, inactive.disks) if live and inactive else (),
        next_start=next_start(live, inactive) if live and inactive else NextStart(),
        firmware=definition.firmware,
        immovable=definition.immovable,
        epoch=definition.epoch or 0,
        image=definition.image,
    )


def _sized(here: SimHost, disk: Disk) -> Disk:
    """The disk with its sizes as the host's storage has them now."""
    file = here.file(disk.path) if disk.kind is DiskKind.FILE and disk.path else None
    if file is None:
        return disk
    return disk.model_copy(update={"capacity_bytes": file.size_bytes, "allocation_bytes": file.allocated_bytes})


def claims_of(domain: SimDomain) -> list[Claim]:
    """Every file that its definitions name, and what its disks stand on."""
    owner = f"VM {domain.definition.name} ({domain.state})"
    paths: dict[str, None] = {}
    for definition in (d for d in (domain.live, domain.inactive) if d is not None):
        for disk in definition.disks:
            paths |= dict.fromkeys(disk.files)
        paths |= dict.fromkeys(definition.files)
        paths |= dict.fromkeys(state.path for state in definition.firmware)
    return [Claim(path=path, owner=owner, vm_uuid=domain.uuid) for path in paths]


def volume_claims_of(domain: SimDomain) -> list[VolumeClaim]:
    """Every LUN that its definitions name."""
    owner = f"VM {domain.definition.name} ({domain.state})"
    return [
        VolumeClaim(volume=lun_name(disk.iscsi.target, disk.iscsi.lun), owner=owner)
        for definition in (domain.live, domain.inactive)
        for disk in (definition.disks if definition is not None else ())
        if disk.iscsi is not None
    ]
