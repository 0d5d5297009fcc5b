"""Two witnesses of guests that run twice (protocol, invariant 1), independent of Sterna: the base of the watchers
of `make chaos` and `make soak`.

Both hosts' libvirtds; and the kernel, which needs no libvirtd alive: the CPU time of each QEMU's vCPU. Neither
sees everything, and each is a thread of its own: a libvirtd that hangs holds up the first and not the second.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import libvirt

from sterna.lab.host import LabHost

EVERY_S = 0.02
"""Between two looks at both libvirtds."""
WINDOW_S = 0.1
"""Between two looks at the CPU times."""
END_S = 5.0
WORKED_NS = 3_000_000
"""CPU time in a window above which a vCPU has run: a waiting QEMU's gains less, the lab's guest 10 ms and more."""
IN_A_ROW = 3
"""Windows in which both vCPUs must have run. In one, the source's stopped and the destination's began; in the next
one, the source's QEMU was torn down, which costs its vCPU 3 ms (docs/lab-notebook/field-notes.md)."""

T = TypeVar("T")


class Row:
    """How many windows in a row each guest's two vCPUs have both run in."""

    def __init__(self) -> None:
        self._windows: dict[str, int] = {}

    def side_by_side(self, worked: Iterable[str]) -> list[str]:
        """Those that have in as many as prove it. `worked`: whose vCPUs both ran in the latest one."""
        self._windows = {guest: self._windows.get(guest, 0) + 1 for guest in worked}
        return sorted(guest for guest, windows in self._windows.items() if windows >= IN_A_ROW)


class Witnesses:
    """The two threads: `ask_libvirts` is called every EVERY_S, `look_at_cpus` every WINDOW_S, until the end."""

    def __init__(self, name: str, libvirts: list[LibvirtEye]) -> None:
        self._eyes = libvirts
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=target, name=f"watch {name}", daemon=True)
            for target in (self._libvirt_thread, self._kernel_thread)
        ]

    def ask_libvirts(self) -> None:
        """One look at both libvirtds."""
        raise NotImplementedError

    def look_at_cpus(self) -> None:
        """One look at the CPU times."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        libvirt.registerErrorHandler(lambda _context, _error: None, None)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(END_S)  # one that asks a libvirtd which still hangs ends with the lab

    def _libvirt_thread(self) -> None:
        while not self._stop.wait(EVERY_S):
            self.ask_libvirts()
        for eye in self._eyes:
            eye.close()

    def _kernel_thread(self) -> None:
        while not self._stop.wait(WINDOW_S):
            self.look_at_cpus()


class LibvirtEye:
    """One host's libvirtd, through its own socket."""

    def __init__(self, name: str, host: LabHost) -> None:
        self.name = name
        socket = f"/proc/{host.inside.init.pid}/root/run/libvirt/libvirt-sock"
        self._uri = f"qemu:///system?socket={socket}"
        self._connection: Any = None

    def ask(self, what: Callable[[Any], T], *, without: T | None = None) -> T | None:
        """What it answers; `without` where the guest does not exist there; None where it cannot be asked."""
        try:
            if self._connection is None:
                self._connection = libvirt.open(self._uri)
            return what(self._connection)
        except libvirt.libvirtError as error:
            if without is not None and error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return without
            self.close()
            return None

    def close(self) -> None:
        """Until it is asked again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(libvirt.libvirtError):
                connection.close()


def vcpu_of(pid: int) -> Path | None:
    """Where the kernel keeps the times of a QEMU's first vCPU."""
    with suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            thread = Path(f"/proc/{pid}/task/{task}")
            if thread.joinpath("comm").read_text().startswith("CPU 0/"):
                return thread / "schedstat"
    return None


def used_ns(vcpu: Path) -> int:
    """CPU time it has had. Raises OSError, ValueError, IndexError where it has ended."""
    return int(vcpu.read_text().split()[0])
