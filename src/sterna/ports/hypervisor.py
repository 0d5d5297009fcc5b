"""The hypervisor of one host. Three small protocols; one adapter implements them all.

All methods are safe to repeat. A VM that does not exist raises `NotFound`; a libvirtd that does not answer
raises `Unreachable`; anything libvirt refuses raises `Permanent` with libvirt's own words.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from sterna.domain.model import (
    CompletedJob,
    CopyPlan,
    HostFacts,
    JobSample,
    Observation,
    Refusal,
    Value,
    Vm,
    VmSummary,
)


class GuestEvent(Value):
    """Something the hypervisor saw happen to a guest, in its order."""

    kind: str
    """`started-incoming`, `suspended-migrated`, `resumed-migrated`, `stopped-migrated`, `stopped`, `crashed`,
    `shutdown`, `iteration`, `job-completed`, `job-failed`, `defined`, `undefined`, `suspended`, `resumed`."""
    detail: str = ""
    iteration: int | None = None


class Inventory(Protocol):
    """Reads only."""

    async def host(self) -> HostFacts:
        """The host's facts; free memory is what the kernel says is available now."""

    async def vms(self) -> list[VmSummary]:
        """Every domain libvirt knows, running or not."""

    async def vm(self, name_or_uuid: str) -> Vm:
        """One VM from its LIVE definition (else the inactive one), sizes of its disks included.

        Raises NotFound.
        """

    async def observe(self, uuid: str) -> Observation:
        """State, reason, job and epoch of one guest, NOW. Absent is an answer, not an error.

        Raises Unreachable if libvirt cannot be asked.
        """

    async def check_incoming(self, vm: Vm) -> list[Refusal]:
        """What this hypervisor has against running `vm`: name or UUID taken, CPU, machine type, emulator,
        virtualisation type, software-emulated guest on QEMU < 8. Changes nothing."""

    async def check_peer(self, destination_uri: str) -> Refusal | None:
        """Can this host's side dial the other's libvirtd? None where it can."""


class Mover(Protocol):
    """Copies a running guest to another host (SPEC M1-M6), source side."""

    async def mark(self, uuid: str, migration_id: str, epoch: int) -> None:
        """Write Sterna's epoch into the domain's metadata, live and persistent. Not possible during a copy."""

    async def migrate(self, uuid: str, plan: CopyPlan) -> None:
        """Run the copy to its end (M4). Returns when libvirt returns; raises Unknown on any libvirt error:
        the return code is not evidence, the caller must observe both hosts."""

    async def sample(self, uuid: str) -> JobSample | None:
        """Statistics of the running copy; None where there is none. May block for over a second."""

    async def abort(self, uuid: str) -> None:
        """Ask libvirt to give the running copy up. No job is no error."""

    def events(self, uuid: str) -> AbstractAsyncContextManager[AsyncIterator[GuestEvent]]:
        """Events of one guest on this host from now on, without loss while the context is open."""


class Custodian(Protocol):
    """Ends, starts and forgets guests. Every caller has asked both hypervisors first (SPEC invariant 1)."""

    async def end_incoming(self, uuid: str, epoch: int) -> bool:
        """R0: end a guest that is waiting for its memory here and never ran. False where there is none.

        Raises Conflict if it runs, ran, or carries another epoch.
        """

    async def end_leftover(self, uuid: str, epoch: int) -> bool:
        """End the source's paused copy, after proof that the guest runs on dhost. False where there is none.

        Raises Conflict if it runs or carries another epoch.
        """

    async def resume(self, uuid: str, epoch: int) -> None:
        """Let the source's guest, paused by a failed migration, run on. Raises Conflict on another epoch."""

    async def undefine(self, uuid: str, epoch: int | None) -> bool:
        """F10, R5: forget an INACTIVE domain (with its NVRAM and managed save). False where there is none.

        Raises Conflict if it is active, or carries another epoch (None: any).
        """

    async def set_autostart(self, uuid: str, on: bool) -> None:
        """Set or clear autostart; a transient domain has none and is left alone."""

    async def completed_job(self, uuid: str) -> CompletedJob | None:
        """Statistics of the last finished migration of this guest as this host saw it (destination: downtime)."""


class Hypervisor(Inventory, Mover, Custodian, Protocol):
    """One host's hypervisor."""
