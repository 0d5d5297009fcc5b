"""What was seen of a host, and of one host by another. Fields that could not be looked at are None, never empty."""

from __future__ import annotations

from enum import StrEnum

from sterna.domain.hosts import HostFacts
from sterna.domain.model import Refusal, Value


class CertificateSeen(Value):
    """A certificate in a file of a host."""

    file: str
    serves: str
    """What it is for, in words: `the bus`, `libvirtd`, `QEMU's streams`."""
    ends: str = ""
    """ISO 8601 UTC; '' where it cannot be read."""
    faults: tuple[str, ...] = ()
    """Why it does not serve."""
    warned: bool = False
    """It expires soon, by the rule that agents follow themselves."""


class HostLook(Value):
    """One host, as its agent, or root there, sees it."""

    host: str
    now: str = ""
    """ISO 8601 UTC, this host's clock, when it answered."""
    took_s: float | None = None
    """How long it had looked then, by its monotonic clock. None: `now` was read earlier, by an older version."""
    unseen: tuple[str, ...] = ()
    """What could not be looked at, each with why."""
    facts: HostFacts | None = None
    libvirt_error: str = ""
    libvirt_fix: str = ""
    kvm: bool | None = None
    """libvirt offers KVM."""
    security_models: tuple[str, ...] | None = None
    """libvirt's: `apparmor`, `selinux`, `dac`."""
    apparmor: bool | None = None
    """The kernel enforces AppArmor profiles."""
    max_client_requests: int | None = None
    """Calls of one client that libvirtd carries out at once."""
    clock_synchronised: bool | None = None
    """By the kernel's word: something disciplines its clock."""
    address: str = ""
    """Its `address` in the migration network, as its settings have it."""
    address_error: str = ""
    """Why that is no address that others can use; '' for nothing."""
    address_is_own: bool | None = None
    """One of its network devices has it."""
    device: str = ""
    """That device."""
    mtu: int | None = None
    """Its MTU, in bytes."""
    ports: str = ""
    """libvirt's range of ports for streams: `49152-49215`."""
    ports_free: int | None = None
    huge_pages: dict[int, int] | None = None
    """Page size in bytes -> pages that are set up."""
    bridges: tuple[str, ...] | None = None
    """Linux bridges that no program has made for itself."""
    ovs_bridges: tuple[str, ...] = ()
    """Those of Open vSwitch."""
    ovs_error: str | None = None
    """Why Open vSwitch cannot be used; '' where it can, None where the settings have none."""
    state_dir: str = ""
    state_error: str = ""
    state_free_bytes: int | None = None
    instances_error: str = ""
    instances_free_bytes: int | None = None
    certificates: tuple[CertificateSeen, ...] = ()
    enrolled: bool | None = None
    """It has a certificate for the bus."""
    bus_error: str = ""
    allow_responses: str = ""
    """The nats-server configuration here that has it; '' where none was seen."""
    nova_vms: int | None = None
    """VMs that a Nova made."""


class FolderSeen(Value):
    """A folder of one host, and whether another one sees the same."""

    path: str
    network: bool
    """It is on a network or cluster file system here, or qemu.conf calls it shared."""
    seen: bool | None = None
    """The other host sees it under the same path. None: that could not be tried."""
    taken_for_local: bool = False
    """libvirt here takes it for this host's own."""


class Frames(StrEnum):
    """What became of full-size packets on their way to another host."""

    PASSED = "passed"
    LOST = "lost"
    UNKNOWN = "unknown"


class PeerLook(Value):
    """One host, as another one reaches it."""

    peer: str
    address: str
    name_error: str = ""
    """Why the address, a name, is not resolved; '' for nothing."""
    libvirt: Refusal | None = None
    """Why its libvirtd is not reached; None where it is."""
    stream: Refusal | None = None
    """Why no memory stream reaches it."""
    stream_tried: bool = False
    frames: Frames = Frames.UNKNOWN
    segment: int | None = None
    """Bytes of data in one TCP packet to it."""
    folders: tuple[FolderSeen, ...] = ()
    error: str = ""
    """Why it could not be looked at; '' for nothing."""


class Seen(Value):
    """All that one host has seen: itself, and others."""

    look: HostLook
    peers: tuple[PeerLook, ...] = ()
