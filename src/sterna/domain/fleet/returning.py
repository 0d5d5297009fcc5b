"""Bring back: each VM to where it was, if nobody has moved it since. One that stands in another's way is parked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sterna.domain.fleet.board import Board
from sterna.domain.fleet.bounds import bounds
from sterna.domain.fleet.budgets import Budgets
from sterna.domain.fleet.draining import on_their_way, planned
from sterna.domain.fleet.emptying import leftover
from sterna.domain.fleet.operations import BringBack, Return
from sterna.domain.fleet.order import arrange
from sterna.domain.fleet.pace import Paces
from sterna.domain.fleet.placement import Step
from sterna.domain.fleet.plans import LeftOver, Plan
from sterna.domain.fleet.promise import promise
from sterna.domain.fleet.reasons import immovable, of_one_host, refusal
from sterna.domain.fleet.schedule import as_moves, jobs, queue
from sterna.domain.fleet.tables import Tables


def plan_return(tables: Tables, back: BringBack) -> Plan:
    """What brings them back. Its preview and its plan are the same."""
    board, paces = Board(tables), Paces(tables, back.may)
    begun, _ = on_their_way(board, set())
    moving = dict(begun)
    wanted: list[Step] = []
    left: list[LeftOver] = []
    for one in sorted(back.returns, key=lambda one: one.vm):
        v = tables.vm_at.get(one.vm)
        if v is None or v in moving or board.at[v] == tables.host_at.get(one.origin):
            continue
        why = _stays(board, v, one, paces)
        if why:
            left.append(leftover(board, v, why))
        else:
            wanted.append((v, tables.host_at[one.origin]))
    for v, why in _parted(board, wanted).items():
        wanted = [step for step in wanted if step[0] != v]
        left.append(leftover(board, v, why))
    order, stuck = arrange(lambda: _board(tables), wanted, begun)
    for v, h in stuck:
        left.append(leftover(board, v, f"{tables.vms[v].name} cannot go back: {_obstacle(order.board, v, h)}"))
    moves = queue([planned(tables, move, back.purpose) for move in order.moves], paces)
    promised, played = promise(moves, paces)
    return Plan(
        moves=tuple(as_moves(tables, moves, played)),
        left=tuple(sorted(left, key=lambda one: (one.host, one.vm))),
        bounds=bounds(jobs(moves), Budgets(paces), paces),
        promise=promised,
    )


def _parted(board: Board, wanted: Sequence[Step]) -> dict[int, str]:
    """VMs that would leave those behind that they have to be with, and why they stay. Who has to be with one of
    these stays as well."""
    tables, found = board.tables, dict[int, str]()
    going = dict(wanted)
    while True:
        parted = [(v, mate) for v, h in going.items() if (mate := _left_behind(board, v, h, going)) is not None]
        if not parted:
            return found
        for v, mate in parted:
            pair = {tables.vms[v].uuid, tables.vms[mate].uuid}
            rule = next(rule.name for rule in tables.snapshot.rules.together if pair <= rule.vms)
            name, other = tables.vms[v].name, tables.vms[mate].name
            found[v] = f"{name} cannot go back: the rule {rule} keeps it with {other}, which stays"
            del going[v]


def _left_behind(board: Board, v: int, h: int, going: Mapping[int, int]) -> int | None:
    """One that it has to be with and that stays on another host, which is open; None where there is none, or one is
    on the host already."""
    mates = [mate for mate in board.tables.mates[v] if mate != v and going.get(mate) != h]
    stay = [(mate, at) for mate in mates for at in board.places[mate] if board.open[at]]
    if any(at == h for _, at in stay):
        return None
    return min((mate for mate, _ in stay), default=None)


def _board(tables: Tables) -> Board:
    board = Board(tables)
    board.keep(tables.snapshot.limits.spare_hosts)
    return board


def _stays(board: Board, v: int, one: Return, paces: Paces) -> str:
    """Why the VM is not brought back at all; '' where it is."""
    tables, name = board.tables, board.tables.vms[v].name
    at = tables.hosts[board.at[v]].name
    if at != one.put_on:
        return f"{name} has since been migrated from {one.put_on} to {at}"
    if one.origin not in tables.host_at:
        return f"{name} cannot go back: there is no host {one.origin}"
    return immovable(board, v, paces)


def _obstacle(board: Board, v: int, h: int) -> str:
    """What keeps it from its origin, now that everybody else has moved."""
    host = board.tables.hosts[h]
    name, what = host.name, refusal(board, v, h)
    if host.unreachable:
        return f"{name} cannot be reached: {host.unreachable}"
    if host.closed:
        return f"{name} is closed: {host.closed}"
    if not what:
        return f"no host has capacity for the VMs on {name} that are in its way"
    return f"{name}: {of_one_host(what)}"
