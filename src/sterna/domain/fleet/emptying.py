"""Empties closed hosts on a board: a place for each VM, room made where there is none, the rest with reasons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sterna.domain.fleet.board import Board
from sterna.domain.fleet.order import Order, Ordered
from sterna.domain.fleet.pace import Paces
from sterna.domain.fleet.placement import Arrivals, Step, Unit, easiest_first, joins_mates, place, put, units
from sterna.domain.fleet.plans import LeftOver
from sterna.domain.fleet.reasons import fits_nowhere, immovable
from sterna.domain.fleet.room import Room


@dataclass
class Emptied:
    """What empties some hosts."""

    steps: list[Step] = field(default_factory=list)
    """In the order they were found: each fits once those before it have ended."""
    residents: set[int] = field(default_factory=set)
    """VMs that are moved on to make room."""
    left: list[LeftOver] = field(default_factory=list)


def empty(
    board: Board,
    vms: Iterable[int],
    paces: Paces,
    *,
    fixed: set[int],
    kept: Mapping[int, int] | None = None,
) -> Emptied:
    """Place the VMs, whose hosts are closed. `fixed`: VMs that are not to be moved on. `kept`: targets of an
    earlier plan, which are taken again where they still fit, before others are placed.

    The hardest VMs come first. Where some fit nowhere then, the easiest come first, if fewer are left so."""
    why = {v: immovable(board, v, paces) for v in sorted(vms)}
    movable = [v for v, reason in why.items() if not reason]
    stay = [leftover(board, v, reason) for v, reason in why.items() if reason]
    hardest_first = units(board.tables, movable)
    attempt = _Attempt(board, paces, fixed | set(movable), kept or {})
    found = attempt.make(hardest_first)
    if found.left:
        rewind(board, found.steps)
        other = attempt.make(easiest_first(board.tables, hardest_first))
        if len(other.left) >= len(found.left):
            rewind(board, other.steps)
            redo(board, found)
        else:
            found = other
    found.left += stay
    return found


@dataclass
class _Attempt:
    """One order of placing VMs."""

    board: Board
    paces: Paces
    settled: set[int]
    """VMs that are not to be moved on."""
    kept: Mapping[int, int]

    def make(self, in_turn: Sequence[Unit]) -> Emptied:
        """Place them in this order, those that keep their targets first; then make room for the rest."""
        board = self.board
        result = Emptied()
        arrivals = Arrivals(self.paces, horizon_s(board, self.paces, (v for unit in in_turn for v in unit)))
        unplaced = []
        settled = set(self.settled)
        for unit in sorted(in_turn, key=lambda unit: unit[0] not in self.kept):
            steps = _keep(board, unit, self.kept, arrivals) or self._room_as_before(unit, arrivals, settled)
            steps = steps or place(board, unit, arrivals)
            result.steps += steps
            result.residents.update(v for v, _ in steps if v not in unit)
            if not steps:
                unplaced.append(unit)
        room = Room(board, arrivals, self.paces, settled) if unplaced else None
        for unit in unplaced:
            steps = self._room_as_before(unit, arrivals, settled) or place(board, unit, arrivals)
            if not steps and room is not None and len(unit) == 1:
                steps = room.make(unit[0])
            result.steps += steps
            result.residents.update(v for v, _ in steps if v not in unit)
            if not steps:
                result.left += [leftover(board, v, fits_nowhere(board, v)) for v in unit]
        return result

    def _room_as_before(self, unit: Unit, arrivals: Arrivals, settled: set[int]) -> list[Step]:
        """The room that an earlier plan made on the target: its residents go where they were to go."""
        board, h = self.board, self.kept.get(unit[0])
        if h is None or len(unit) > 1 or not joins_mates(board, unit[0], h):
            return []
        steps: list[Step] = []
        for resident, to in sorted(self.kept.items()):
            if resident not in settled and board.places[resident] == [h] and board.fits(resident, to):
                put(board, resident, to, arrivals)
                board.give(resident, h)
                steps.append((resident, to))
                if board.fits(unit[0], h):
                    put(board, unit[0], h, arrivals)
                    settled.update(resident for resident, _ in steps)
                    return [*steps, (unit[0], h)]
        rewind(board, steps)
        for resident, to in steps:
            arrivals.add(resident, to, -1)
        return []


def _keep(board: Board, unit: Sequence[int], kept: Mapping[int, int], arrivals: Arrivals) -> list[Step]:
    """The targets that an earlier plan gave, where all of them still have room."""
    steps: list[Step] = []
    for v in unit:
        h = kept.get(v)
        if h is None or not board.fits(v, h) or not joins_mates(board, v, h):
            for taken, at in reversed(steps):
                board.give(taken, at)
                arrivals.add(taken, at, -1)
            return []
        put(board, v, h, arrivals)
        steps.append((v, h))
    return steps


def leftover(board: Board, v: int, why: str) -> LeftOver:
    """A VM that stays."""
    vm = board.tables.vms[v]
    host = board.tables.hosts[board.at[v]].name
    return LeftOver(vm=vm.uuid, name=vm.name, host=host, reason=why, otherwise=vm.otherwise)


def horizon_s(board: Board, paces: Paces, vms: Iterable[int]) -> float:
    """How long the source with the most to send is busy."""
    busy: dict[int, float] = {}
    for v in vms:
        home = board.at[v]
        busy[home] = busy.get(home, 0.0) + paces.size[v] / paces.out[home]
    return max([1.0, *busy.values()])


def in_order(board: Board, found: Emptied, begun: Sequence[Step] = ()) -> list[Ordered]:
    """What each move waits for. Plain moves wait for nothing: their targets have room while nobody leaves. Else the
    board is set back, and the moves are played on it one by one."""
    if not found.residents and not begun:
        return [Ordered(v, board.at[v], target, ()) for v, target in found.steps]
    rewind(board, found.steps)
    for v, _ in begun:
        if board.at[v] not in board.places[v]:
            board.take(v, board.at[v])
    order = Order(board, begun, range(len(board.tables.vms)))
    stuck = order.arrange(found.steps)
    for v, h in stuck:
        found.left.append(leftover(board, v, f"{board.tables.vms[v].name} waits for room on {_host(board, h)}"))
    return order.moves


def rewind(board: Board, steps: Sequence[Step]) -> None:
    """Each VM counts where it was before these steps."""
    for v, target in reversed(steps):
        home = board.at[v]
        board.give(v, target)
        if home not in board.places[v]:
            board.take(v, home)


def redo(board: Board, found: Emptied) -> None:
    """The steps count again, after `rewind`."""
    for v, target in found.steps:
        board.take(v, target)
        if v in found.residents:
            board.give(v, board.at[v])


def _host(board: Board, h: int) -> str:
    return board.tables.hosts[h].name
