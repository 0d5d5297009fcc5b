"""Watches, for as long as a case lasts, that a guest never runs twice (SPEC invariant 1). Independent of Sterna.

Two witnesses, as neither sees everything, each in a thread of its own: a libvirtd that hangs holds up the first and
not the second. Both hosts' libvirtd, asked every 20 ms: if the first host says `running` before and after the
second says it, both run at once. And the kernel, which needs no libvirtd alive: the CPU time of each QEMU's vCPU
thread, every 100 ms; the guest works all the time, so two QEMUs whose vCPUs both gain time in two windows in a row
run side by side. (In one window both may: one stopped in it, the other began.)
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import libvirt

from sterna.lab.host import LabHost

EVERY_S = 0.02
WINDOW_S = 0.1
FIND_EVERY = 4
"""Windows: looking for a QEMU among all processes is dear, and an incoming one does not run at once."""
END_S = 5.0
WORKED_NS = 3_000_000
"""CPU time in a window above which a vCPU has run: a waiting QEMU's gains less, the lab's guest 10 ms and more."""


class TwoCopies:
    """Two threads; `violations` says what was seen, `looks` how often both hosts answered."""

    def __init__(self, hosts: Mapping[str, LabHost], guest: str, uuid: str) -> None:
        self._libvirts = [_Libvirt(name, host, uuid) for name, host in hosts.items()]
        self._kernels = [_Kernel(name, host, guest) for name, host in hosts.items()]
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._threads = [
            threading.Thread(target=target, name=f"watch {guest}", daemon=True)
            for target in (self._ask_libvirt, self._look_at_cpus)
        ]
        self.violations: list[str] = []
        self.looks = 0
        self._first = self._last = 0.0

    def __enter__(self) -> TwoCopies:
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

    def _ask_libvirt(self) -> None:
        while not self._stop.wait(EVERY_S):
            answers = [eye.runs() for eye in self._libvirts]
            if None not in answers:
                self.looks += 1
            running = [eye for eye, runs in zip(self._libvirts, answers, strict=True) if runs]
            if len(running) > 1 and running[0].runs():
                self._saw(f"libvirt says that it runs on {' and '.join(eye.name for eye in running)}")
        for eye in self._libvirts:
            eye.close()

    def _look_at_cpus(self) -> None:
        both_worked = False
        while not self._stop.wait(WINDOW_S):
            worked = [eye.name for eye in self._kernels if eye.worked()]
            if len(worked) > 1 and both_worked:
                self._saw(f"the vCPUs of two QEMUs work at once, on {' and '.join(worked)}")
            both_worked = len(worked) > 1

    @property
    def together_ms(self) -> float:
        """From the first time that two copies were seen to the last, and a look's time; 0 if they never were."""
        return (self._last - self._first + EVERY_S) * 1000 if self.violations else 0.0

    def _saw(self, what: str) -> None:
        with self._lock:
            self._last = time.monotonic()
            self._first = self._first or self._last
            if what not in self.violations:
                self.violations.append(what)


class _Libvirt:
    """One host's libvirtd, through its own socket."""

    def __init__(self, name: str, host: LabHost, uuid: str) -> None:
        self.name, self._uuid = name, uuid
        socket = f"/proc/{host.inside.init.pid}/root/run/libvirt/libvirt-sock"
        self._uri = f"qemu:///system?socket={socket}"
        self._connection: Any = None

    def runs(self) -> bool | None:
        """What libvirtd says; None where it cannot be asked."""
        try:
            if self._connection is None:
                self._connection = libvirt.open(self._uri)
            return bool(self._connection.lookupByUUIDString(self._uuid).state()[0] == libvirt.VIR_DOMAIN_RUNNING)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return False
            self.close()
            return None

    def close(self) -> None:
        """Until it is asked again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(libvirt.libvirtError):
                connection.close()


class _Kernel:
    """One host's QEMU, through /proc."""

    def __init__(self, name: str, host: LabHost, guest: str) -> None:
        self.name, self._host, self._guest = name, host, guest
        self._vcpu: Path | None = None
        self._used = 0
        self._asked = 0

    def worked(self) -> bool:
        """Has the vCPU of this host's QEMU run since the last time this was asked?"""
        if self._vcpu is not None:
            try:
                used = int(self._vcpu.read_text().split()[0])
            except (OSError, ValueError, IndexError):
                self._vcpu = None
            else:
                gained, self._used = used - self._used, used
                return gained > WORKED_NS
        self._asked += 1
        self._vcpu = self._find() if self._asked % FIND_EVERY == 0 else None
        if self._vcpu is not None:
            with suppress(OSError, ValueError, IndexError):
                self._used = int(self._vcpu.read_text().split()[0])
        return False

    def _find(self) -> Path | None:
        for pid, argv in self._host.inside.processes():
            if "qemu-system" in argv[0] and any(f"guest={self._guest}," in word for word in argv):
                with suppress(OSError):
                    for task in os.listdir(f"/proc/{pid}/task"):
                        thread = Path(f"/proc/{pid}/task/{task}")
                        if thread.joinpath("comm").read_text().startswith("CPU 0/"):
                            return thread / "schedstat"
        return None
