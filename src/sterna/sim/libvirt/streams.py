"""What libvirt and QEMU say to a stream they cannot make, in their words: at once, or at its start."""

from __future__ import annotations

from sterna.domain.capabilities import version
from sterna.domain.copying import CopyPlan
from sterna.sim.libvirt.qemu import LibvirtSays
from sterna.sim.world.host import SimHost

MULTIFD_WITH_POSTCOPY = version(10, 1)
_NOT_TUNNELLED = {
    "NON_SHARED_DISK": "migration of non-shared storage is not supported with tunnelled migration",
    "POSTCOPY": "post-copy is not supported with tunnelled migration",
    "PARALLEL": "Parallel migration is not compatible with tunnelled migration",
}
_NOT_ZEROCOPY = ("TLS", "COMPRESSED")


def features(plan: CopyPlan) -> set[str]:
    """libvirt's flags of this copy: whether disks are copied follows from the disks."""
    flags = set(plan.flags) - {"NON_SHARED_DISK"}
    if any(d.copied for d in plan.disks):
        flags.add("NON_SHARED_DISK")
    return flags


def check_flags(plan: CopyPlan) -> None:
    """What libvirt refuses at once. Raises LibvirtSays."""
    flags = features(plan)
    if "TUNNELLED" in flags:
        for flag in sorted(flags & _NOT_TUNNELLED.keys()):
            raise LibvirtSays(f"Operation not supported: {_NOT_TUNNELLED[flag]}")
        if plan.migrate_uri:
            raise LibvirtSays("invalid argument: migration URI is not supported by tunnelled migration")
    if "ZEROCOPY" in flags and "PARALLEL" not in flags:
        raise LibvirtSays("unsupported configuration: zero-copy is only available for parallel migration")
    if "COMPRESSED" in flags and plan.parameters.get("compression") == "zstd" and "PARALLEL" not in flags:
        raise LibvirtSays("Compression method 'zstd' is only supported with parallel migration")


def check_hosts(source: SimHost, destination: SimHost, plan: CopyPlan) -> None:
    """What fails when the two QEMUs are set up. Raises LibvirtSays."""
    flags = features(plan)
    for host in (source, destination):
        if "TLS" in flags and not host.abilities.tls:
            raise LibvirtSays("internal error: Unable to access credentials /etc/pki/qemu/ca-cert.pem")
        if {"POSTCOPY", "PARALLEL"} <= flags and host.qemu_version < MULTIFD_WITH_POSTCOPY:
            raise LibvirtSays("internal error: QEMU: Postcopy is not yet compatible with multifd")
    if "ZEROCOPY" in flags and flags & set(_NOT_ZEROCOPY):
        raise LibvirtSays("internal error: Zero copy only available for non-compressed non-TLS multifd migration")
