"""Watches, while a case lasts, that a guest never runs twice (protocol, invariant 1). Independent of Sterna.

Two witnesses, as neither sees everything, each in a thread of its own: a libvirtd that hangs holds up the first and
not the second. Both hosts' libvirtd, asked every 20 ms: if the first host says `running` before and after the
second says it, both run at once. And the kernel, which needs no libvirtd alive: the CPU time of each QEMU's vCPU
thread, every 100 ms; the guest works all the time, so two QEMUs whose vCPUs both gain time in three windows in a
row run side by side.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import libvirt

from sterna.lab.host import LabHost
from tests.witnesses import EVERY_S, WORKED_NS, LibvirtEye, Row, Witnesses, used_ns, vcpu_of

FIND_EVERY = 4
"""Windows: looking for a QEMU among all processes is dear, and an incoming one does not run at once."""


class TwoCopies(Witnesses):
    """`violations` says what was seen, `looks` how often both hosts answered."""

    def __init__(self, hosts: Mapping[str, LabHost], guest: str, uuid: str) -> None:
        self._libvirts = [_Libvirt(name, host, uuid) for name, host in hosts.items()]
        self._kernels = [_Kernel(name, host, guest) for name, host in hosts.items()]
        self._lock = threading.Lock()
        super().__init__(guest, list(self._libvirts))
        self.violations: list[str] = []
        self.looks = 0
        self._first = self._last = 0.0
        self._row = Row()

    def ask_libvirts(self) -> None:
        """Both libvirtds, and the first again where both say that it runs."""
        answers = [eye.runs() for eye in self._libvirts]
        if None not in answers:
            self.looks += 1
        running = [eye for eye, runs in zip(self._libvirts, answers, strict=True) if runs]
        if len(running) > 1 and running[0].runs():
            self._saw(f"libvirt says that it runs on {' and '.join(eye.name for eye in running)}")

    def look_at_cpus(self) -> None:
        """Both QEMUs' vCPUs, in this window and those before."""
        worked = [eye.name for eye in self._kernels if eye.worked()]
        if self._row.side_by_side(["both"] if len(worked) > 1 else []):
            self._saw(f"the vCPUs of two QEMUs work at once, on {' and '.join(worked)}")

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


class _Libvirt(LibvirtEye):
    """One host's libvirtd, about one guest."""

    def __init__(self, name: str, host: LabHost, uuid: str) -> None:
        super().__init__(name, host)
        self._uuid = uuid

    def runs(self) -> bool | None:
        """What libvirtd says; None where it cannot be asked."""
        return self.ask(self._runs, without=False)

    def _runs(self, connection: Any) -> bool:
        return bool(connection.lookupByUUIDString(self._uuid).state()[0] == libvirt.VIR_DOMAIN_RUNNING)


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
                used = used_ns(self._vcpu)
            except (OSError, ValueError, IndexError):
                self._vcpu = None
            else:
                gained, self._used = used - self._used, used
                return gained > WORKED_NS
        self._asked += 1
        self._vcpu = self._find() if self._asked % FIND_EVERY == 0 else None
        if self._vcpu is not None:
            with suppress(OSError, ValueError, IndexError):
                self._used = used_ns(self._vcpu)
        return False

    def _find(self) -> Path | None:
        for pid, argv in self._host.inside.processes():
            ours = "qemu-system" in argv[0] and any(f"guest={self._guest}," in word for word in argv)
            if ours and (vcpu := vcpu_of(pid)) is not None:
                return vcpu
        return None
