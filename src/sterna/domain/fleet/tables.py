"""A snapshot as numbers: hosts and VMs by index, VMs grouped by shape, each shape's hosts found once.

Sorted by name and UUID, so that the order in a snapshot does not matter. What is here does not change while a plan
is made; `board.py` holds what does.
"""

from __future__ import annotations

from collections.abc import Iterable

from sterna.domain.fleet.snapshot import Apart, Host, Scope, Snapshot, Vm, huge

Amounts = tuple[tuple[int, int], ...]
"""(dimension, amount) of what else a VM takes."""
SCARCE = 0.3
"""Penalty, in shares of a host, for a place that few can use: a newer CPU, a network that few hosts have."""


class Tables:
    """Indices and what never changes. VMs and hosts are ints from here on."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.hosts = tuple(sorted(snapshot.hosts, key=lambda host: host.name))
        self.host_at = {host.name: index for index, host in enumerate(self.hosts)}
        self.vms = tuple(sorted((vm for vm in snapshot.vms if vm.host in self.host_at), key=lambda vm: vm.uuid))
        self.vm_at = {vm.uuid: index for index, vm in enumerate(self.vms)}
        self.dimensions = _dimensions(self.hosts, self.vms)
        self.mem = [0 if vm.huge_page_bytes else vm.memory_bytes for vm in self.vms]
        self.cpu = [vm.vcpus for vm in self.vms]
        self.rest = [self._rest(vm) for vm in self.vms]
        self.home = [self.host_at[vm.host] for vm in self.vms]
        self.domain_of, self.domain_names = _domains(self.hosts)
        self._rules(snapshot)
        self._shapes(snapshot)
        self.plain = [not (self.rest[v] or self.apart[v] or vm.numa_nodes) for v, vm in enumerate(self.vms)]
        """Memory, vCPUs and its shape are all there is to look at."""
        self.per_mem = [1 / (host.memory_bytes or 1) for host in self.hosts]
        self.per_cpu = [1 / (host.vcpus or 1) for host in self.hosts]
        self.most_mem = max((host.memory_bytes for host in self.hosts), default=1) or 1
        self.most_cpu = max((host.vcpus for host in self.hosts), default=1) or 1

    def size(self, v: int) -> float:
        """The dominant share of the largest host that a VM takes."""
        return max(self.mem[v] / self.most_mem, self.cpu[v] / self.most_cpu)

    def _rest(self, vm: Vm) -> Amounts:
        amounts = dict(vm.others)
        if vm.huge_page_bytes:
            pool = huge(vm.huge_page_bytes)
            amounts[pool] = amounts.get(pool, 0) + vm.memory_bytes
        return tuple((self.dimensions[name], amount) for name, amount in sorted(amounts.items()) if amount)

    def _rules(self, snapshot: Snapshot) -> None:
        rules = snapshot.rules
        self.apart: list[tuple[int, ...]] = [()] * len(self.vms)
        self.apart_rules: tuple[Apart, ...] = rules.apart
        for number, rule in enumerate(rules.apart):
            for v in self.known(rule.vms):
                self.apart[v] += (number,)
        everywhere = list(range(len(self.hosts)))
        self.place_of = [self.domain_of if rule.scope is Scope.DOMAIN else everywhere for rule in rules.apart]
        self.mates: list[tuple[int, ...]] = [()] * len(self.vms)
        """The VMs it must be with, itself included."""
        for together in rules.together:
            members = tuple(self.known(together.vms))
            for v in members:
                self.mates[v] = tuple(sorted({*self.mates[v], *members}))

    def known(self, uuids: Iterable[str]) -> list[int]:
        """Those of them that there are."""
        return sorted(self.vm_at[uuid] for uuid in uuids if uuid in self.vm_at)

    def _shapes(self, snapshot: Snapshot) -> None:
        groups: dict[str, tuple[int, ...]] = {}
        for number, group in enumerate(snapshot.rules.groups):
            for uuid in group.vms:
                groups[uuid] = (*groups.get(uuid, ()), number)
        seen: dict[object, int] = {}
        self.shape: list[int] = []
        self.allowed: list[bytearray] = []
        for vm in self.vms:
            mine = groups.get(vm.uuid, ())
            key = (vm.cpu, vm.networks, vm.storage, vm.machines, mine, tuple(sorted(vm.avoid)))
            if key not in seen:
                seen[key] = len(self.allowed)
                named = [snapshot.rules.groups[number] for number in mine]
                self.allowed.append(
                    bytearray(
                        has_needs(host, vm)
                        and host.name not in vm.avoid
                        and all((host.name in group.hosts) is not group.never for group in named)
                        for host in self.hosts
                    )
                )
            self.shape.append(seen[key])
        counts = [sum(row) for row in self.allowed]
        self.few = [counts[shape] for shape in self.shape]
        """Hosts that may take the VM: fewer are harder."""
        self.scarcity = self._scarcities()

    def _scarcities(self) -> list[float]:
        """For each host: what share of VMs' shapes only it and its like can take."""
        weight = [0] * len(self.allowed)
        for shape in self.shape:
            weight[shape] += 1
        taken = [
            sum(weight[shape] for shape in range(len(self.allowed)) if self.allowed[shape][h])
            for h in range(len(self.hosts))
        ]
        most = max(taken, default=0) or 1
        return [SCARCE * share / most for share in taken]


def has_needs(host: Host, vm: Vm) -> bool:
    """Does the host offer what the VM uses? One-way: what the host has besides does not matter."""
    return (
        vm.cpu <= host.cpu
        and vm.networks <= host.networks
        and vm.storage <= host.storage
        and vm.machines <= host.machines
    )


def _dimensions(hosts: tuple[Host, ...], vms: tuple[Vm, ...]) -> dict[str, int]:
    names = {name for host in hosts for name in host.others} | {name for vm in vms for name in vm.others}
    names |= {huge(vm.huge_page_bytes) for vm in vms if vm.huge_page_bytes}
    return {name: number for number, name in enumerate(sorted(names))}


def _domains(hosts: tuple[Host, ...]) -> tuple[list[int], list[str]]:
    """The number of each host's failure domain. A host of none is one by itself."""
    names = sorted({host.domain for host in hosts if host.domain})
    number_of = {name: number for number, name in enumerate(names)}
    alone = iter(range(len(names), len(names) + len(hosts)))
    return [number_of[host.domain] if host.domain else next(alone) for host in hosts], names
