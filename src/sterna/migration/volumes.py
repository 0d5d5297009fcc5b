"""The volumes of a VM, each at the adapter that knows it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import structlog

from sterna.domain.claims import volume_users
from sterna.domain.model import Disk
from sterna.kit.tasks import all_of
from sterna.migration.context import HostPorts
from sterna.ports.volume import Volumes

log = structlog.get_logger(__name__)

T = TypeVar("T")


async def of_each(host: HostPorts, disks: Sequence[Disk], act: Callable[[Volumes, Disk], Awaitable[T]]) -> list[T]:
    """The results of `act` for each disk, in their order; in parallel, so that it takes as long as the slowest.

    Raises what the first of them raises, once none goes on; Permanent, before any, where no adapter knows one.
    """
    known = [(host.volumes_for(disk), disk) for disk in disks]
    return await all_of(act(volumes, disk) for volumes, disk in known)


Users = dict[str, tuple[str, ...]]
"""Target of a disk -> the other VMs of this host that have its LUN."""


async def users_of_luns(host: HostPorts, disks: Sequence[Disk], vm_uuid: str) -> Users:
    """Who else on this host has them. Asks nobody where no disk is on a LUN. Raises Unreachable."""
    if not any(map(has_lun, disks)):
        return {}
    return volume_users(disks, await host.hypervisor.volume_claims(besides=vm_uuid))


def has_lun(disk: Disk) -> bool:
    """Is it on a LUN? A host has one login to it, for all its VMs."""
    return disk.iscsi is not None


async def detach(host: HostPorts, disks: Sequence[Disk]) -> None:
    """Withdraw this host's admissions. Raises as `of_each`."""
    await of_each(host, disks, lambda volumes, disk: volumes.detach(disk))


async def detach_unless_used(host: HostPorts, disks: Sequence[Disk], users: Users, vm_uuid: str) -> dict[str, str]:
    """`detach` (R3, F3), but where another VM of the host has the same LUN by now: it would lose its disk. The
    targets of the disks that were left alone, each with the reason. Raises as `of_each`."""
    for target, owners in users.items():
        log.warning("a volume stays admitted: others use it", disk=target, users=owners, vm=vm_uuid)
    await detach(host, [disk for disk in disks if disk.target not in users])
    return {target: f"used by {', '.join(owners)}" for target, owners in users.items()}
