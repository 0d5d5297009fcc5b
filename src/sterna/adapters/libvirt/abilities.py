"""What this host can do for a copy (`domain.model.Abilities`): asked of the kernel, QEMU, and libvirt's files."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import threading
import time
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from sterna.adapters.libvirt.qemu import certificates, recovery
from sterna.adapters.libvirt.qemu.conf import QEMU_CONF, list_of
from sterna.adapters.libvirt.xml.metadata import Element
from sterna.domain.errors import Temporary
from sterna.domain.model import Abilities
from sterna.kit.mounts import on_disk
from sterna.kit.threads import in_thread

_ASK_QEMU_S = 20.0
"""QEMU starts in a tenth of a second; on a host that swaps, in some."""
_LOOK_S = 1.0
"""A look at a file takes microseconds. On a dead NFS server it never ends."""
_HUGEPAGES_SINCE = (4, 11)
"""The kernel whose userfaultfd serves hugetlbfs."""
_DAEMONS = ("/run/libvirtd.pid", "/run/libvirt/libvirtd.pid", "/run/virtqemud.pid")
"""Where whoever starts guests leaves its process id; monolithic or modular."""
_CAP_SYS_RESOURCE = 24
_DEVICE = Path("/dev/userfaultfd")
_ASK = b'{"execute": "qmp_capabilities"}\n{"execute": "query-qmp-schema"}\n'
"""Without a `quit`: QEMU obeys it before all of its schema is out."""


class Versions(NamedTuple):
    """As libvirt counts them: 10.1.0 is 10_001_000."""

    libvirt: int
    qemu: int


async def read(capabilities: Element, versions: Versions, *, privileged: bool, settings: Abilities) -> Abilities:
    """This host's; `settings` says what nobody can be asked: the link, and how memory is to travel.

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
            "zstd": await _has_zstd(emulator) if emulator else None,
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


def _kernel() -> tuple[int, int]:
    major, minor = platform.release().split(".")[:2]
    return int(major), int("".join(c for c in minor if c.isdigit()) or 0)


async def _has_certificates() -> bool:
    told = certificates.of_migration()
    try:
        return not await on_disk(lambda: told.missing, str(told.folder), limit_s=_LOOK_S)
    except Temporary:
        return False


async def _has_zstd(emulator: str) -> bool | None:
    """None where QEMU does not say."""
    try:
        changed = await on_disk(lambda: os.stat(emulator).st_mtime, emulator, limit_s=_LOOK_S)
    except (OSError, Temporary):
        return None
    try:
        ask = partial(_ask_for_zstd, emulator, changed)
        return await in_thread(ask, name="sterna-ask-qemu", limit_s=2 * _ASK_QEMU_S)
    except (OSError, ValueError):
        return None


@lru_cache(maxsize=8)
def _ask_for_zstd(emulator: str, _changed: float) -> bool | None:
    """Once per binary, also where it hangs (None): this host's facts must not take as long every time. Raises
    OSError, ValueError where it ends without a word: it is asked again the next time."""
    try:
        schema = _schema(emulator)
    except TimeoutError:
        return None
    # the multifd compression: names of types are numbers there, so it is known by its members
    choices = [set(e.get("values", ())) for e in schema if e.get("meta-type") == "enum"]
    return any({"none", "zlib", "zstd"} <= values for values in choices)


def _schema(emulator: str) -> list[dict[str, Any]]:
    """Its own QMP schema, of a QEMU without a machine. Raises TimeoutError where it hangs, OSError, ValueError."""
    argv = [emulator, "-machine", "none", "-nodefaults", "-display", "none", "-S", "-qmp", "stdio"]
    pipe, none = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=none, bufsize=0) as qemu:
        assert qemu.stdin is not None
        assert qemu.stdout is not None
        deadline = time.monotonic() + _ASK_QEMU_S
        late = threading.Timer(_ASK_QEMU_S, qemu.kill)
        late.start()
        try:
            qemu.stdin.write(_ASK)
            with open(qemu.stdout.fileno(), "rb", closefd=False) as said:
                for line in said:
                    answer = json.loads(line).get("return")
                    if isinstance(answer, list):
                        return answer
        finally:
            late.cancel()
            qemu.kill()
    if time.monotonic() >= deadline:
        raise TimeoutError(f"{emulator} gave no schema within {_ASK_QEMU_S:g} s")
    raise ValueError(f"{emulator} ended without its schema")
