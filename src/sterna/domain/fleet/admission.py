"""What begins now of a plan, and why the rest waits.

The only place that lets migrations of operations begin. What runs already takes slots, whoever has asked for it: a
single migration is never held back, and operations wait for it. A migration goes from its preparation to its copy
by itself, so each takes its copying slot when it begins.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sterna.domain.fleet.course import OperationStatus
from sterna.domain.fleet.operations import Mays
from sterna.domain.fleet.plans import Move, Plan
from sterna.domain.fleet.snapshot import Snapshot
from sterna.domain.fleet.waiting import Progress, Queue
from sterna.domain.model import Value


class Wait(Value):
    """A VM whose move has not begun."""

    vm: str
    """UUID."""
    name: str
    source: str
    target: str
    reason: str
    """One sentence that is true now."""


class Admitted(Value):
    """The answer."""

    start: tuple[Move, ...] = ()
    waits: tuple[Wait, ...] = ()


def admit(
    snapshot: Snapshot,
    plan: Plan,
    may: Mays = frozenset(),
    *,
    preparing: Collection[str] = (),
    resting: Mapping[str, str] | None = None,
) -> Admitted:
    """What of the plan begins now, in its order. `preparing`: UUIDs of VMs whose migration runs and does not copy
    yet. `resting`: VMs that are not to be tried now, and why."""
    queue, rest = Queue(snapshot, plan, may), resting or {}
    begun = {move.number for move in plan.moves if move.begun}
    moving = {moving.vm for moving in snapshot.moving}
    ready = frozenset(move.number for move in plan.moves if move.begun and move.vm in preparing)
    now = Progress(preparing=ready, copying=frozenset(begun))
    start: list[Move] = []
    open_moves = [move for move in plan.moves if not move.begun]
    for move in open_moves:
        if move.vm in rest or move.vm in moving or queue.why(move.number, now):
            continue
        start.append(move)
        one = frozenset({move.number})
        now = Progress(preparing=now.preparing | one, copying=now.copying | one)
    waits = [
        Wait(vm=move.vm, name=move.name, source=move.source, target=move.target, reason=reason)
        for move in open_moves
        if move.number not in now.copying and (reason := _why(queue, move, now, moving, rest))
    ]
    return Admitted(start=tuple(start), waits=tuple(waits))


def _why(queue: Queue, move: Move, now: Progress, moving: Collection[str], rest: Mapping[str, str]) -> str:
    if move.vm in moving and not any(one.begun and one.vm == move.vm for one in queue.plan.moves):
        return f"{move.name} is in a migration that is being aborted"
    return rest.get(move.vm) or queue.why(move.number, now)


def ending(
    status: OperationStatus,
    *,
    active: bool,
    hosts: Collection[str] = (),
    snapshot: Snapshot | None = None,
    plan: Plan | None = None,
    admitted: Admitted | None = None,
) -> OperationStatus | None:
    """The state in which an operation ends now; None: it goes on. `active`: a migration of its own has not ended.

    `hosts`: those that it empties; of an undo, those where its VMs are and were. An operation with a VM on one that
    cannot be reached goes on: it may come back."""
    if active or status is OperationStatus.PAUSED or status.final:
        return None
    if status is OperationStatus.STOPPING:
        return OperationStatus.STOPPED
    if snapshot is None or plan is None or admitted is None or admitted.start or admitted.waits:
        return None
    silent = {host.name for host in snapshot.hosts if host.unreachable}
    if status is OperationStatus.UNDOING:
        return None if silent.intersection(hosts) else OperationStatus.UNDONE
    if any(moving.target in hosts or _home(snapshot, moving.vm) in hosts for moving in snapshot.moving):
        return None
    inside = [vm for vm in snapshot.vms if vm.host in hosts]
    if not inside:
        return OperationStatus.DONE
    if any(vm.host in silent for vm in inside):
        return None
    return OperationStatus.INCOMPLETE


def _home(snapshot: Snapshot, uuid: str) -> str:
    return next((vm.host for vm in snapshot.vms if vm.uuid == uuid), "")
