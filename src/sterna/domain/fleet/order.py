"""In which order moves may run: what a move has to wait for, and parking where VMs are in each other's way.

A VM counts at both ends from its begin to its end. A move whose target has room without anybody's leaving waits
for nothing. Another waits for as many of the departures planned before it as give it room: the arrivals on a host,
taken in the plan's order, then fit whichever of them come first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from sterna.domain.fleet.board import Board
from sterna.domain.fleet.tables import Tables


@dataclass(frozen=True)
class Ordered:
    """A move in the order of the plan."""

    v: int
    source: int
    target: int
    after: tuple[int, ...]
    """Places in this order."""
    parking: bool = False
    begun: bool = False


@dataclass
class Ledger:
    """Per host: room without anybody's leaving, and the departures so far."""

    slack_mem: list[int]
    slack_cpu: list[int]
    departures: dict[int, list[int]] = field(default_factory=dict)
    """Host -> places in the order of moves away from it."""
    arrived: dict[int, int] = field(default_factory=dict)
    """VM -> the place of the move that brings it where it is then."""


def arrange(
    board_of: Callable[[], Board], wanted: Sequence[tuple[int, int]], begun: Sequence[tuple[int, int]] = ()
) -> tuple[Order, list[tuple[int, int]]]:
    """(VM, target) in order, and those that remain. No VM is parked that cannot move on: it is all done again
    without parking it. `board_of` makes a board of the fleet as it is now."""
    useless: set[int] = set()
    while True:
        order = Order(board_of(), begun, useless)
        stuck = order.arrange(wanted)
        more = {v for v, _ in stuck if v in order.parked} - useless
        if not more:
            return order, stuck
        useless |= more


class Order:
    """Puts moves into an order, one after the other, on a board of the fleet as it is now.

    The board's hosts that are to be emptied are closed. A VM may be moved twice: parked and moved on.
    """

    def __init__(self, board: Board, begun: Sequence[tuple[int, int]] = (), not_parked: Iterable[int] = ()) -> None:
        """`begun`: (VM, target) of moves that run; the board counts them at both ends already. `not_parked`: VMs
        that are not to be parked."""
        self.board = board
        self.ledger = Ledger(list(board.mem), list(board.cpu))
        self.moves: list[Ordered] = []
        self.parked = set(not_parked)
        for v, target in begun:
            self._append(v, board.at[v], target, (), begun=True)

    @property
    def tables(self) -> Tables:
        """What does not change."""
        return self.board.tables

    def arrange(self, wanted: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Put (VM, target) in order. What remains cannot be done: VMs are in each other's way and nowhere is room
        to park one."""
        pending = list(wanted)
        while pending:
            waiting = [(v, h) for v, h in pending if not self._admit(v, h)]
            if len(waiting) == len(pending) and not self._park(waiting):
                return waiting
            pending = waiting
        return []

    def _admit(self, v: int, h: int) -> bool:
        """Give the move the next place, if there is room for it once all planned before has ended."""
        board = self.board
        if not board.fits(v, h):
            return False
        source = board.places[v][-1]
        after = self._waits_for(v, h)
        board.take(v, h)
        self._append(v, source, h, after)
        return True

    def _append(self, v: int, source: int, target: int, after: tuple[int, ...], **kind: bool) -> None:
        number = len(self.moves)
        if v in self.ledger.arrived:
            after = (*after, self.ledger.arrived[v])
        self.moves.append(Ordered(v, source, target, tuple(sorted(set(after))), **kind))
        if not kind.get("begun"):
            self.ledger.slack_mem[target] -= self.tables.mem[v]
            self.ledger.slack_cpu[target] -= self.tables.cpu[v]
        self.ledger.departures.setdefault(source, []).append(number)
        self.ledger.arrived[v] = number
        if source in self.board.places[v]:
            self.board.give(v, source)

    def _waits_for(self, v: int, h: int) -> tuple[int, ...]:
        """The departures that it needs, as few of the first ones as give room."""
        gone = self.ledger.departures.get(h, [])
        apart = self._apart(v, h)
        if not gone:
            return apart
        tables, ledger = self.tables, self.ledger
        if not tables.plain[v] and (tables.rest[v] or tables.vms[v].numa_nodes):
            return (*gone, *apart)
        mem, cpu = ledger.slack_mem[h] - tables.mem[v], ledger.slack_cpu[h] - tables.cpu[v]
        needed: list[int] = []
        for number in gone:
            if mem >= 0 and cpu >= 0:
                break
            leaver = self.moves[number].v
            mem, cpu = mem + tables.mem[leaver], cpu + tables.cpu[leaver]
            needed.append(number)
        return (*needed, *apart)

    def _apart(self, v: int, h: int) -> tuple[int, ...]:
        """Moves of VMs of its anti-affinity rules that leave the place it goes to."""
        found = []
        for rule in self.tables.apart[v]:
            place_of = self.tables.place_of[rule]
            for source, numbers in self.ledger.departures.items():
                if place_of[source] == place_of[h]:
                    leavers = ((number, self.moves[number].v) for number in numbers)
                    found += [n for n, leaver in leavers if leaver != v and rule in self.tables.apart[leaver]]
        return tuple(found)

    def _park(self, waiting: Sequence[tuple[int, int]]) -> bool:
        """Move the smallest VM that stands where another one goes to a host with room, for a while."""
        tables, board = self.tables, self.board
        targets = {h for _, h in waiting}
        inside = [v for v, _ in waiting if board.places[v][-1] in targets and v not in self.parked]
        for v in sorted(inside, key=lambda v: (tables.vms[v].copied_bytes, v)):
            home = board.places[v][-1]
            for h in range(len(tables.hosts)):
                if h != home and h not in targets and board.fits(v, h):
                    after = self._waits_for(v, h)
                    board.take(v, h)
                    self._append(v, home, h, after, parking=True)
                    self.parked.add(v)
                    return True
        return False
