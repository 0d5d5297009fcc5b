"""How much room there is on each host while a plan is made. A VM counts wherever it has been put and not taken off.

`Board` is the only mutable state of a plan. `fits` is asked hundreds of thousands of times, so it looks at plain
lists of ints.
"""

from __future__ import annotations

from bisect import bisect_left, insort

from sterna.domain.fleet.cells import Cells
from sterna.domain.fleet.reserve import Reserve
from sterna.domain.fleet.tables import Tables

SHIFT = 20
"""Bits for a host's index in a key of the shelves: a million hosts."""
HOST = (1 << SHIFT) - 1
PREFERRED, USUAL = 0, 1


class Board:
    """What is free on each host, and where each VM counts."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        hosts = tables.hosts
        self.mem = [host.memory_bytes for host in hosts]
        self.cpu = [host.vcpus for host in hosts]
        names = sorted(tables.dimensions, key=lambda name: tables.dimensions[name])
        self.rest = [[host.others.get(name, 0) for name in names] for host in hosts]
        self.cells = Cells(tables)
        self.counts: list[dict[int, int]] = [{} for _ in tables.apart_rules]
        """For each rule: VMs of it that count in each place."""
        self.places: list[list[int]] = [[] for _ in tables.vms]
        """For each VM: the hosts it counts on."""
        self.at = list(tables.home)
        """For each VM: where it runs."""
        self.open = bytearray(not host.closed and not host.unreachable for host in hosts)
        self.tier = bytearray([USUAL] * len(hosts))
        self.shelves: tuple[list[int], list[int]] = ([], [])
        """Open hosts by free memory, the preferred ones apart."""
        self.reserve: Reserve | None = None
        for v, h in enumerate(tables.home):
            self._put(v, h, tables.vms[v].on_cells)
        for moving in tables.snapshot.moving:
            if moving.vm in tables.vm_at and moving.target in tables.host_at:
                self._put(tables.vm_at[moving.vm], tables.host_at[moving.target], ())
        self.shelves[USUAL].extend(sorted(self._key(h) for h in range(len(hosts)) if self.open[h]))

    # -- room -------------------------------------------------------------------------------------------------

    def fits(self, v: int, h: int) -> bool:
        """May the VM be put on the host now?"""
        tables = self.tables
        if self.mem[h] < tables.mem[v] or self.cpu[h] < tables.cpu[v]:
            return False
        if not tables.allowed[tables.shape[v]][h] or not self.open[h]:
            return False
        if self.reserve is not None and not self.reserve.bears(v, h):
            return False
        return tables.plain[v] or (self._has_rest(v, h) and self.cells.fit(v, h) and not self.conflicts(v, h))

    def _has_rest(self, v: int, h: int) -> bool:
        free = self.rest[h]
        return all(free[dimension] >= amount for dimension, amount in self.tables.rest[v])

    def conflicts(self, v: int, h: int) -> list[int]:
        """The anti-affinity rules that putting it there would break."""
        return [rule for rule in self.tables.apart[v] if self._others(rule, v, h) > 0]

    def _others(self, rule: int, v: int, h: int) -> int:
        """VMs of the rule that count in the host's place, without this one."""
        place_of = self.tables.place_of[rule]
        place = place_of[h]
        return self.counts[rule].get(place, 0) - sum(place_of[at] == place for at in self.places[v])

    def candidates(self, v: int, tier: int) -> list[int]:
        """Open hosts with enough memory, the fullest first."""
        shelf = self.shelves[tier]
        return [key & HOST for key in shelf[bisect_left(shelf, self.tables.mem[v] << SHIFT) :]]

    # -- changes ----------------------------------------------------------------------------------------------

    def take(self, v: int, h: int) -> None:
        """The VM counts on the host from now on."""
        self._unshelve(h)
        self._put(v, h, ())
        if self.reserve is not None:
            self.reserve.take(v, h)
        self._shelve(h)

    def give(self, v: int, h: int) -> None:
        """It counts there no more."""
        self._unshelve(h)
        tables = self.tables
        self.mem[h] += tables.mem[v]
        self.cpu[h] += tables.cpu[v]
        for dimension, amount in tables.rest[v]:
            self.rest[h][dimension] += amount
        self.cells.give(v, h)
        for rule in tables.apart[v]:
            self.counts[rule][tables.place_of[rule][h]] -= 1
        self.places[v].remove(h)
        if self.reserve is not None:
            self.reserve.give(v, h)
        self._shelve(h)

    def _put(self, v: int, h: int, cells: tuple[int, ...]) -> None:
        tables = self.tables
        self.mem[h] -= tables.mem[v]
        self.cpu[h] -= tables.cpu[v]
        for dimension, amount in tables.rest[v]:
            self.rest[h][dimension] -= amount
        self.cells.take(v, h, cells)
        for rule in tables.apart[v]:
            place = tables.place_of[rule][h]
            self.counts[rule][place] = self.counts[rule].get(place, 0) + 1
        self.places[v].append(h)

    def arrive(self, v: int, h: int) -> None:
        """It has ended its move to the host: it counts there alone."""
        if self.at[v] in self.places[v] and self.at[v] != h:
            self.give(v, self.at[v])
        self.at[v] = h

    def close(self, h: int) -> None:
        """It takes no VMs from now on."""
        if self.open[h]:
            self._unshelve(h)
            self.open[h] = False
            if self.reserve is not None:
                self.reserve.close(h, self)

    def reopen(self, h: int, tier: int) -> None:
        """It takes VMs again; `tier`: before others, or as the others."""
        if not self.open[h]:
            self.open[h] = True
            self.tier[h] = tier
            self._shelve(h)
            if self.reserve is not None:
                self.reserve.reopen(h, self)

    def prefer(self, h: int) -> None:
        """It takes VMs before others from now on, if it is open."""
        self._unshelve(h)
        self.tier[h] = PREFERRED
        self._shelve(h)

    def keep(self, spare: int) -> None:
        """From now on keep room for so many of the largest hosts."""
        self.reserve = Reserve(self.tables, self.open, self.mem, self.cpu, spare) if spare else None

    def _key(self, h: int) -> int:
        return (max(0, self.mem[h]) << SHIFT) | h

    def _unshelve(self, h: int) -> None:
        if self.open[h]:
            shelf = self.shelves[self.tier[h]]
            del shelf[bisect_left(shelf, self._key(h))]

    def _shelve(self, h: int) -> None:
        if self.open[h]:
            insort(self.shelves[self.tier[h]], self._key(h))
