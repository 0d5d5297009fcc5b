"""Judges a run by what was true, with none of the product's code: `truth.py` has written every change.

each VM runs in one place at a time, and at the end exactly once, except where its host lost power
no host is filled beyond its memory, no two VMs of a group are on one host: at every instant
nothing comes to a closed host; no host is restarted with VMs on it
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from bench.fleetsim.made import Made
from bench.fleetsim.truth import Fact, What

MAINTENANCE = "maintenance"
"""Why a host that is restarted on purpose loses power; other losses are the scenario's faults."""


@dataclass(frozen=True)
class Closed:
    """A host that the controllers have said to be closed."""

    host: str
    from_s: float
    to_s: float
    """Infinite: to the end."""


@dataclass
class Finding:
    """What an auditor reads."""

    violations: list[str] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    """VMs whose host lost power, as the scenario wanted."""
    moved: dict[str, int] = field(default_factory=dict)
    """VM -> how often it went on on another host."""
    fullest: float = 0.0
    """The largest share of its memory that a host had given away."""


class _Auditor:
    def __init__(self, made: Made, closed: Sequence[Closed]) -> None:
        self.made, self.found = made, Finding()
        self.closed: dict[str, list[Closed]] = defaultdict(list)
        for one in closed:
            self.closed[one.host].append(one)
        self.groups: dict[str, list[str]] = defaultdict(list)
        for name, vms in made.apart.items():
            for vm in vms:
                self.groups[vm].append(name)
        self.inside: dict[str, set[str]] = defaultdict(set)
        self.bytes_on: dict[str, int] = defaultdict(int)
        self.runs: dict[str, set[str]] = defaultdict(set)
        self.last_on: dict[str, str] = {}
        self.first_s = 0.0

    def wrong(self, at_s: float, what: str) -> None:
        self.found.violations.append(f"at {at_s - self.first_s:.1f} s: {what}")

    def name(self, vm: str) -> str:
        return self.made.vms[vm].name

    def see(self, fact: Fact) -> None:
        """One change after the other."""
        by_kind = {
            What.HOLDS: self._holds,
            What.FREES: self._frees,
            What.RUNS: self._runs,
            What.STOPS: self._stops,
            What.OFF: self._off,
            What.ON: self._on,
        }
        by_kind[fact.what](fact)

    def _holds(self, fact: Fact) -> None:
        host, vm = fact.host, fact.vm
        if vm in self.inside[host]:
            self.wrong(fact.at_s, f"{host} has two QEMUs of {self.name(vm)}")
            return
        self.inside[host].add(vm)
        self.bytes_on[host] += self.made.vms[vm].memory_bytes
        memory = self.made.hosts[host].memory_bytes
        self.found.fullest = max(self.found.fullest, self.bytes_on[host] / memory)
        if self.bytes_on[host] > memory:
            self.wrong(fact.at_s, f"{host} is over its memory with {self.name(vm)}")
        for name in self.groups[vm]:
            others = sorted(self.name(one) for one in self.made.apart[name] & self.inside[host] if one != vm)
            if others:
                self.wrong(fact.at_s, f"{self.name(vm)} is on {host} with {', '.join(others)}, against {name}")
        for one in self.closed[host]:
            if one.from_s <= fact.at_s < one.to_s:
                self.wrong(fact.at_s, f"{self.name(vm)} came to {host}, which is closed")

    def _frees(self, fact: Fact) -> None:
        if fact.vm not in self.inside[fact.host]:
            self.wrong(fact.at_s, f"{fact.host} frees {self.name(fact.vm)}, which it does not have")
            return
        self.inside[fact.host].remove(fact.vm)
        self.bytes_on[fact.host] -= self.made.vms[fact.vm].memory_bytes

    def _runs(self, fact: Fact) -> None:
        vm, host = fact.vm, fact.host
        if self.runs[vm]:
            self.wrong(fact.at_s, f"{self.name(vm)} runs on {host} and {', '.join(sorted(self.runs[vm]))}")
        if vm not in self.inside[host]:
            self.wrong(fact.at_s, f"{self.name(vm)} runs on {host}, which has no memory for it")
        if self.last_on.get(vm, host) != host:
            self.found.moved[vm] = self.found.moved.get(vm, 0) + 1
        self.last_on[vm] = host
        self.runs[vm].add(host)

    def _stops(self, fact: Fact) -> None:
        self.runs[fact.vm].discard(fact.host)

    def _off(self, fact: Fact) -> None:
        here = [vm for vm in self.inside[fact.host] if fact.host in self.runs[vm]]
        self.found.lost.update(here)
        if fact.why == MAINTENANCE:
            for vm in sorted(here):
                self.wrong(fact.at_s, f"{fact.host} was restarted with {self.name(vm)} on it")

    def _on(self, fact: Fact) -> None:
        """Nothing runs there by that."""

    def end(self) -> Finding:
        """What is left."""
        for vm in self.made.vms.values():
            if vm.uuid not in self.found.lost and len(self.runs[vm.uuid]) != 1:
                where = ", ".join(sorted(self.runs[vm.uuid])) or "nowhere"
                self.found.violations.append(f"at the end {vm.name} runs on: {where}")
        for host, inside in self.inside.items():
            for uuid in sorted(inside):
                if host not in self.runs[uuid]:
                    self.found.violations.append(f"at the end {host} has a QEMU of {self.name(uuid)} left over")
        return self.found


def audit(made: Made, facts: Sequence[Fact], closed: Sequence[Closed] = ()) -> Finding:
    """All that is wrong with a run."""
    auditor = _Auditor(made, closed)
    auditor.first_s = facts[0].at_s if facts else 0.0
    for fact in facts:
        auditor.see(fact)
    return auditor.end()


def left_on(made: Made, facts: Sequence[Fact], hosts: Collection[str]) -> list[str]:
    """Names of VMs that run on these hosts at the end."""
    runs: dict[str, str] = {}
    for fact in facts:
        if fact.what is What.RUNS:
            runs[fact.vm] = fact.host
        elif fact.what is What.STOPS and runs.get(fact.vm) == fact.host:
            del runs[fact.vm]
    return sorted(made.vms[vm].name for vm, host in runs.items() if host in hosts)


def least_s(made: Made, hosts: Collection[str]) -> float:
    """No drain of these hosts ends sooner: the fullest link out, and what the open links take in together."""
    leaving = [vm for vm in made.vms.values() if vm.host in hosts]
    out: dict[str, float] = defaultdict(float)
    for vm in leaving:
        out[vm.host] += vm.memory_bytes / made.hosts[vm.host].link_bytes_s
    taking = sum(host.link_bytes_s for host in made.hosts.values() if host.name not in hosts)
    total = sum(vm.memory_bytes for vm in leaving)
    return max([*out.values(), total / taking if taking else 0.0])
