"""What two hosts can do for a copy, and what the guest asks of them: the solver's facts.

A field that has not been observed is None, never False: the solver leaves the feature out and reports that this was
not known.
"""

from __future__ import annotations

from sterna.domain.hosts import Abilities, HostFacts, Transport
from sterna.domain.model import Value, Vm


def version(major: int, minor: int = 0) -> int:
    """A version as libvirt encodes it: major * 1,000,000 + minor * 1,000."""
    return major * 1_000_000 + minor * 1_000


def spoken(encoded: int) -> str:
    """`11.3` from libvirt's encoding."""
    return f"{encoded // 1_000_000}.{encoded // 1000 % 1000}"


def dotted(encoded: int) -> str:
    """`11.3.0` from libvirt's encoding."""
    return f"{spoken(encoded)}.{encoded % 1000}"


class Capabilities(Abilities):
    """One host's side of a copy."""

    host: str
    libvirt_version: int
    qemu_version: int
    cpus: int

    @classmethod
    def of(cls, facts: HostFacts) -> Capabilities:
        """From its agent's description."""
        return cls(
            **facts.abilities.model_dump(),
            host=facts.name,
            libvirt_version=facts.libvirt_version,
            qemu_version=facts.qemu_version,
            cpus=facts.cpus,
        )


class Pair(Value):
    """The two hosts of one copy."""

    source: Capabilities
    destination: Capabilities

    @property
    def both(self) -> tuple[Capabilities, Capabilities]:
        """Source first."""
        return self.source, self.destination

    @property
    def libvirt(self) -> int:
        """The older libvirt of the two."""
        return min(h.libvirt_version for h in self.both)

    @property
    def qemu(self) -> int:
        """The older QEMU of the two."""
        return min(h.qemu_version for h in self.both)

    @property
    def cpus(self) -> int:
        """CPUs of the smaller host."""
        return min(h.cpus for h in self.both)

    @property
    def link_bytes_s(self) -> int | None:
        """The slower of the two ends; None where neither is known."""
        known = [h.link_bytes_s for h in self.both if h.link_bytes_s is not None]
        return min(known) if known else None

    @property
    def transport(self) -> tuple[Transport, str] | None:
        """How the operators want memory to travel between these hosts, and which host's setting that is; the one
        that encrypts where they differ. None where it is not set."""
        for wanted in (Transport.TLS, Transport.SSH, Transport.TCP):
            for host in self.both:
                if host.transport is wanted:
                    return wanted, host.host
        return None

    @property
    def closed(self) -> list[str]:
        """The hosts whose operators do not allow anything to travel unencrypted."""
        return self.lacking("insecure")

    def lacking(self, what: str) -> list[str]:
        """Hosts that are not known to have the capability of this field name."""
        return [h.host for h in self.both if not getattr(h, what)]


class Guest(Value):
    """What matters of a VM to the choice of the copy's parameters."""

    name: str
    vcpus: int
    memory_bytes: int
    local_disks: tuple[str, ...] = ()
    """Targets of the disks that are copied with the memory."""
    hugepages: bool = False
    host_devices: tuple[str, ...] = ()
    """Devices of the host that hold guest memory pinned (VFIO)."""
    nvdimm: bool = False

    @classmethod
    def of(cls, vm: Vm) -> Guest:
        """From the VM as its host's libvirt describes it, `local` decided."""
        return cls(
            name=vm.name,
            vcpus=vm.vcpus,
            memory_bytes=vm.memory_bytes,
            local_disks=tuple(d.target for d in vm.disks if d.local and not d.carried),
            hugepages=vm.hugepages,
            host_devices=tuple(d for d in vm.immovable if d.startswith("hostdev")),
            nvdimm=vm.nvdimm,
        )
