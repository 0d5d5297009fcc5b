"""Which features of a copy go together, on which libvirt and QEMU: the table the solver reads.

Each rule names its source. `measured`: seen on libvirt 11.3 with QEMU 10.0.2 or in the field notes; `string`: the
refusal's words are in that libvirt or QEMU binary; `news`: libvirt's NEWS, release in the rule; `source`: QEMU's
migration/options.c; `read`: documentation, not tried. A feature that cannot be is left out with a warning, or
refused with the rule's fix where the user demanded it. Called by `objective.py` only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from sterna.domain.capabilities import Guest, Pair, spoken, version


class Feature(StrEnum):
    """What a copy may use."""

    TLS = "tls"
    """QEMU's own TLS on the stream."""
    TUNNELLED = "tunnelled"
    """The stream inside libvirt's connection (SSH), where nothing else is open."""
    POSTCOPY = "postcopy"
    THROTTLE = "throttle"
    """QEMU's auto-converge."""
    PARALLEL = "parallel"
    """Several connections (multifd)."""
    ZSTD = "zstd"
    ZEROCOPY = "zerocopy"
    DISKS = "disks"
    """Local disks travel along. A fact of the VM, not a wish."""
    SYNC_WRITES = "sync-writes"
    """The guest's disk writes wait for the other host: a busy disk's copy converges."""
    SWITCHOVER_BANDWIDTH = "switchover-bandwidth"
    """QEMU gets the link's speed, for when the limit no longer counts."""


Hosts = Callable[[Pair, Guest], str]
"""The obstacle on these hosts, in words; '' for none."""


@dataclass(frozen=True)
class Need:
    """`feature` needs something of the hosts or of the guest."""

    feature: Feature
    missing: Hosts
    fix: str
    source: str


@dataclass(frozen=True)
class Clash:
    """`keeps` and `yields` cannot be together while `when` says why; `yields` goes unless it was demanded."""

    keeps: Feature
    yields: Feature
    when: Hosts
    fix: str
    source: str
    given: tuple[Feature, ...] = ()
    """Only while these are used as well."""


def _libvirt(oldest: int) -> Hosts:
    def missing(pair: Pair, guest: Guest) -> str:
        if pair.libvirt >= oldest:
            return ""
        old = next(h for h in pair.both if h.libvirt_version < oldest)
        return f"{old.host} has libvirt {spoken(old.libvirt_version)}, which is older than {spoken(oldest)}"

    return missing


def _qemu(oldest: int) -> Hosts:
    def missing(pair: Pair, guest: Guest) -> str:
        if pair.qemu >= oldest:
            return ""
        old = next(h for h in pair.both if h.qemu_version < oldest)
        return f"{old.host} has QEMU {spoken(old.qemu_version)}, which is older than {spoken(oldest)}"

    return missing


def _both_have(field: str, what: str) -> Hosts:
    def missing(pair: Pair, guest: Guest) -> str:
        lacking = pair.lacking(field)
        return f"{what} not found on {' and '.join(lacking)}" if lacking else ""

    return missing


def _source_may_lock(pair: Pair, guest: Guest) -> str:
    # Only the sender pins the guest's memory.
    return "" if pair.source.locked_memory else f"QEMU on {pair.source.host} may not lock the guest's memory"


def _always(why: str) -> Hosts:
    return lambda pair, guest: why


def _no_userfaultfd(pair: Pair, guest: Guest) -> str:
    # Only the destination faults pages in.
    return "" if pair.destination.userfaultfd else f"QEMU on {pair.destination.host} may not use userfaultfd"


def _hugepages(pair: Pair, guest: Guest) -> str:
    if guest.hugepages and not pair.destination.userfaultfd_hugepages:
        return f"{guest.name} has huge pages, which userfaultfd on {pair.destination.host} does not support"
    return ""


def _pinned(pair: Pair, guest: Guest) -> str:
    return f"{guest.name} has {', '.join(guest.host_devices)}, whose memory is pinned" if guest.host_devices else ""


def _nvdimm(pair: Pair, guest: Guest) -> str:
    return f"{guest.name} has NVDIMM memory" if guest.nvdimm else ""


_EMPTY_HOSTNAME = "news: libvirt 10.3, before it a disk's TLS fails with 'Certificate does not match the hostname'"

NEEDS: tuple[Need, ...] = (
    Need(Feature.TLS, _both_have("tls", "certificates for the stream"),
         "put ca-cert.pem, server-cert.pem and server-key.pem into the folder in "
         "qemu.conf", "read: libvirt, tlscerts"),
    Need(Feature.POSTCOPY, _no_userfaultfd,
         "set sysctl vm.unprivileged_userfaultfd=1 there, or give QEMU's user /dev/userfaultfd (libvirt 10.1)",
         "string: QEMU 'Userfaultfd not available'; news: libvirt 10.1; measured: 0 by default on Debian 12"),
    Need(Feature.POSTCOPY, _libvirt(version(8, 5)), "update libvirt",
         "news: libvirt 8.5, before it a broken link in post-copy loses the guest"),
    Need(Feature.POSTCOPY, _hugepages, "give the guest ordinary pages, or install kernel 4.11 or newer",
         "string: QEMU 'Userfault on this host does not support huge pages'"),
    Need(Feature.POSTCOPY, _pinned, "detach the device first",
         "string: QEMU 'VFIO migration is not supported with postcopy migration'"),
    Need(Feature.POSTCOPY, _nvdimm, "do not use post-copy", "string: QEMU 'is a nvdimm memory, postcopy is not'"),
    Need(Feature.PARALLEL, _libvirt(version(5, 2)), "update libvirt", "news: libvirt 5.2"),
    Need(Feature.ZSTD, _libvirt(version(9, 4)), "update libvirt", "news: libvirt 9.4, compression of parallel"),
    Need(Feature.ZSTD, _both_have("zstd", "zstd in QEMU"), "install a QEMU built with zstd", "read: QEMU qapi"),
    Need(Feature.ZEROCOPY, _libvirt(version(8, 5)), "update libvirt", "news: libvirt 8.5"),
    Need(Feature.ZEROCOPY, _qemu(version(7, 1)), "update QEMU", "news: libvirt 8.5 names QEMU 7.1"),
    Need(Feature.ZEROCOPY, _source_may_lock,
         "raise the memory lock limit of QEMU", "read: QEMU qapi, zero-copy-send"),
    Need(Feature.SYNC_WRITES, _libvirt(version(8, 0)), "update libvirt", "news: libvirt 8.0"),
    Need(Feature.SWITCHOVER_BANDWIDTH, _libvirt(version(11, 1)), "update libvirt",
         "read: libvirt-domain.h, since 11.1.0"),
    Need(Feature.SWITCHOVER_BANDWIDTH, _qemu(version(8, 2)), "update QEMU", "read: QEMU qapi, since 8.2"),
)  # fmt: skip

CLASHES: tuple[Clash, ...] = (
    Clash(Feature.TUNNELLED, Feature.TLS, _always("libvirt's connection already encrypts the stream"),
          "choose one of them", "read: libvirt, migration.html"),
    Clash(Feature.TUNNELLED, Feature.DISKS, _always("libvirt does not copy disks through its own connection (SSH)"),
          "open a TCP port between the hosts for QEMU, or put the disks on shared storage",
          "string: libvirt 'migration of non-shared storage is not supported with tunnelled migration'"),
    Clash(Feature.TUNNELLED, Feature.POSTCOPY, _always("libvirt does not support post-copy through its own "
    "connection (SSH)"),
          "open a TCP port between the hosts for QEMU",
          "string: libvirt 'post-copy is not supported with tunnelled migration'"),
    Clash(Feature.TUNNELLED, Feature.PARALLEL, _always("libvirt has only one connection (SSH) for the stream"),
          "open TCP ports between the hosts for QEMU", "source: libvirt e092daac (6.0), exclusive flags"),
    Clash(Feature.POSTCOPY, Feature.PARALLEL, _qemu(version(10, 1)),
          "update QEMU, or forbid post-copy",
          "source: QEMU e2741886 (10.1) takes the check out; string in 10.0.2; measured: 7.2 accepts both and Nova "
          "warns that the guest is lost"),
    Clash(Feature.TLS, Feature.ZEROCOPY, _always("QEMU encrypts a copy of each page"),
          "choose one of them", "string: QEMU 'Zero copy only available for non-compressed non-TLS multifd'"),
    Clash(Feature.ZSTD, Feature.ZEROCOPY, _always("QEMU compresses a copy of each page"),
          "choose one of them", "string: QEMU 'Zero copy only available for non-compressed non-TLS multifd'"),
    Clash(Feature.DISKS, Feature.TLS, _libvirt(version(4, 4)), "update libvirt", "news: libvirt 4.4"),
    Clash(Feature.TLS, Feature.PARALLEL, _libvirt(version(10, 3)), "update libvirt", _EMPTY_HOSTNAME,
          given=(Feature.DISKS,)),
    Clash(Feature.TLS, Feature.POSTCOPY, _libvirt(version(10, 3)), "update libvirt", _EMPTY_HOSTNAME,
          given=(Feature.DISKS,)),
)  # fmt: skip

LEANS: tuple[tuple[Feature, Feature, str], ...] = (
    (Feature.ZSTD, Feature.PARALLEL, "string: libvirt 'only supported with parallel migration'"),
    (Feature.ZEROCOPY, Feature.PARALLEL, "string: libvirt 'zero-copy is only available for parallel migration'"),
    (Feature.SYNC_WRITES, Feature.DISKS, "read: libvirt-domain.h, NON_SHARED_SYNCHRONOUS_WRITES"),
)
"""(feature, what it stands on, source): the first is nothing without the second."""
