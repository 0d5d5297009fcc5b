"""Looks, for as long as a run lasts, for guests that run twice (SPEC invariant 1). Independent of Sterna.

The two witnesses of tests/chaos/watcher.py, for many guests at once. Both libvirtds, with one connection each: if
the first says `running` before and after the second says it, and soon, both run at once. And the kernel: two QEMUs
of one guest whose vCPUs both gain time in two windows in a row. Each is a thread: a libvirtd that hangs blinds the
first only.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import libvirt

from sterna.lab.host import LabHost

EVERY_S = 0.02
WINDOW_S = 0.1
FIND_S = 0.5
SPAN_S = 0.5
"""Longest time between the first and the last of three answers that prove two copies: in longer a guest could have
moved there and back."""
SKEW_S = 0.005
"""Longest time between two looks at CPU times that are taken for one moment."""
WORKED_NS = 3_000_000
END_S = 5.0

Report = Callable[[str], None]


class Watcher:
    """Two threads. `report` is called with each thing seen, `looks` counts how often both libvirtds answered."""

    def __init__(self, hosts: Mapping[str, LabHost], guests: Sequence[str], report: Report) -> None:
        self._libvirts = [_Libvirt(name, host) for name, host in hosts.items()]
        self._kernel = _Kernel(hosts, guests)
        self._report = report
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=target, name=f"watch {target.__name__}", daemon=True)
            for target in (self._ask_libvirt, self._look_at_cpus)
        ]
        self.looks = self.windows = 0

    def __enter__(self) -> Watcher:
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
        first, second = self._libvirts
        while not self._stop.wait(EVERY_S):
            began = time.monotonic()
            here, there = first.running(), second.running()
            if here is None or there is None:
                continue
            self.looks += 1
            both = here & there
            again = first.running() if both else None
            if again is not None and time.monotonic() - began < SPAN_S:
                for guest in sorted(both & again):
                    self._report(f"libvirt says that {guest} runs on {first.name} and {second.name}")
        for eye in self._libvirts:
            eye.close()

    def _look_at_cpus(self) -> None:
        before: set[str] = set()
        while not self._stop.wait(WINDOW_S):
            worked = self._kernel.both_worked()
            self.windows += 1
            for guest in sorted(worked & before):
                self._report(f"the vCPUs of two QEMUs of {guest} work at once")
            before = worked


class _Libvirt:
    """One host's libvirtd, through its own socket."""

    def __init__(self, name: str, host: LabHost) -> None:
        self.name = name
        socket = f"/proc/{host.inside.init.pid}/root/run/libvirt/libvirt-sock"
        self._uri = f"qemu:///system?socket={socket}"
        self._connection: Any = None

    def running(self) -> set[str] | None:
        """The guests that it says run; None where it cannot be asked."""
        try:
            if self._connection is None:
                self._connection = libvirt.open(self._uri)
            found = self._connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_RUNNING)
            return {domain.name() for domain in found}
        except libvirt.libvirtError:
            self.close()
            return None

    def close(self) -> None:
        """Until it is asked again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(libvirt.libvirtError):
                connection.close()


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
                used = int(path.read_text().split()[0])
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
                if name in found and (vcpu := _vcpu(pid)) is not None:
                    found[name][pid] = vcpu
        return found


def _vcpu(pid: int) -> Path | None:
    with suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            thread = Path(f"/proc/{pid}/task/{task}")
            if thread.joinpath("comm").read_text().startswith("CPU 0/"):
                return thread / "schedstat"
    return None
