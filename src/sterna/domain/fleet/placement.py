"""Where VMs go: the hardest first, each to the host that it fits best, VMs of one affinity rule as a bundle."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from sterna.domain.fleet.board import PREFERRED, USUAL, Board
from sterna.domain.fleet.pace import Paces
from sterna.domain.fleet.tables import Tables

WINDOW = 64
"""Hosts with room that are compared: the fullest ones, by memory. More made no plan better in the benchmark."""
WEIGHT = 3.0
"""Of arrivals, against the room that is left: with less, targets' links delayed single hosts by up to a quarter."""

Unit = tuple[int, ...]
"""VMs that go to one host together: mostly a single one."""
Step = tuple[int, int]
"""(VM, target)."""


class Arrivals:
    """How busy each host's link is with what is planned to arrive, as a share of the time there is, weighted."""

    def __init__(self, paces: Paces, horizon_s: float) -> None:
        """`horizon_s`: how long the sources send anyway. Arrivals that take less delay nothing."""
        self.sizes = paces.size
        self.per_byte = [WEIGHT / horizon_s / rate for rate in paces.into]
        self.busy = [0.0] * len(paces.into)

    def share(self, v: int, h: int) -> float:
        """With the VM."""
        return self.busy[h] + self.sizes[v] * self.per_byte[h]

    def add(self, v: int, h: int, sign: int = 1) -> None:
        """It is planned to arrive there, or, with -1, no more."""
        self.busy[h] += sign * self.sizes[v] * self.per_byte[h]


def units(tables: Tables, vms: Iterable[int]) -> list[Unit]:
    """Bundles and single VMs, hardest first: priority, size, how few hosts may take it."""
    wanted = set(vms)
    found = {tuple(mate for mate in tables.mates[v] if mate in wanted) or (v,) for v in wanted}

    def hardness(unit: Unit) -> tuple[float, float, int, Unit]:
        priority = max(tables.vms[v].priority for v in unit)
        return -priority, -sum(tables.size(v) for v in unit), min(tables.few[v] for v in unit), unit

    return sorted(found, key=hardness)


def easiest_first(tables: Tables, in_turn: Sequence[Unit]) -> list[Unit]:
    """Units by priority, the smallest first."""

    def ease(unit: Unit) -> tuple[int, float, Unit]:
        return -max(tables.vms[v].priority for v in unit), sum(tables.size(v) for v in unit), unit

    return sorted(in_turn, key=ease)


def place(board: Board, unit: Unit, arrivals: Arrivals) -> list[Step]:
    """Put the unit on the best host; [] where no host has room for all of it."""
    if len(unit) == 1:
        at = best_host(board, unit[0], arrivals)
        if at is None:
            return []
        put(board, unit[0], at, arrivals)
        return [(unit[0], at)]
    return _place_bundle(board, unit, arrivals)


def put(board: Board, v: int, h: int, arrivals: Arrivals) -> None:
    """It goes there."""
    board.take(v, h)
    arrivals.add(v, h)


def take_back(board: Board, steps: Sequence[Step], arrivals: Arrivals) -> None:
    """They do not go there after all."""
    for v, h in reversed(steps):
        board.give(v, h)
        arrivals.add(v, h, -1)


def best_host(board: Board, v: int, arrivals: Arrivals, but: frozenset[int] = frozenset()) -> int | None:
    """A preferred host if any has room, else the usual one with the best score."""
    must = mates_hosts(board, v)
    if must:
        fitting = [h for h in sorted(must) if h not in but and board.fits(v, h)]
        return min(fitting, key=lambda h: (score(board, v, h, arrivals), h), default=None)
    for tier in (PREFERRED, USUAL):
        best = _best_of(board, v, arrivals, tier, but)
        if best is not None:
            return best
    return None


def _best_of(board: Board, v: int, arrivals: Arrivals, tier: int, but: frozenset[int]) -> int | None:
    """The best score of the tier's fullest hosts with room. `score`, written out: a plan's time goes here."""
    tables = board.tables
    need_cpu, allowed = tables.cpu[v], tables.allowed[tables.shape[v]]
    need_mem, simple = tables.mem[v], tables.plain[v] and board.reserve is None and not but
    busy, per_byte, size = arrivals.busy, arrivals.per_byte, arrivals.sizes[v]
    best, best_score, seen = None, math.inf, 0
    for h in board.candidates(v, tier):
        free_cpu = board.cpu[h] - need_cpu
        if free_cpu < 0 or not allowed[h] or not (simple or (h not in but and board.fits(v, h))):
            continue
        mem_left, cpu_left = (board.mem[h] - need_mem) * tables.per_mem[h], free_cpu * tables.per_cpu[h]
        uneven = mem_left - cpu_left / 2 if mem_left > cpu_left else cpu_left - mem_left / 2
        its = uneven + busy[h] + size * per_byte[h] + tables.scarcity[h]
        if its < best_score:
            best, best_score = h, its
        seen += 1
        if seen == WINDOW:
            break
    return best


def score(board: Board, v: int, h: int, arrivals: Arrivals) -> float:
    """Less is better, in shares of a host: what would be left of it, how uneven, how long its link is busy with
    arrivals, and how few others could take what only this host can."""
    tables = board.tables
    mem_left = (board.mem[h] - tables.mem[v]) * tables.per_mem[h]
    cpu_left = (board.cpu[h] - tables.cpu[v]) * tables.per_cpu[h]
    uneven = abs(mem_left - cpu_left)
    return uneven + min(mem_left, cpu_left) / 2 + arrivals.share(v, h) + tables.scarcity[h]


def mates_hosts(board: Board, v: int) -> set[int]:
    """Open hosts where VMs are that it must be with; none where they are nowhere, or all on hosts that close."""
    mates = board.tables.mates[v]
    return {h for mate in mates if mate != v for h in board.places[mate] if board.open[h]}


def joins_mates(board: Board, v: int, h: int) -> bool:
    """Is the host one where it may be, for the VMs that it must be with?"""
    if not board.tables.mates[v]:
        return True
    must = mates_hosts(board, v)
    return not must or h in must


def _place_bundle(board: Board, unit: Unit, arrivals: Arrivals) -> list[Step]:
    hardest = max(unit, key=lambda v: (board.tables.size(v), v))
    must = set[int]().union(*(mates_hosts(board, v) for v in unit))
    hosts = sorted(must) if must else [h for tier in (PREFERRED, USUAL) for h in board.candidates(hardest, tier)]
    for h in hosts:
        steps: list[Step] = []
        for v in unit:
            if not board.fits(v, h):
                break
            put(board, v, h, arrivals)
            steps.append((v, h))
        if len(steps) == len(unit):
            return steps
        take_back(board, steps, arrivals)
    return []
