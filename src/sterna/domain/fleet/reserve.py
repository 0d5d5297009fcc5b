"""N+1: room that is kept for the VMs of the largest hosts, for each kind of CPU that VMs ask for.

Judged by sums: the free memory and vCPUs of all open hosts that a kind of VM can run on are at least what the
largest of these hosts has in total. A sum is not a placement. It is what can be kept with every single move.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sterna.domain.fleet.tables import Tables

if TYPE_CHECKING:
    from collections.abc import Sequence


class Rooms(Protocol):
    """What is free on each host."""

    mem: list[int]
    cpu: list[int]


class Reserve:
    """What may still be taken of each kind's hosts."""

    def __init__(self, tables: Tables, opened: Sequence[int], mem: list[int], cpu: list[int], spare: int) -> None:
        self.tables = tables
        kinds = sorted({vm.cpu for vm in tables.vms}, key=sorted)
        self.kinds_of = [tuple(n for n, kind in enumerate(kinds) if kind <= host.cpu) for host in tables.hosts]
        self.mem, self.cpu = [0] * len(kinds), [0] * len(kinds)
        for number in range(len(kinds)):
            mine = [h for h in range(len(tables.hosts)) if number in self.kinds_of[h] and opened[h]]
            largest_mem = sorted((tables.hosts[h].memory_bytes for h in mine), reverse=True)[:spare]
            largest_cpu = sorted((tables.hosts[h].vcpus for h in mine), reverse=True)[:spare]
            self.mem[number] = sum(mem[h] for h in mine) - sum(largest_mem)
            self.cpu[number] = sum(cpu[h] for h in mine) - sum(largest_cpu)
        self.opened = opened

    def bears(self, v: int, h: int) -> bool:
        """May the VM be put on the host, and the reserve remains?"""
        mem, cpu = self.tables.mem[v], self.tables.cpu[v]
        return all(self.mem[kind] >= mem and self.cpu[kind] >= cpu for kind in self.kinds_of[h])

    def take(self, v: int, h: int) -> None:
        """It has been put there."""
        self._change(h, -self.tables.mem[v], -self.tables.cpu[v])

    def give(self, v: int, h: int) -> None:
        """It has been taken off."""
        self._change(h, self.tables.mem[v], self.tables.cpu[v])

    def close(self, h: int, rooms: Rooms) -> None:
        """The host's room is not to be counted on. Called when it is closed already."""
        self._add(h, -rooms.mem[h], -rooms.cpu[h])

    def reopen(self, h: int, rooms: Rooms) -> None:
        """It is, again. Called when the host is open."""
        self._add(h, rooms.mem[h], rooms.cpu[h])

    def _change(self, h: int, mem: int, cpu: int) -> None:
        if self.opened[h]:
            self._add(h, mem, cpu)

    def _add(self, h: int, mem: int, cpu: int) -> None:
        for kind in self.kinds_of[h]:
            self.mem[kind] += mem
            self.cpu[kind] += cpu
