"""Make room: for a VM that fits nowhere, one or two residents of a host move on to another one.

The residents cost a copy each, so those with the least memory are taken. No resident moves twice in a plan.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from sterna.domain.fleet.board import Board
from sterna.domain.fleet.pace import Paces
from sterna.domain.fleet.placement import Arrivals, Step, best_host, joins_mates, put, take_back
from sterna.domain.fleet.reasons import immovable

HOSTS_TRIED = 100
"""The ones that lack the least."""
RESIDENTS_TRIED = 8
"""Of a host: the smallest that would do. Pairs of them are tried as well."""
CHOICES_TRIED = 200
"""Of all hosts: the cheapest."""
TRIED_IN_ALL = 4000
"""Choices for all VMs of a plan, so that a fleet without any room is planned in a second."""


class Room:
    """Which residents of which hosts may be moved on."""

    def __init__(self, board: Board, arrivals: Arrivals, paces: Paces, settled: set[int]) -> None:
        self.board = board
        self.arrivals = arrivals
        self.paces = paces
        self.settled = settled
        """VMs that have their place already, or may not move."""
        self.tries = TRIED_IN_ALL
        self.residents: dict[int, list[int]] = {}
        for v, places in enumerate(board.places):
            for h in places:
                self.residents.setdefault(h, []).append(v)

    def make(self, v: int) -> list[Step]:
        """The residents' steps and the VM's own, in this order; [] where no such steps were found."""
        board, tables = self.board, self.board.tables
        if self.tries <= 0:
            return []
        allowed = tables.allowed[tables.shape[v]]
        hosts = [h for h in range(len(tables.hosts)) if board.open[h] and allowed[h] and joins_mates(board, v, h)]
        hosts.sort(key=lambda h: (max(self._lacking(v, h)), h))
        choices = [
            (self._cost(leaving), h, leaving) for h in hosts[:HOSTS_TRIED] for leaving in self._choices(v, h)
        ]
        for _, h, leaving in sorted(choices)[: min(CHOICES_TRIED, self.tries)]:
            self.tries -= 1
            steps = self._try(v, h, leaving)
            if steps:
                return steps
        return []

    def _cost(self, leaving: tuple[int, ...]) -> int:
        """Bytes to copy before the VM can begin."""
        return sum(self.board.tables.vms[resident].copied_bytes for resident in leaving)

    def _lacking(self, v: int, h: int) -> tuple[float, float]:
        """What is missing on the host, in shares of it."""
        tables = self.board.tables
        host = tables.hosts[h]
        mem = (tables.mem[v] - self.board.mem[h]) / (host.memory_bytes or 1)
        return mem, (tables.cpu[v] - self.board.cpu[h]) / (host.vcpus or 1)

    def _choices(self, v: int, h: int) -> Iterator[tuple[int, ...]]:
        """Residents whose leaving gives enough memory and vCPUs, the cheapest first."""
        board, tables = self.board, self.board.tables
        mem, cpu = tables.mem[v] - board.mem[h], tables.cpu[v] - board.cpu[h]
        movable = sorted(
            (r for r in self.residents.get(h, ()) if self._may_move(r, h)),
            key=lambda r: (tables.vms[r].copied_bytes, r),
        )
        enough = [r for r in movable if tables.mem[r] >= mem and tables.cpu[r] >= cpu]
        yield from ((r,) for r in enough[:RESIDENTS_TRIED])
        pairs = [
            pair
            for pair in combinations(movable[:RESIDENTS_TRIED], 2)
            if sum(tables.mem[r] for r in pair) >= mem and sum(tables.cpu[r] for r in pair) >= cpu
        ]
        yield from sorted(pairs, key=lambda pair: (self._cost(pair), pair))[:RESIDENTS_TRIED]

    def _may_move(self, resident: int, h: int) -> bool:
        """Not one that moves anyway, or has to stay with others."""
        board = self.board
        if resident in self.settled or board.places[resident] != [h] or board.tables.mates[resident]:
            return False
        return not immovable(board, resident, self.paces)

    def _try(self, v: int, h: int, leaving: tuple[int, ...]) -> list[Step]:
        """Move them on and put the VM there; undone and [] where one of them does not fit."""
        board = self.board
        steps: list[Step] = []
        gone: list[int] = []
        for resident in leaving:
            to = best_host(board, resident, self.arrivals, frozenset({h}))
            if to is None:
                break
            put(board, resident, to, self.arrivals)
            steps.append((resident, to))
            board.give(resident, h)
            gone.append(resident)
        if len(gone) == len(leaving) and board.fits(v, h):
            put(board, v, h, self.arrivals)
            self.settled.update((*leaving, v))
            return [*steps, (v, h)]
        for resident in gone:
            board.take(resident, h)
        take_back(board, steps, self.arrivals)
        return []
