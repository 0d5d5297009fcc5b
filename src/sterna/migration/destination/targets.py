"""iSCSI targets that other VMs of this host use.

Admission to a target is the host's, not a VM's. So at R3 the destination would take a target from all of its VMs
that use it, whatever VM it was named for. Asked by the destination's check, and again before P4.
"""

from __future__ import annotations

from collections.abc import Sequence

from sterna.domain.entries.destination import VolumesToAttach
from sterna.domain.journal import Role
from sterna.domain.model import Disk, Refusal
from sterna.migration.context import HostPorts
from sterna.ports.records import Journal


async def in_use(host: HostPorts, journal: Journal, disks: Sequence[Disk], vm_uuid: str) -> list[Refusal]:
    """Disks of this VM whose target another one of this host names, or one on its way here. Raises Unreachable."""
    wanted = [disk for disk in disks if disk.iscsi is not None]
    if not wanted:
        return []
    claims = await host.hypervisor.volume_claims(besides=vm_uuid)
    users = {claim.target: claim.owner for claim in claims} | _on_their_way(journal, vm_uuid)
    return [
        Refusal(
            code="volume-shared",
            message=f"disk {disk.target}: on {host.name}, {users[disk.iscsi.target]} has its target as well",
            fix="find out which of the two VMs the volume belongs to, and detach it from the other",
        )
        for disk in wanted
        if disk.iscsi is not None and disk.iscsi.target in users
    ]


def _on_their_way(journal: Journal, vm_uuid: str) -> dict[str, str]:
    """Target -> the VM for which it is, or is about to be, attached here."""
    found: dict[str, str] = {}
    for migration, role in journal.open():
        if role is not Role.DESTINATION or migration.vm_uuid == vm_uuid:
            continue
        plans = filter(None, map(VolumesToAttach.of, journal.entries(migration.id)))
        targets = (disk.iscsi.target for plan in plans for disk in plan.disks if disk.iscsi is not None)
        found |= dict.fromkeys(targets, f"VM {migration.vm_name}, which is migrating here")
    return found
