"""Refusals about the connection between the hosts, and about what a copy can be made of."""

from __future__ import annotations

from sterna.domain.refusals.entry import By, Entry, Group

STREAM = Group(
    "The stream",
    (
        Entry(
            "address-not-enrolled",
            cause="The destination reports a migration address that it was not enrolled with.",
            remedy="run `sterna host add HOST --address ADDRESS` and join again on it, or correct its settings",
            by=By.SOURCE,
            when="plan",
        ),
        Entry(
            "peer-unreachable",
            cause="The destination's libvirtd does not answer the source.",
            remedy="check `uri_template`, the certificates, and the firewalls between the hosts",
            by=By.SOURCE,
            when="plan",
        ),
        Entry(
            "peer-same-host",
            cause="Both libvirtds report the same host UUID, so libvirt would refuse the migration.",
            remedy="set `host_uuid` in libvirtd.conf on one of the hosts, restart libvirtd there, then "
            "`sterna host pin HOST UUID`",
            by=By.SOURCE,
            when="plan",
        ),
        Entry(
            "stream-blocked",
            cause="The source cannot reach a port in the destination's range for memory streams.",
            remedy="open `migration_port_min` to `migration_port_max` in the firewall, or use `--transport ssh`",
            by=By.SOURCE,
            when="plan, before the copy",
        ),
        Entry(
            "tls-handshake",
            cause="The two hosts do not accept each other's TLS certificates.",
            remedy="correct QEMU's certificates (see qemu.conf) on both hosts",
            by=By.AGENTS,
            when="rehearsal",
        ),
        Entry(
            "postcopy-impossible",
            cause="The destination does not let QEMU handle page faults, which post-copy needs.",
            remedy="set `vm.unprivileged_userfaultfd=1` there, or migrate without `--may postcopy`",
            by=By.DESTINATION,
            when="plan, rehearsal",
        ),
        Entry(
            "transport-unencrypted",
            cause="TCP was requested or is configured, and a host does not allow unencrypted migrations.",
            remedy="use TLS or SSH, or set `insecure = true` in `[migration]` of both hosts",
            by=By.SOURCE,
            when="plan, before the copy",
        ),
        Entry(
            "no-tls",
            cause="TLS is required, because not both hosts allow unencrypted migrations, but they cannot use it.",
            remedy="install the certificates that qemu.conf names on both hosts, or use SSH",
            by=By.SOURCE,
            when="plan, before the copy",
        ),
        Entry(
            "no-disks",
            cause="Local disks must be copied, and the chosen transport cannot carry them.",
            remedy="open a TCP port for QEMU between the hosts, or put the disks on shared storage",
            by=By.SOURCE,
            when="plan, before the copy",
        ),
        Entry(
            "no-postcopy",
            cause="Post-copy is requested, but cannot be used with these hosts, this guest or the other options.",
            remedy="do not request post-copy",
            by=By.SOURCE,
            when="plan, before the copy",
        ),
        Entry(
            "no-parallel",
            cause="Parallel connections are requested, but cannot be used with these hosts or the other options.",
            remedy="do not request parallel connections",
            by=By.SOURCE,
            when="plan, before the copy",
        ),
        Entry(
            "no-zstd",
            cause="Compression with zstd is requested, but cannot be used with these hosts or the other options.",
            remedy="install QEMU with zstd and libvirt 9.4 on both hosts, or do not request compression",
            by=By.SOURCE,
            when="plan, before the copy",
        ),
        Entry(
            "no-zerocopy",
            cause="Zero-copy is requested, but cannot be used with these hosts or the other options.",
            remedy="raise the memory lock limit of QEMU on the source, or do not request zero-copy",
            by=By.SOURCE,
            when="plan, before the copy",
        ),
        Entry(
            "no-sync-writes",
            cause="Synchronous disk writes are requested, but libvirt is too old or no disk is copied.",
            remedy="update libvirt to 8.0, or do not request them",
            by=By.SOURCE,
            when="plan, before the copy",
        ),
        Entry(
            "no-switchover-bandwidth",
            cause="A bandwidth for the switch-over is requested, but libvirt or QEMU is too old for it.",
            remedy="update libvirt to 11.1 and QEMU to 8.2, or do not request it",
            by=By.SOURCE,
            when="plan, before the copy",
        ),
    ),
)
