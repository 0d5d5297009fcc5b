"""What a host has and can do, by its own description."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from sterna.domain.model import GuestState, Value, omitted
from sterna.domain.nova import NovaFacts


class Transport(StrEnum):
    """How memory is sent from host to host."""

    TCP = "tcp"
    """From QEMU to QEMU, unencrypted."""
    TLS = "tls"
    """From QEMU to QEMU, encrypted by them."""
    SSH = "ssh"
    """Inside libvirt's own connection, which goes through SSH: where no other port is open."""


class Abilities(Value):
    """What a host can do for a copy, and how its operator wants memory to travel. None: not known."""

    userfaultfd: bool | None = None
    """QEMU, as the user it runs as here, may open a userfaultfd."""
    userfaultfd_hugepages: bool | None = None
    """The kernel's userfaultfd serves hugetlbfs memory too."""
    tls: bool | None = None
    """Certificates for QEMU's migration stream are in place."""
    zstd: bool | None = None
    """This QEMU was built with zstd."""
    locked_memory: bool | None = None
    """QEMU may lock as much memory as zero-copy sending pins."""
    link_bytes_s: int | None = None
    """What the migration network carries, in bytes/s: what can be had, not the number on the card."""
    transport: Transport | None = None
    """How memory and copied disks are to travel to and from this host; None: TLS, but where both hosts are insecure
    and one has no certificates."""
    insecure: bool | None = None
    """Its operator allows them to travel unencrypted. Both hosts of a migration must."""


class VmSummary(Value):
    """A row of `sterna vms`."""

    uuid: str
    name: str
    state: GuestState
    memory_bytes: int
    vcpus: int
    nova: NovaFacts | None = None
    """None where its definition has nothing of Nova's, or its agent is older."""
    volumes: tuple[str, ...] = ()
    """Serials of its disks that are UUIDs: volumes of Cinder, as Nova writes them."""
    asleep: bool = omitted(False)
    """It has suspended itself to memory; its state is `paused`."""


class HostFacts(Value):
    """An agent's description of its host."""

    name: str
    host_uuid: str
    """libvirt's own host UUID: the name is pinned to it."""
    address: str
    """Where other hosts' libvirtd and QEMU reach this one."""
    libvirt_version: int
    """As libvirt encodes it: major * 1,000,000 + minor * 1,000 + release."""
    qemu_version: int
    memory_total_bytes: int
    memory_free_bytes: int
    cpus: int
    cpu_model: str = ""
    cpu_id: Annotated[str, Field(max_length=64)] = omitted("")
    """The digest of its CPU's description (`cpus.HostCpu.text`): the same on hosts with equal CPUs. '' where the
    hypervisor cannot describe it, or of an older agent."""
    initiator: str | None = None
    instances_dir: str = ""
    disk_free_bytes: int | None = None
    maintenance: bool = False
    abilities: Abilities = Abilities()
    network_host: str = ""
    """What the cloud's services call this host; '' for its name."""

    @property
    def in_cloud(self) -> str:
        """What the cloud's services call it."""
        return self.network_host or self.name


def namesake(name: str, hosts: Iterable[HostFacts]) -> str:
    """Another host that the cloud calls as it calls this one; '' for none. One that is called by the name that it
    was enrolled with has the older right to it.

    Each says itself what it is called: one that was taken over may name another one, and bring VMs that are there.
    """
    known = {host.name: host for host in hosts}
    own = known.get(name)
    if own is None or not own.network_host or own.network_host == name:
        return ""
    return next((other for other, host in known.items() if other != name and host.in_cloud == own.in_cloud), "")
