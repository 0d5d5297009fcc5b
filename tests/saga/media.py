"""Guests with a medium that nobody writes to."""

from __future__ import annotations

from dataclasses import replace

from sterna.domain.model import Disk, DiskKind
from sterna.sim.libvirt.guests import add_vm
from tests.saga.fleet import SimFleet


def with_medium(fleet: SimFleet, path: str, *, optional: bool = False) -> str:
    vm = add_vm(fleet.world, "host1", "tern", disks=("local",))
    domain = fleet.world.hosts["host1"].domains[vm]
    assert domain.live is not None
    cd = Disk(target="sda", kind=DiskKind.FILE, device="cdrom", path=path, read_only=True, optional=optional)
    domain.live = domain.inactive = replace(domain.live, disks=(*domain.live.disks, cd))
    return vm


def seed_of(fleet: SimFleet, name: str = "seed.iso") -> str:
    """A config drive beside the local disk."""
    vm = add_vm(fleet.world, "host1", "other", disks=("local",), running=False)
    disk = fleet.world.hosts["host1"].domains[vm].definition.disks[0].path or ""
    del fleet.world.hosts["host1"].domains[vm]
    fleet.world.remove_file("host1", disk)
    return f"{disk.rpartition('/')[0].rpartition('/')[0]}/{name}"
