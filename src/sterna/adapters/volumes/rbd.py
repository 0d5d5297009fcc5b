"""Ceph images that no volume service has: who may open one is said by the key in the VM's definition."""

from __future__ import annotations

from sterna.domain.model import Disk, DiskKind, Refusal


class RbdVolumes:
    """`ports.volume.Volumes` for RBD disks. There is nothing to admit. The guest's own QEMU opens the image before
    the switch-over, with the secret of its definition, which is brought along. If it cannot, the copy fails and is
    rolled back."""

    def handles(self, disk: Disk) -> bool:
        """Images of Ceph."""
        return disk.kind is DiskKind.RBD

    async def check(self, disk: Disk, source: str) -> list[Refusal]:
        """Nothing that could be asked without the key."""
        return []

    async def admitted(self, disk: Disk) -> bool:
        """Ceph has no admissions of hosts."""
        return False

    async def attach(self, disk: Disk, source: str) -> Disk:
        """P4: the image is the same on every host."""
        return disk

    async def connect(self, disk: Disk) -> Disk:
        """P9: QEMU opens it."""
        return disk

    async def disconnect(self, disk: Disk) -> None:
        """R3, F2: nothing of this host is connected to it once QEMU has ended."""

    async def detach(self, disk: Disk) -> None:
        """R3, F3: nothing was admitted."""
