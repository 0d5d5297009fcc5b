"""What a host's CPU gives its guests, as libvirt knows it. Blocking calls; the answer is kept for a while.

libvirt reads it when QEMU, the kernel or the microcode has changed. Each look by this agent costs libvirtd a few
milliseconds, and the host is described every second.
"""

from __future__ import annotations

import time

import libvirt

from sterna.adapters.libvirt.session.connection import Connect
from sterna.adapters.libvirt.xml.cpu import features_of, host_model, read_host_cpu
from sterna.adapters.libvirt.xml.metadata import parse_xml
from sterna.domain.cpus import HostCpu, missing_of
from sterna.domain.errors import Permanent

KEPT_S = 600.0
_FAILED_S = 60.0


class HostCpus:
    """Of one host."""

    def __init__(self) -> None:
        self._known: tuple[str, HostCpu | None, float] = ("", None, 0.0)
        """libvirt's capabilities at that time, the CPU, and until when it is kept."""

    def read(self, conn: Connect, capabilities: str) -> HostCpu | None:
        """None where libvirt cannot name it. `capabilities`: libvirt's own, by which a change is noticed."""
        known, cpu, until = self._known
        now = time.monotonic()
        if known == capabilities and now < until:
            return cpu
        try:
            cpu = _asked(conn)
        except (libvirt.libvirtError, Permanent):  # of an architecture of which it cannot
            cpu = None
        self._known = capabilities, cpu, now + (KEPT_S if cpu is not None else _FAILED_S)
        return cpu


def _asked(conn: Connect) -> HostCpu | None:
    """Of the QEMU and the virtualisation that libvirt takes where a guest names none. Raises libvirtError."""
    told = parse_xml(conn.getDomainCapabilities(None, None, None, None, 0))
    model = host_model(told)
    if not model:
        return None
    where = (None, told.findtext("arch"), None, told.findtext("domain"))
    return read_host_cpu(told, expand(conn, where, model))


Where = tuple[str | None, str | None, str | None, str | None]
"""Emulator, architecture, machine and type of virtualisation, as libvirt's calls about CPUs take them."""


def expand(conn: Connect, where: Where, cpu: str) -> str:
    """A CPU with each of its features, those of its model included. Raises libvirtError."""
    flags = libvirt.VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES
    return str(conn.baselineHypervisorCPU(*where, [cpu], flags))


def lacking(conn: Connect, where: Where, cpu: str) -> tuple[str, ...]:
    """Features of `cpu` that a guest cannot have here; none where libvirt does not say. Raises nothing."""
    try:
        own = host_model(parse_xml(conn.getDomainCapabilities(*where, 0)))
        there = features_of(expand(conn, where, own)) if own else ()
        wanted = features_of(expand(conn, where, cpu))
    except (libvirt.libvirtError, Permanent):
        return ()
    return missing_of(wanted, there) if there else ()
