"""Rebalance: one VM at a time from a full host to an emptier one, as long as it is worth a copy.

Each move leaves both of its hosts less full than the fuller one was, by a share of their difference that is stated.
So the list of all hosts, the fullest first, becomes smaller with each move, and after a few plans no move is worth
it any more: then another rebalance moves nothing either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sterna.domain.fleet.board import Board
from sterna.domain.fleet.bounds import bounds
from sterna.domain.fleet.budgets import Budgets
from sterna.domain.fleet.draining import on_their_way, planned
from sterna.domain.fleet.operations import Rebalance
from sterna.domain.fleet.order import Order
from sterna.domain.fleet.pace import Paces
from sterna.domain.fleet.placement import Step
from sterna.domain.fleet.plans import Plan, Purpose, Spread
from sterna.domain.fleet.promise import promise
from sterna.domain.fleet.reasons import immovable
from sterna.domain.fleet.schedule import as_moves, jobs
from sterna.domain.fleet.tables import Tables

SOURCES = TARGETS = 16
"""The fullest and the emptiest hosts, which are compared."""


def plan_balance(tables: Tables, wish: Rebalance) -> Plan:
    """Moves that even out the hosts. VMs that move already count as arrived."""
    paces, fleet = Paces(tables, wish.may), Board(tables)
    begun, _ = on_their_way(fleet, set())
    hosts = [
        h for h, host in enumerate(tables.hosts) if fleet.open[h] and (not wish.hosts or host.name in wish.hosts)
    ]
    before = [fullness(fleet, h) for h in hosts]
    board = _Evening(fleet, paces, wish, hosts)
    for v, h in begun:
        board.arrive(v, h)
    fleet.keep(tables.snapshot.limits.spare_hosts)
    steps: list[Step] = []
    while len(steps) < wish.most_moves and (step := board.next()) is not None:
        fleet.take(*step)
        board.arrive(*step)
        steps.append(step)
    order = _in_order(tables, begun, steps)
    moves = [planned(tables, move, Purpose.BALANCE) for move in order.moves]  # the most useful first
    promised, played = promise(moves, paces)
    return Plan(
        moves=tuple(as_moves(tables, moves, played)),
        bounds=bounds(jobs(moves), Budgets(paces), paces),
        promise=promised,
        spread=_spread(before, [fullness(fleet, h) for h in hosts]),
    )


def _in_order(tables: Tables, begun: Sequence[Step], steps: Sequence[Step]) -> Order:
    """What each move waits for. A step that cannot be made ends the plan: those after it were chosen with it."""
    while True:
        board = Board(tables)
        board.keep(tables.snapshot.limits.spare_hosts)
        order = Order(board, begun, range(len(tables.vms)))
        stuck = order.arrange(steps)
        if not stuck:
            return order
        steps = steps[: steps.index(stuck[0])]


def fullness(board: Board, h: int, mem: int = 0, cpu: int = 0) -> float:
    """The larger share of memory and vCPUs in use, with so much more of both."""
    tables = board.tables
    mem_left, cpu_left = (board.mem[h] - mem) * tables.per_mem[h], (board.cpu[h] - cpu) * tables.per_cpu[h]
    return 1 - min(mem_left, cpu_left)


def _spread(before: Sequence[float], after: Sequence[float]) -> Spread | None:
    if not before:
        return None
    return Spread(fullest=max(before), emptiest=min(before), fullest_after=max(after), emptiest_after=min(after))


class _Evening:
    """Finds the next move, on a board that changes with each."""

    def __init__(self, board: Board, paces: Paces, wish: Rebalance, hosts: Sequence[int]) -> None:
        self._board, self._paces, self._wish, self._hosts = board, paces, wish, hosts
        self._residents: list[set[int]] = [set() for _ in board.mem]
        for v, h in enumerate(board.at):
            self._residents[h].add(v)
        self._moved: set[int] = set()

    def arrive(self, v: int, h: int) -> None:
        """The VM counts there alone."""
        self._residents[self._board.at[v]].discard(v)
        self._residents[h].add(v)
        self._board.arrive(v, h)
        self._moved.add(v)

    def next(self) -> Step | None:
        """The move that evens out most, off the fullest host that has one. None where no move is worth it."""
        full = sorted((fullness(self._board, h), h) for h in self._hosts)
        targets = [h for _, h in full[:TARGETS]]
        for most, source in reversed(full[-SOURCES:]):
            if most - full[0][0] <= self._wish.threshold:
                return None
            best = min(self._worth_it(source, most, targets), default=None)
            if best is not None:
                return best[2], best[3]
        return None

    def _worth_it(
        self, source: int, most: float, targets: Sequence[int]
    ) -> Iterator[tuple[float, float, int, int]]:
        """How full the fuller host is afterwards, how full the target is now, VM, target."""
        board, tables, wish = self._board, self._board.tables, self._wish
        least = {h: fullness(board, h) for h in targets}
        for v, h in self._choices(source, targets):
            difference = most - least[h]
            if difference <= wish.threshold:
                continue
            mem, cpu = tables.mem[v], tables.cpu[v]
            after = max(fullness(board, source, -mem, -cpu), fullness(board, h, mem, cpu))
            if most - after >= wish.least_gain * difference:
                yield after, least[h], v, h

    def _choices(self, source: int, targets: Sequence[int]) -> Iterator[Step]:
        """Residents that may move, and hosts with room that are not busier by what was measured."""
        board, tables, wish = self._board, self._board.tables, self._wish
        busy = wish.load.get(tables.hosts[source].name)
        for v in sorted(self._residents[source] - self._moved):
            if tables.mates[v] or tables.vms[v].uuid in wish.resting or immovable(board, v, self._paces):
                continue
            for h in targets:
                load = wish.load.get(tables.hosts[h].name)
                if h != source and board.fits(v, h) and (busy is None or load is None or load < busy):
                    yield v, h
