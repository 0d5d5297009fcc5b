"""Looks, for as long as a run lasts, for guests that run twice (protocol, invariant 1). Independent of Sterna.

The two witnesses of tests/chaos/watcher.py, for many guests at once. Both libvirtds, with one connection each: if
the first says `running` before and after the second says it, and soon, both run at once. And the kernel: two QEMUs
of one guest whose vCPUs both gain time in three windows in a row. Each is a thread: a libvirtd that hangs blinds
the first only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import libvirt

from sterna.lab.host import LabHost
from tests.witnesses import WORKED_NS, LibvirtEye, Row, Witnesses, used_ns, vcpu_of

FIND_S = 0.5
SPAN_S = 0.5
"""Longest time between the first and the last of three answers that prove two copies: in longer a guest could have
moved there and back."""
SKEW_S = 0.005
"""Longest time between two looks at CPU times that are taken for one moment."""

Report = Callable[[str], None]


class Watcher(Witnesses):
    """`report` is called with each thing seen, `looks` counts how often both libvirtds answered."""

    def __init__(self, hosts: Mapping[str, LabHost], guests: Sequence[str], report: Report) -> None:
        self._libvirts = [_Libvirt(name, host) for name, host in hosts.items()]
        self._kernel = _Kernel(hosts, guests)
        self._report = report
        self._row = Row()
        super().__init__("all guests", list(self._libvirts))
        self.looks = self.windows = 0

    def ask_libvirts(self) -> None:
        """Both, and the first again about what both say that it runs."""
        first, second = self._libvirts
        began = time.monotonic()
        here, there = first.running(), second.running()
        if here is None or there is None:
            return
        self.looks += 1
        both = here & there
        again = first.running() if both else None
        if again is not None and time.monotonic() - began < SPAN_S:
            for guest in sorted(both & again):
                self._report(f"libvirt says that {guest} runs on {first.name} and {second.name}")

    def look_at_cpus(self) -> None:
        """All vCPUs, in this window and those before."""
        worked = self._kernel.both_worked()
        self.windows += 1
        for guest in self._row.side_by_side(worked):
            self._report(f"the vCPUs of two QEMUs of {guest} work at once")


class _Libvirt(LibvirtEye):
    """One host's libvirtd, about all guests."""

    def running(self) -> set[str] | None:
        """The guests that it says run; None where it cannot be asked."""
        return self.ask(_running)


def _running(connection: Any) -> set[str]:
    return {domain.name() for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_RUNNING)}


class _Kernel:
    """The vCPU threads of all guests' QEMUs on both hosts, through /proc."""

    def __init__(self, hosts: Mapping[str, LabHost], guests: Sequence[str]) -> None:
        self._hosts, self._guests = hosts, guests
        self._vcpus: dict[str, dict[int, Path]] = {}
        """Guest -> its QEMUs' PIDs and their vCPU threads."""
        self._used: dict[Path, int] = {}
        self._found = 0.0

    def both_worked(self) -> set[str]:
        """The guests of whom two QEMUs' vCPUs have run since this was asked last."""
        if time.monotonic() - self._found > FIND_S:
            self._vcpus, self._found = self._find(), time.monotonic()
        return {guest for guest, vcpus in self._vcpus.items() if len(vcpus) > 1 and self._worked(vcpus.values())}

    def _worked(self, vcpus: Any) -> bool:
        began, gained = time.monotonic(), []
        for path in vcpus:
            try:
                used = used_ns(path)
            except (OSError, ValueError, IndexError):
                used = 0
            gained.append(used - self._used.get(path, used))
            self._used[path] = used
        at_once = time.monotonic() - began < SKEW_S
        return at_once and sum(each > WORKED_NS for each in gained) > 1

    def _find(self) -> dict[str, dict[int, Path]]:
        found: dict[str, dict[int, Path]] = {guest: {} for guest in self._guests}
        for host in self._hosts.values():
            for pid, argv in host.inside.processes():
                if "qemu-system" not in argv[0] or "-name" not in argv:
                    continue
                name = argv[argv.index("-name") + 1].removeprefix("guest=").partition(",")[0]
                if name in found and (vcpu := vcpu_of(pid)) is not None:
                    found[name][pid] = vcpu
        return found
