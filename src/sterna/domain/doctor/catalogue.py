"""The doctor's checks, and the refusals of plans that each of them foretells."""

from __future__ import annotations

from typing import NamedTuple

from sterna.domain.refusals.codes import Code


class Check(NamedTuple):
    """One requirement."""

    name: str
    requirement: str
    """What should be so."""
    foretells: tuple[Code, ...] = ()
    """Refusals that follow where it is not."""


HOST = (
    Check("agent", "The agent runs and answers", ("destination-down", "source-down")),
    Check("bus", "The message bus can be reached"),
    Check(
        "libvirt",
        "libvirtd answers and describes the host",
        ("destination-degraded", "source-degraded"),
    ),
    Check("versions", "libvirt and QEMU are new enough", ("qemu-too-old",)),
    Check("kvm", "libvirt offers KVM", ("virt-type-missing",)),
    Check("encryption", "QEMU's streams can be encrypted", ("no-tls", "transport-unencrypted")),
    Check("certificates", "Certificates are valid and do not expire soon", ("tls-handshake",)),
    Check("enrolment", "The bus authenticates this host"),
    Check("clock", "The clock is synchronised, and agrees with the controller's"),
    Check("address", "The migration address belongs to this host", ("address-not-enrolled",)),
    Check("max-client-requests", "libvirtd processes enough calls of one client concurrently"),
    Check("userfaultfd", "QEMU may handle page faults, for post-copy", ("postcopy-impossible", "no-postcopy")),
    Check("stream-ports", "Ports for memory streams are free"),
    Check("open-vswitch", "Open vSwitch answers, if the settings name it", ("no-open-vswitch",)),
    Check("security-driver", "libvirt confines guests, as on the other hosts", ("security-driver-missing",)),
    Check("journal", "The journal can be written, and its disk has free space"),
    Check("instances-dir", "The folder of local disks exists and has enough free space", ("instances-dir",)),
    Check("bus-rights", "nats-server lets no client reply under another name"),
    Check("nova", "No other Nova manages the host's VMs, or the controller knows it", ("nova-owned",)),
)
"""What is looked at on one host."""

PAIR = (
    Check("name-resolution", "The other host's address can be resolved"),
    Check("peer-libvirt", "The other host's libvirtd can be reached", ("peer-unreachable",)),
    Check("peer-stream", "A memory stream reaches the other host", ("stream-blocked",)),
    Check("path-mtu", "Full-size packets reach the other host"),
    Check("shared-folders", "Both hosts see the same shared folders", ("folder-not-known-as-shared",)),
)
"""What one host looks at on its way to another."""

FLEET = (
    Check("host-uuid", "Each host has a UUID of its own", ("peer-same-host",)),
    Check(
        "initiator", "Each host has an iSCSI initiator name of its own", ("initiator-shared", "initiator-unknown")
    ),
    Check(
        "same-versions", "All hosts have the same libvirt and QEMU", ("machine-type-missing", "cpu-not-the-same")
    ),
    Check("same-mtu", "All migration addresses have the same MTU"),
    Check("huge-pages", "Hosts have huge pages of the same sizes", ("hugepages-short",)),
    Check("bridges", "Hosts have the same bridges", ("bridge-missing",)),
)
"""What the hosts' looks show side by side."""

CHECKS = (*HOST, *PAIR, *FLEET)
