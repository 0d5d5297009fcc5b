"""A copy: what libvirt is given for it, and what it reports about it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sterna.domain.model import DEFAULT_PLUG, Reached, SecretRef, Value

Counted = Annotated[int, Field(ge=-(2**63), lt=2**64)] | None
"""As hypervisors count: in 64 bits."""


class JobSample(Value):
    """One sample of a running copy (protocol M3). Sizes in bytes, rates in bytes/s."""

    elapsed_ms: Counted = None
    memory_total: Counted = None
    memory_processed: Counted = None
    memory_remaining: Counted = None
    memory_rate: Counted = None
    dirty_rate: Counted = None
    """Memory that the guest writes, in bytes/s (libvirt's pages/s times its page size)."""
    iteration: Counted = None
    disk_total: Counted = None
    disk_processed: Counted = None
    disk_remaining: Counted = None
    downtime_ms: Counted = None
    """Downtime that QEMU expects."""
    throttle_percent: Counted = None
    """How much QEMU throttles the guest's vCPUs (auto-converge)."""


class GuestLoad(Value):
    """What a running guest was measured to do to its memory."""

    dirty_bytes: int
    """Different bytes dirtied within the period."""
    period_s: float
    allocated_bytes: int | None = None
    """Memory of the host that its QEMU holds: what the guest has ever touched, and QEMU's own."""


class CompletedJob(Value):
    """libvirt's statistics of a finished migration, read on the destination (for the report)."""

    total_ms: int | None = None
    downtime_ms: int | None = None
    downtime_net_ms: int | None = None
    memory_processed: int | None = None
    memory_total: int | None = None
    disk_processed: int | None = None
    disk_total: int | None = None
    iterations: int | None = None
    setup_ms: int | None = None


class DestinationDisk(Reached):
    """How the destination reaches one disk: typed data from dhost, rendered into XML by shost alone."""

    target: str
    login: SecretRef | None = None
    """Its iSCSI target wants another login from this host than the VM's definition has."""
    copied: bool = False
    from_base: bool = False
    """Copied but for what is in its backing file, which both hosts see."""
    holes_kept: bool = False
    """Copied without its zeros."""


class DestinationNic(Value):
    """How the destination plugged one NIC, or how libvirt shall plug it there."""

    mac: str
    plug: str = DEFAULT_PLUG
    device: str = ""
    """The tap made ahead of the guest; '' where libvirt makes the device with it."""
    bridge: str = ""
    port_id: str = ""
    mtu: int | None = None
    vlan: int | None = None
    parent: str | None = None
    mode: str | None = None
    pci: str | None = None


class CopyPlan(Value):
    """All that `Mover.migrate` needs (protocol M4)."""

    migration_id: str
    epoch: int
    destination_uri: str
    """libvirt URI of the destination as the SOURCE libvirtd must dial it: `qemu+tcp://10.0.0.2/system`."""
    migrate_uri: str | None = None
    """Address of the memory stream: `tcp://10.0.0.2`."""
    disks: tuple[DestinationDisk, ...] = ()
    nics: tuple[DestinationNic, ...] = ()
    listens: dict[str, str] = {}
    """Listen addresses that only the source has -> the destination's in their place."""
    persistent: bool = True
    flags: tuple[str, ...] = ()
    """What the copy is made of: libvirt's VIR_MIGRATE_ names without the prefix (`domain/objective.py`)."""
    parameters: dict[str, int | str] = {}
    """libvirt's own parameter names, values in libvirt's units."""

    @property
    def postcopy(self) -> bool:
        """May the copy be switched to post-copy?"""
        return "POSTCOPY" in self.flags

    @property
    def limit_bytes_s(self) -> int | None:
        """What it may send, in bytes/s, in pre-copy and in post-copy. None: no limit."""
        in_mib = self.parameters.get("bandwidth")
        return None if in_mib is None else int(in_mib) << 20
