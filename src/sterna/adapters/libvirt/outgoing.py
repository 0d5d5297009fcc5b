"""What libvirt and QEMU have against a running guest leaving now: jobs, and QEMU's own blockers. Blocking calls.

QEMU is asked through its monitor (`query-block-jobs`, `query-migrate`); from 6.0 on it lists its blockers there.
libvirt marks the guest as tainted by that (`custom-monitor`), as it does in each migration by Sterna.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import libvirt

from sterna.adapters.libvirt.qemu.monitor import Refused, ask
from sterna.adapters.libvirt.xml.metadata import Element, parse_xml
from sterna.adapters.libvirt.xml.nic_forms import is_hot_unplugged
from sterna.domain.jobs import (
    blocked_refusal,
    busy_refusal,
    disk_job_refusal,
    foreign_job_refusal,
    job_refusal,
    snapshots_refusal,
)
from sterna.domain.model import Refusal


def _names(prefix: str) -> dict[int, str]:
    found = [n for n in dir(libvirt) if n.startswith(prefix) and isinstance(getattr(libvirt, n), int)]
    return {getattr(libvirt, n): n.removeprefix(prefix).lower().replace("_", "-") for n in found}


_OPERATIONS = _names("VIR_DOMAIN_JOB_OPERATION_")
_BLOCK_JOBS = _names("VIR_DOMAIN_BLOCK_JOB_TYPE_")
_BY_LIBVIRT = "-libvirt-"
"""Part of the names libvirt gives to its block jobs: `copy-vda-libvirt-2-format`."""


def against_leaving(domain: Any) -> list[Refusal]:
    """Every reason at once; nothing for a guest without QEMU. Raises libvirtError."""
    if not domain.isActive():
        return []
    try:
        jobs = [*_of_guest(domain), *_of_disks(domain), *_of_qemu(domain)]
        blockers = [] if jobs else _blockers(domain)  # a job has blockers of its own, that end with it
        return [*jobs, *blockers, *_snapshots(domain)]
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_OPERATION_TIMEOUT:  # it has waited for half a minute
            return [busy_refusal(domain.name(), error.get_error_message())]
        if error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID and not domain.isActive():
            return []  # it ended while we looked
        raise


def _of_guest(domain: Any) -> Iterator[Refusal]:
    try:
        stats = domain.jobStats()
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_OPERATION_UNSUPPORTED:  # so libvirt says that it arrives
            yield job_refusal(domain.name(), "migration-in")
            return
        raise
    if stats.get("type") not in (None, libvirt.VIR_DOMAIN_JOB_NONE):
        operation = stats.get(libvirt.VIR_DOMAIN_JOB_OPERATION)
        yield job_refusal(domain.name(), _OPERATIONS.get(operation, str(operation)))


def _of_disks(domain: Any) -> Iterator[Refusal]:
    for target in (t.get("dev", "") for t in parse_xml(domain.XMLDesc()).iterfind("devices/disk/target")):
        try:
            info = domain.blockJobInfo(target, 0)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_OPERATION_TIMEOUT or not domain.isActive():
                raise
            continue  # a drive without a medium has no jobs
        if info:
            kind = _BLOCK_JOBS.get(info["type"], str(info["type"]))
            yield disk_job_refusal(domain.name(), target, kind, ready=info["cur"] == info["end"] > 0)


def _of_qemu(domain: Any) -> Iterator[Refusal]:
    for job in ask(domain, "query-block-jobs"):
        if _BY_LIBVIRT not in job["device"]:
            yield foreign_job_refusal(domain.name(), job["type"], job["device"])


def _snapshots(domain: Any) -> Iterator[Refusal]:
    """They are this libvirt's own records: it migrates no VM that has any. (Checkpoints are no obstacle.)"""
    try:
        names = domain.snapshotListNames()
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
            return
        raise
    if names:
        yield snapshots_refusal(domain.name(), names)


def _blockers(domain: Any) -> Iterator[Refusal]:
    try:
        reasons = ask(domain, "query-migrate").get("blocked-reasons", ())
    except Refused:
        return
    taken_away = _nics_taken_away(parse_xml(domain.XMLDesc()))
    for reason in dict.fromkeys(reasons):
        if not (taken_away and ("vfio" in reason.lower() or any(a in reason for a in taken_away))):
            yield blocked_refusal(domain.name(), reason)


def _nics_taken_away(domain: Element) -> list[str]:
    """Names of NICs that are taken from the guest before the copy: what QEMU has against them does not count."""
    taken = (nic for nic in domain.iterfind("devices/interface") if is_hot_unplugged(nic))
    return [alias.get("name", "") for nic in taken for alias in nic.iterfind("alias")]
