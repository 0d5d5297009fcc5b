"""Room on hosts' NUMA nodes, for VMs that ask for nodes.

A VM that does not ask may be anywhere on its host: it counts against the host as a whole, never against a node.
"""

from __future__ import annotations

from sterna.domain.fleet.snapshot import Cell, Host, Vm, huge
from sterna.domain.fleet.tables import Tables

MEMORY, VCPUS = "memory", "vCPUs"


class Cells:
    """What is free on each node, and which nodes each VM has."""

    def __init__(self, tables: Tables) -> None:
        self.vms = tables.vms
        self.free = [[_room(host, cell) for cell in host.cells] for host in tables.hosts]
        self.taken: dict[tuple[int, int], tuple[int, ...]] = {}
        """(VM, host) -> nodes."""

    def fit(self, v: int, h: int) -> bool:
        """Are there enough nodes with room?"""
        vm = self.vms[v]
        return not vm.numa_nodes or len(self._nodes(vm, h)) >= vm.numa_nodes

    def _nodes(self, vm: Vm, h: int) -> list[int]:
        """Nodes with room for its share, the fullest first."""
        share = _share(vm)
        with_room = [
            number
            for number, free in enumerate(self.free[h])
            if all(free.get(what, 0) >= amount for what, amount in share.items())
        ]
        return sorted(with_room, key=lambda number: (self.free[h][number][MEMORY], number))

    def take(self, v: int, h: int, known: tuple[int, ...]) -> None:
        """The nodes that it is known to have, else the fullest with room, else the emptiest."""
        vm = self.vms[v]
        if not vm.numa_nodes or not self.free[h]:
            return
        emptiest = sorted(range(len(self.free[h])), key=lambda number: -self.free[h][number][MEMORY])
        there = [number for number in known if number < len(self.free[h])]
        nodes = tuple(there or dict.fromkeys([*self._nodes(vm, h), *emptiest]))[: vm.numa_nodes]
        self.taken[v, h] = nodes
        self._change(vm, h, nodes, -1)

    def give(self, v: int, h: int) -> None:
        """Its nodes are free."""
        self._change(self.vms[v], h, self.taken.pop((v, h), ()), 1)

    def _change(self, vm: Vm, h: int, nodes: tuple[int, ...], sign: int) -> None:
        if not nodes:
            return
        share = _share(vm)
        for number in nodes:
            free = self.free[h][number]
            for what, amount in share.items():
                free[what] = free.get(what, 0) + sign * amount


def _room(host: Host, cell: Cell) -> dict[str, int]:
    return {MEMORY: cell.memory_bytes, VCPUS: int(cell.cpus * host.overcommit)} | cell.others


def _share(vm: Vm) -> dict[str, int]:
    """Of one node."""
    memory, vcpus = (-(-amount // vm.numa_nodes) for amount in (vm.memory_bytes, vm.vcpus))
    return {huge(vm.huge_page_bytes) if vm.huge_page_bytes else MEMORY: memory, VCPUS: vcpus}
