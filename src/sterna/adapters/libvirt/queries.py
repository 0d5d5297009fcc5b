"""Reads of libvirtd for `inventory.py`: one VM with its sizes, its load, what speaks against it. Blocking."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt

from sterna.adapters.libvirt import emulators
from sterna.adapters.libvirt.cpus import in_words
from sterna.adapters.libvirt.definitions import of_arriving
from sterna.adapters.libvirt.host_cpu import lacking
from sterna.adapters.libvirt.observe import find, state_of
from sterna.adapters.libvirt.resources import lan_of
from sterna.adapters.libvirt.session.connection import Connect
from sterna.adapters.libvirt.xml import checks
from sterna.adapters.libvirt.xml.describe import describe
from sterna.adapters.libvirt.xml.metadata import parse_xml
from sterna.adapters.libvirt.xml.references import references_of
from sterna.adapters.libvirt.xml.sparse_disks import refuse_holes
from sterna.adapters.libvirt.zeros import finds_zeros
from sterna.domain.claims import cold_disks
from sterna.domain.copying import GuestLoad
from sterna.domain.errors import NotFound
from sterna.domain.model import Disk, DiskKind, Refusal, Vm
from sterna.domain.next_start import next_start
from sterna.domain.references import Reference

_RUN_DIR = Path("/run/libvirt/qemu")
"""Where libvirt keeps the process ids of its guests."""
_NEARLY = 1.01
"""A mapping may have a few pages more than the memory."""


def load_of(conn: Connect, uuid: str) -> GuestLoad | None:
    """What was measured last of the guest; None where nothing was. Raises libvirtError."""
    domain = conn.lookupByUUIDString(uuid)
    wanted = libvirt.VIR_DOMAIN_STATS_DIRTYRATE | libvirt.VIR_DOMAIN_STATS_BALLOON
    stats = conn.domainListGetStats([domain], wanted)[0][1]
    rate, period = stats.get("dirtyrate.megabytes_per_second"), stats.get("dirtyrate.calc_period")
    measured = stats.get("dirtyrate.calc_status") == libvirt.VIR_DOMAIN_DIRTYRATE_MEASURED
    if not measured or rate is None or not period:
        return None
    allocated = _touched(domain.name(), int(stats.get("balloon.current") or 0) * 1024)
    return GuestLoad(dirty_bytes=int(rate) * period << 20, period_s=period, allocated_bytes=allocated)


def _pid(name: str) -> int | None:
    """Of the guest's QEMU."""
    try:
        return int((_RUN_DIR / f"{name}.pid").read_text())
    except (OSError, ValueError):
        return None


def pid_of(domain: Any) -> int | None:
    """Of a running guest's QEMU; None where it is not known. Raises libvirtError."""
    return _pid(domain.name()) if domain.isActive() else None


def _touched(name: str, memory_bytes: int) -> int | None:
    """Bytes of the guest's memory that exist on the host; None where the kernel does not say.

    The mapping of QEMU that is as large as the guest's memory. libvirt's own figure is all of QEMU: 251 MiB where
    164 were the guest's (docs/lab-notebook/field-notes.md).
    """
    pid = _pid(name)
    try:
        lines = Path(f"/proc/{pid}/smaps").read_text().splitlines() if pid else []
    except OSError:
        return None
    size_kib = 0
    for line in lines:
        field, _, value = line.partition(":")
        if field == "Size":
            size_kib = int(value.split()[0])
        elif field == "Rss" and memory_bytes <= size_kib * 1024 <= memory_bytes * _NEARLY:
            return int(value.split()[0]) * 1024
    return None


def read_vm(conn: Connect, name_or_uuid: str) -> tuple[Vm, int | None]:
    """The VM, and its QEMU's process. What it names on the host has not been looked at yet."""
    domain = _lookup(conn, name_or_uuid)
    if arriving := of_arriving(domain):
        return _read_arriving(domain, arriving), _pid(domain.name())
    live = domain.XMLDesc()
    vm, solid = describe(live), refuse_holes(parse_xml(live))
    state, reason = state_of(domain)
    active = bool(domain.isActive())
    persistent = bool(domain.isPersistent())
    inactive = describe(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)) if active and persistent else vm
    read = vm.model_copy(
        update={
            "state": state,
            "reason": reason,
            "persistent": persistent,
            "autostart": bool(domain.autostart()) if persistent else False,
            "disks": tuple(
                _sized(domain, disk, finds_zeros(conn) and disk.target not in solid) for disk in vm.disks
            ),
            "cold": cold_disks(vm.disks, inactive.disks),
            "next_start": next_start(vm, inactive),
            "references": _with_lans(conn, _references(domain, active=active, persistent=persistent)),
            "unjudged": (*vm.unjudged, *_checkpoints(domain)),
        }
    )
    return read, _pid(domain.name()) if active else None


def _checkpoints(domain: Any) -> Iterator[str]:
    """What becomes of the checkpoints of incremental backups, in words."""
    try:
        count = len(domain.listAllCheckpoints())
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise
        return
    if count:
        yield (
            f"libvirt forgets the VM's {'checkpoint' if count == 1 else f'{count} checkpoints'} with the "
            "migration: the "
            "next backup must be a full one, unless the backup program defines them again"
        )


def _read_arriving(domain: Any, texts: tuple[str, ...]) -> Vm:
    """A guest that is arriving here: its identity only. It cannot be migrated now, so the rest is not needed."""
    vm, inactive = describe(texts[0]), describe(texts[-1])
    state, reason = state_of(domain)
    more = {"state": state, "reason": reason, "persistent": bool(domain.isPersistent())}
    return vm.model_copy(update=more | {"cold": cold_disks(vm.disks, inactive.disks)})


def _references(domain: Any, *, active: bool, persistent: bool) -> tuple[Reference, ...]:
    """What its definition names on this host."""
    live = parse_xml(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE if active else 0))
    inactive = parse_xml(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)) if active and persistent else None
    return tuple(references_of(live, inactive))


def _with_lans(conn: Connect, references: tuple[Reference, ...]) -> tuple[Reference, ...]:
    return tuple(
        ref if ref.lan is None else ref.model_copy(update={"lan": lan_of(conn, ref.name, ref.portgroup)})
        for ref in references
    )


def _lookup(conn: Connect, name_or_uuid: str) -> Any:
    """By UUID, else by name. Raises NotFound."""
    for find_by in (conn.lookupByUUIDString, conn.lookupByName):
        try:
            return find_by(name_or_uuid)
        except libvirt.libvirtError as error:
            # INVALID_ARG: a name is no UUID.
            if error.get_error_code() not in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_INVALID_ARG):
                raise
    raise NotFound(f"no VM {name_or_uuid} on this host")


def _sized(domain: Any, disk: Disk, keeps_holes: bool) -> Disk:
    """With capacity and allocation in bytes, as far as libvirt can say. A raw disk without holes gets none."""
    if disk.kind is DiskKind.EMPTY:
        return disk
    try:
        capacity, allocation, physical = domain.blockInfo(disk.target)
    except libvirt.libvirtError:
        return disk  # a stopped VM's network disk: unknown, which is not zero
    holes = keeps_holes and disk.kind is DiskKind.FILE and (disk.format != "raw" or allocation < capacity)
    sizes = {"capacity_bytes": capacity, "allocation_bytes": allocation, "length_bytes": physical}
    return disk.model_copy(update={**sizes, "holes_kept": holes})


def refusals_of(conn: Connect, vm: Vm, emulator: str) -> list[Refusal]:
    """`emulator`: where the path of the VM's leads to."""
    found, capabilities = _names_taken(conn, vm), conn.getCapabilities()
    if not emulators.is_known(vm.emulator, emulator, capabilities):
        found.append(emulators.unknown(vm.emulator))
    found += checks.against_capabilities(vm, capabilities)
    found += checks.against_next_start(vm, capabilities)
    found += checks.against_version(vm, conn.getVersion())
    unsupported = {"arch-unsupported", "emulator-missing", "virt-type-missing", "machine-type-missing"}
    if not any(refusal.code in unsupported for refusal in found):
        found += _against_cpu(conn, vm)
    return found


def _names_taken(conn: Connect, vm: Vm) -> list[Refusal]:
    fix = "undefine it there, if it is not needed (virsh undefine)"
    found = []
    same = find(conn, vm.uuid)
    if same is not None:
        message = f"a VM with UUID {vm.uuid} exists there already: {same.name()} ({state_of(same)[0]})"
        found.append(Refusal(code="uuid-taken", message=message, fix=fix))
    try:
        other = conn.lookupByName(vm.name)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise
        return found
    if other.UUIDString() != vm.uuid:
        message = f"another VM there is called {vm.name} ({other.UUIDString()}, {state_of(other)[0]})"
        found.append(Refusal(code="name-taken", message=message, fix="rename one of the two"))
    return found


def _against_cpu(conn: Connect, vm: Vm) -> list[Refusal]:
    if not checks.comparable_cpu(vm):
        return []
    where = (vm.emulator or None, vm.arch, vm.machine or None, vm.virt_type)
    if vm.virt_type != "kvm":
        capabilities = conn.getDomainCapabilities(*where, 0)
        unknown = checks.against_cpu_model(vm, capabilities)
        if unknown or checks.gives_all_of(vm, capabilities):
            return unknown
    try:
        flags = libvirt.VIR_CONNECT_COMPARE_CPU_FAIL_INCOMPATIBLE
        conn.compareHypervisorCPU(*where, vm.cpu_xml, flags)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_CPU_INCOMPATIBLE:
            raise
        missing = lacking(conn, where, vm.cpu_xml)
        return [checks.cpu_refused(in_words(error.get_error_message(), missing))]
    return []
