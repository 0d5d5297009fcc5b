"""What this host can do for a copy (`domain.hosts.Abilities`): asked of the kernel, QEMU, and libvirt's files."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import NamedTuple

from sterna.adapters.libvirt.qemu import certificates, recovery
from sterna.adapters.libvirt.qemu.conf import QEMU_CONF, list_of, settings_of
from sterna.adapters.libvirt.qemu.schema import Schemas
from sterna.adapters.libvirt.xml.metadata import Element
from sterna.domain.errors import Temporary
from sterna.domain.hosts import Abilities
from sterna.kit.mounts import on_disk

_LOOK_S = 1.0
"""A look at a file takes microseconds. On a dead NFS server it never ends."""
_HUGEPAGES_SINCE = (4, 11)
"""The kernel whose userfaultfd serves hugetlbfs."""
_DAEMONS = ("/run/libvirtd.pid", "/run/libvirt/libvirtd.pid", "/run/virtqemud.pid")
"""The process id files of the daemon that starts guests: monolithic or modular."""
_CAP_SYS_RESOURCE = 24
_DEVICE = Path("/dev/userfaultfd")


class Versions(NamedTuple):
    """As libvirt counts them: 10.1.0 is 10_001_000."""

    libvirt: int
    qemu: int


async def read(
    capabilities: Element, versions: Versions, schemas: Schemas, *, privileged: bool, settings: Abilities
) -> Abilities:
    """This host's. `settings` has what cannot be detected: the link, and how memory is to travel.

    `capabilities`: libvirt's. `privileged`: it is the system's libvirtd.
    """
    emulator = capabilities.findtext("guest/arch[@name='x86_64']/emulator") or capabilities.findtext(
        "guest/arch/emulator"
    )
    return settings.model_copy(
        update={
            "userfaultfd": may_handle_faults(capabilities, versions),
            "userfaultfd_hugepages": _kernel() >= _HUGEPAGES_SINCE,
            "tls": await _has_certificates(),
            "insecure": settings.insecure and not tls_is_forced(),
            "zstd": await schemas.has_zstd(emulator) if emulator else None,
            "locked_memory": _may_raise_limits() if privileged else None,
        }
    )


def _may_raise_limits() -> bool | None:
    """May libvirtd raise QEMU's memory lock limit, as it does for zero-copy? Root in a container often may not."""
    for place in _DAEMONS:
        try:
            pid = int(Path(place).read_text())
            status = Path(f"/proc/{pid}/status").read_text()
        except (OSError, ValueError):
            continue
        capabilities = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
        return bool(int(capabilities, 16) >> _CAP_SYS_RESOURCE & 1)
    return None


def may_handle_faults(capabilities: Element, versions: Versions, conf: Path = QEMU_CONF) -> bool:
    """May QEMU, as the user libvirt starts it as, handle page faults? By the sysctl, as root, or by the device.

    libvirt hands /dev/userfaultfd over since 10.1, unless `qemu.conf` lists a guest's devices without it, and QEMU
    opens it since 8.0.
    """
    switch = Path("/proc/sys/vm/unprivileged_userfaultfd")
    if (switch.exists() and switch.read_text().strip() == "1") or recovery.qemu_runs_as_root(capabilities):
        return True
    return _DEVICE.exists() and opens_device(versions, conf.read_text() if os.access(conf, os.R_OK) else "")


def opens_device(versions: Versions, conf: str) -> bool:
    """Does a guest's QEMU get the device, and use it? Pure."""
    listed = list_of(conf, "cgroup_device_acl")
    new = versions.libvirt >= 10_001_000 and versions.qemu >= 8_000_000
    return new and (listed is None or str(_DEVICE) in listed)


def tls_is_forced(conf: Path = QEMU_CONF) -> bool:
    """Does libvirt here refuse a stream without TLS (`migrate_tls_force`)?"""
    return settings_of(conf).get("migrate_tls_force", "0") == "1"


def _kernel() -> tuple[int, int]:
    major, minor = platform.release().split(".")[:2]
    return int(major), int("".join(c for c in minor if c.isdigit()) or 0)


async def _has_certificates() -> bool:
    folder = certificates.of_migration()
    try:
        return not await on_disk(lambda: folder.missing, str(folder.folder), limit_s=_LOOK_S)
    except Temporary:
        return False
