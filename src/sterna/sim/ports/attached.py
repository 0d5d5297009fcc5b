"""Volumes that the host itself attaches, as os-brick does: its own initiator logs in, the kernel makes a device,
and QEMU opens that. So there is something on the host to disconnect, whatever becomes of the guest.

A device outlives a power cut: the host's initiator logs in again at boot as configured.
"""

from __future__ import annotations

from sterna.domain.errors import Permanent
from sterna.domain.model import Disk, DiskKind
from sterna.sim.ports.volumes import SimIscsiVolumes


class SimAttachedVolumes(SimIscsiVolumes):
    """BLOCK disks (ports.volume.Volumes). Admission is as with iSCSI; the connection is the host's."""

    def handles(self, disk: Disk) -> bool:
        """Devices of an iSCSI target."""
        return disk.kind is DiskKind.BLOCK and disk.iscsi is not None

    async def connect(self, disk: Disk) -> Disk:
        """P9: log in, make the device. Raises Temporary while not admitted, Permanent on another size."""
        mine = await super().connect(disk)
        self._world.attach_device(self._host.name, *_device(mine))
        return mine

    async def disconnect(self, disk: Disk) -> None:
        """R3, F2: remove the device, log out. Not connected is not an error."""
        await self._world.clock.sleep(self._world.pace.call_ms / 1000)
        self._world.detach_device(self._host.name, *_device(disk))


def _device(disk: Disk) -> tuple[str, str]:
    if disk.path is None or disk.iscsi is None:
        raise Permanent(f"disk {disk.target} is no device of an iSCSI target")
    return disk.path, disk.iscsi.target
