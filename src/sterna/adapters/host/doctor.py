"""What the doctor looks at in the kernel and on the disks of this host. Changes nothing, needs no privileges."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from sterna.adapters.host.addresses import named_addresses
from sterna.domain.errors import SternaError
from sterna.domain.model import Data
from sterna.kit.mounts import on_disk
from sterna.kit.names import resolved
from sterna.kit.threads import in_thread
from sterna.ports.doctor import Part

LOOK_S = 5.0
_UNSYNCHRONISED, _ERROR = 0x40, 5
"""STA_UNSYNC, TIME_ERROR of adjtimex(2)."""
_MADE_BY_LIBVIRT = ("virbr", "qbr", "docker", "podman", "cni")
"""Bridges that programs make for themselves."""
_TIMEX_BYTES = 512
"""More than struct timex has; the kernel writes its own size."""


class KernelLooks:
    """Of one host. `system`: its root folder, another one in tests."""

    def __init__(self, address: str, state_dir: Path, instances_dir: Path, *, system: Path = Path("/")) -> None:
        self._address, self._state_dir, self._instances_dir = address, state_dir, instances_dir
        self._system = system

    def parts(self) -> tuple[Part, ...]:
        """All of it."""
        kernel = partial(in_thread, self.kernel, name="sterna-doctor", limit_s=LOOK_S)
        return (
            Part("the kernel", kernel),
            Part("its migration address", self.address),
            Part("state_dir", partial(on_disk, self.state, str(self._state_dir), limit_s=LOOK_S)),
            Part("instances_dir", partial(on_disk, self.instances, str(self._instances_dir), limit_s=LOOK_S)),
        )

    def kernel(self) -> Data:
        """Clock, huge pages, bridges, AppArmor."""
        return {
            "clock_synchronised": synchronised(),
            "huge_pages": dict(self._huge_pages()),
            "bridges": tuple(sorted(self._bridges())),
            "apparmor": self._text("sys/module/apparmor/parameters/enabled") == "Y",
        }

    async def address(self) -> Data:
        """Is the migration address one of this host's, and with which MTU?"""
        found: Data = {"address": self._address}
        try:
            numeric = (await resolved(self._address, setting="`address` of [migration]"))[0]
        except SternaError as error:
            return found | {"address_error": error.message}
        if numeric.is_loopback:
            return found | {"address_error": f"{numeric} means each host itself"}
        return found | await in_thread(lambda: self._device_of(str(numeric)), name="sterna-doctor", limit_s=LOOK_S)

    def state(self) -> Data:
        """Room for the journal. Raises OSError."""
        found: Data = {"state_dir": str(self._state_dir)}
        try:
            return found | {"state_free_bytes": _free(self._state_dir)}
        except OSError as error:
            return found | {"state_error": f"{self._state_dir}: {error.strerror or error}"}

    def instances(self) -> Data:
        """Room for local disks. Raises OSError."""
        folder = self._instances_dir
        if not folder.is_dir():
            return {"instances_error": f"there is no folder {folder}"}
        return {"instances_free_bytes": _free(folder)}

    def _device_of(self, address: str) -> Data:
        devices = {str(one.ip): name for name, one in named_addresses()}
        if (device := devices.get(address)) is None:
            return {"address_is_own": False}
        mtu = self._text(f"sys/class/net/{device}/mtu")
        return {"address_is_own": True, "device": device, "mtu": int(mtu) if mtu.isdigit() else None}

    def _huge_pages(self) -> Iterator[tuple[int, int]]:
        folder = self._system / "sys/kernel/mm/hugepages"
        for size in sorted(folder.glob("hugepages-*kB")) if folder.is_dir() else ():
            number = (size / "nr_hugepages").read_text().strip()
            yield int(size.name.removeprefix("hugepages-").removesuffix("kB")) << 10, int(number)

    def _bridges(self) -> Iterator[str]:
        folder = self._system / "sys/class/net"
        for device in folder.iterdir() if folder.is_dir() else ():
            if (device / "bridge").is_dir() and not device.name.startswith(_MADE_BY_LIBVIRT):
                yield device.name

    def _text(self, path: str) -> str:
        try:
            return (self._system / path).read_text().strip()
        except OSError:
            return ""


def _free(folder: Path) -> int:
    numbers = os.statvfs(folder)
    return (numbers.f_bavail if os.geteuid() else numbers.f_bfree) * numbers.f_frsize


def synchronised() -> bool | None:
    """Does something discipline this host's clock? By adjtimex(2), which any user may ask. None where it fails."""
    libc = ctypes.CDLL(None, use_errno=True)
    timex = (ctypes.c_char * _TIMEX_BYTES)()
    state = libc.adjtimex(timex)
    if state < 0:
        return None
    status = int.from_bytes(timex.raw[40:44], "little")
    return state != _ERROR and not status & _UNSYNCHRONISED
