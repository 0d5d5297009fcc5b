"""Rebalance: one VM at a time from the fullest host to an emptier one, as long as it is worth a copy."""

from __future__ import annotations

from collections.abc import Iterator

from sterna.domain.fleet.board import Board
from sterna.domain.fleet.bounds import bounds
from sterna.domain.fleet.budgets import Budgets
from sterna.domain.fleet.draining import planned
from sterna.domain.fleet.operations import Rebalance
from sterna.domain.fleet.order import Order
from sterna.domain.fleet.pace import Paces
from sterna.domain.fleet.placement import Step
from sterna.domain.fleet.plans import Plan, Purpose
from sterna.domain.fleet.promise import promise
from sterna.domain.fleet.reasons import immovable
from sterna.domain.fleet.schedule import as_moves, jobs, queue
from sterna.domain.fleet.tables import Tables

TARGETS = 16
"""The emptiest hosts, which are compared."""


def plan_balance(tables: Tables, wish: Rebalance) -> Plan:
    """Moves that even out the hosts; none while anything moves already."""
    if tables.snapshot.moving:
        return Plan()
    board, paces = Board(tables), Paces(tables, wish.may)
    board.keep(tables.snapshot.limits.spare_hosts)
    steps: list[Step] = []
    while len(steps) < wish.most_moves:
        step = _next(board, paces, wish, {v for v, _ in steps})
        if step is None:
            break
        board.take(*step)
        board.arrive(*step)
        steps.append(step)
    again = Board(tables)
    again.keep(tables.snapshot.limits.spare_hosts)
    order = Order(again)
    order.arrange(steps)
    moves = queue([planned(tables, move, Purpose.BALANCE) for move in order.moves], paces)
    promised, played = promise(moves, paces)
    return Plan(
        moves=tuple(as_moves(tables, moves, played)),
        bounds=bounds(jobs(moves), Budgets(paces), paces),
        promise=promised,
    )


def fullness(board: Board, h: int, mem: int = 0, cpu: int = 0) -> float:
    """The larger share of memory and vCPUs in use, with so much more of both."""
    tables = board.tables
    mem_left, cpu_left = (board.mem[h] - mem) * tables.per_mem[h], (board.cpu[h] - cpu) * tables.per_cpu[h]
    return 1 - min(mem_left, cpu_left)


def _next(board: Board, paces: Paces, wish: Rebalance, moved: set[int]) -> Step | None:
    """The move off the fullest host that evens out most; None where no move is worth it."""
    opened = [h for h in range(len(board.mem)) if board.open[h]]
    opened.sort(key=lambda h: (fullness(board, h), h))
    if len(opened) < 2 or fullness(board, opened[-1]) - fullness(board, opened[0]) <= wish.threshold:
        return None
    source = opened[-1]
    gap_of = {h: fullness(board, source) - fullness(board, h) for h in opened[:TARGETS]}
    best: tuple[float, int, int] | None = None
    for v, h in _choices(board, paces, wish, source, opened[:TARGETS]):
        if v in moved:
            continue
        mem, cpu = board.tables.mem[v], board.tables.cpu[v]
        after = abs(fullness(board, source, -mem, -cpu) - fullness(board, h, mem, cpu))
        if gap_of[h] > 0 and after <= (1 - wish.least_gain) * gap_of[h]:
            best = min(best or (after, v, h), (after, v, h))
    return None if best is None else (best[1], best[2])


def _choices(
    board: Board, paces: Paces, wish: Rebalance, source: int, targets: list[int]
) -> Iterator[tuple[int, int]]:
    """Residents that may move, and hosts with room that are not busier by what was measured."""
    tables = board.tables
    busy = wish.load.get(tables.hosts[source].name)
    for v, at in enumerate(board.at):
        if at != source or tables.mates[v] or tables.vms[v].uuid in wish.resting or immovable(board, v, paces):
            continue
        for h in targets:
            load = wish.load.get(tables.hosts[h].name)
            if h != source and board.fits(v, h) and (busy is None or load is None or load < busy):
                yield v, h
