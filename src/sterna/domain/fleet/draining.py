"""The plan of a drain: hosts closed, their VMs placed, ordered, played through."""

from __future__ import annotations

from collections.abc import Mapping

from sterna.domain.fleet.board import Board
from sterna.domain.fleet.bounds import bounds
from sterna.domain.fleet.budgets import Budgets
from sterna.domain.fleet.emptying import empty, in_order
from sterna.domain.fleet.operations import Drain
from sterna.domain.fleet.order import Ordered
from sterna.domain.fleet.pace import Paces
from sterna.domain.fleet.placement import Step
from sterna.domain.fleet.plans import LeftOver, Plan, Purpose
from sterna.domain.fleet.promise import promise
from sterna.domain.fleet.schedule import Planned, as_moves, jobs, queue
from sterna.domain.fleet.tables import Tables


def plan_drain(tables: Tables, drain: Drain, kept: Mapping[int, int]) -> Plan:
    """What empties the hosts. `kept`: targets of the moves of an earlier plan that have not begun."""
    board = Board(tables)
    paces = Paces(tables, drain.may)
    closed = {tables.host_at[name] for name in drain.hosts if name in tables.host_at}
    for h in closed:
        board.close(h)
    for name in sorted(drain.prefer & tables.host_at.keys()):
        board.prefer(tables.host_at[name])
    board.keep(tables.snapshot.limits.spare_hosts)
    begun, aborted = on_their_way(board, closed)
    moving = {v for v, _ in begun}
    vms = [v for v, h in enumerate(board.at) if h in closed and v not in moving]
    for v in moving:
        board.give(v, board.at[v])  # who comes to its place waits until it has left
    found = empty(board, vms, paces, fixed=moving, kept=kept)
    ordered = in_order(board, found, begun)
    rooms = found.residents
    moves = queue(
        [planned(tables, move, Purpose.ROOM if move.v in rooms else Purpose.EMPTY) for move in ordered], paces
    )
    promised, played = promise(moves, paces)
    late = None if drain.finish_within_s is None else promised.promised_s - drain.finish_within_s
    return Plan(
        moves=tuple(as_moves(tables, moves, played)),
        left=tuple(sorted([*found.left, *_claimed(tables, drain)], key=lambda one: (one.host, one.vm))),
        aborts=tuple(sorted(tables.vms[v].uuid for v in aborted)),
        bounds=bounds(jobs(moves), Budgets(paces), paces),
        promise=promised,
        late_s=late if late is not None and late > 0 else None,
    )


def _claimed(tables: Tables, drain: Drain) -> list[LeftOver]:
    """VMs of these hosts that the records have elsewhere, as another host says that it runs them."""
    return [
        LeftOver(
            vm=vm.uuid,
            name=vm.name,
            host=host,
            reason=f"{vm.name} cannot be migrated: {vm.host} says that it runs there as well",
            otherwise=vm.otherwise,
        )
        for vm in tables.vms
        if vm.host not in drain.hosts
        for host in sorted(vm.may_be_on(drain.hosts))
    ]


def on_their_way(board: Board, closed: set[int]) -> tuple[list[Step], list[int]]:
    """Moves that run, as (VM, target); and VMs on their way into a host that closes, which stay where they are."""
    tables = board.tables
    begun, aborted = [], []
    for moving in sorted(tables.snapshot.moving, key=lambda moving: moving.vm):
        v, h = tables.vm_at.get(moving.vm), tables.host_at.get(moving.target)
        if v is None or h is None:
            continue
        if h in closed and moving.may_abort:
            aborted.append(v)
            board.give(v, h)
        else:
            begun.append((v, h))
    return begun, aborted


def planned(tables: Tables, move: Ordered, purpose: Purpose) -> Planned:
    """The move with its purpose, or as one that parks its VM; and what is left of it if it runs already."""
    left = None
    if move.begun:
        uuid = tables.vms[move.v].uuid
        left = next(moving.left_bytes for moving in tables.snapshot.moving if moving.vm == uuid)
        left = tables.vms[move.v].copied_bytes if left is None else left
    return Planned(move, Purpose.PARK if move.parking else purpose, left)
