"""What is true in a simulated fleet: which host holds memory for which VM, where it runs, and every change of that.

It prevents nothing. A host that is filled beyond its memory, or a VM that runs twice, is written down as any other
change, and `audit.py` finds it.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

from bench.fleetsim.made import Made


class What(StrEnum):
    """A kind of change."""

    HOLDS = "holds"
    """The host has a QEMU for the VM, with all of its memory."""
    FREES = "frees"
    RUNS = "runs"
    STOPS = "stops"
    OFF = "off"
    """The host has no power."""
    ON = "on"


class Fact(NamedTuple):
    """One change."""

    at_s: float
    what: What
    host: str
    vm: str = ""
    """UUID; '' where it is about a host."""
    why: str = ""


class Truth:
    """One fleet."""

    def __init__(self, made: Made, now_s: Callable[[], float]) -> None:
        self.made, self._now_s = made, now_s
        self.facts: list[Fact] = []
        self.runs_on: dict[str, str] = {}
        """VM -> host. A VM that does not run is not here."""
        self.holds: dict[str, set[str]] = {name: set() for name in made.hosts}
        self.defined: dict[str, set[str]] = {name: set() for name in made.hosts}
        """Host -> VMs that libvirt knows there, running or not."""
        self.off: set[str] = set()
        for vm in made.vms.values():
            self.receive(vm.host, vm.uuid, "it was here")
            self._change(What.RUNS, vm.host, vm.uuid)
            self.runs_on[vm.uuid] = vm.host

    def _change(self, what: What, host: str, vm: str = "", why: str = "") -> None:
        self.facts.append(Fact(self._now_s(), what, host, vm, why))

    def free_bytes(self, host: str) -> int:
        """Memory that no QEMU has."""
        made = self.made
        return made.hosts[host].memory_bytes - sum(made.vms[vm].memory_bytes for vm in self.holds[host])

    def receive(self, host: str, vm: str, why: str = "") -> None:
        """A QEMU for the VM begins there, and waits."""
        self.holds[host].add(vm)
        self.defined[host].add(vm)
        self._change(What.HOLDS, host, vm, why)

    def hand_over(self, vm: str, source: str, target: str) -> None:
        """The guest goes on at the target. The source's QEMU has no vCPU running any more."""
        if self.runs_on.get(vm) == source:
            self._change(What.STOPS, source, vm, "handed over")
        self._change(What.RUNS, target, vm, "handed over")
        self.runs_on[vm] = target

    def release(self, host: str, vm: str, why: str = "") -> None:
        """The host's QEMU for the VM ends. Where the guest ran in it, it is lost."""
        if self.runs_on.get(vm) == host:
            del self.runs_on[vm]
            self._change(What.STOPS, host, vm, why)
        if vm in self.holds[host]:
            self.holds[host].remove(vm)
            self._change(What.FREES, host, vm, why)

    def forget(self, host: str, vm: str) -> None:
        """Neither QEMU nor definition is left there."""
        self.release(host, vm, "removed")
        self.defined[host].discard(vm)

    def power_off(self, host: str, why: str) -> None:
        """All that runs there is lost. Definitions are on disk, those of guests that only waited are not."""
        self._change(What.OFF, host, why=why)
        self.off.add(host)
        for vm in sorted(self.holds[host]):
            ran = self.runs_on.get(vm) == host
            self.release(host, vm, why)
            if not ran:
                self.defined[host].discard(vm)

    def power_on(self, host: str) -> None:
        """No guest is started."""
        self.off.discard(host)
        self._change(What.ON, host)
