"""Volumes: who may reach them (the service) and whether this host does (the connection)."""

from __future__ import annotations

from typing import Protocol

from sterna.domain.model import Disk, Refusal


class Volumes(Protocol):
    """One kind of volume on one host. `disk` is as the SOURCE has it; answers are for THIS host.

    That the volume is the VM's (`disk.vm_uuid`) and attached on the source is the service's word, where it knows
    that, and not the source's. `source`: what the cloud's services call that host.

    Every method may be repeated; detaching what is not attached is not an error.
    """

    def handles(self, disk: Disk) -> bool:
        """Is this disk of the kind this adapter knows?"""

    async def check(self, disk: Disk, source: str) -> list[Refusal]:
        """Why this host could not be given the volume. Changes nothing."""

    async def admitted(self, disk: Disk) -> bool:
        """Does the volume service admit this host now? False where the service has no admissions, or no such
        volume. Raises Unreachable where the service is away."""

    async def attach(self, disk: Disk, source: str) -> Disk:
        """P4: admit this host (its connector) at the volume service; the disk as this host must reach it. Raises
        Permanent, before anything is changed, for the volume of another VM."""

    async def connect(self, disk: Disk) -> Disk:
        """P9: make it reachable and prove it by opening it read-only. Raises Temporary or Permanent."""

    async def disconnect(self, disk: Disk) -> None:
        """R3, F2: undo `connect` on this host."""

    async def detach(self, disk: Disk) -> None:
        """R3, F3: withdraw this host's admission; storage itself then refuses this host."""
