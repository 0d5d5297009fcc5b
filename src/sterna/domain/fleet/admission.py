"""What begins now of a plan, and why the rest waits.

The only place that lets migrations of operations begin. What runs already takes slots, whoever has asked for it: a
single migration is never held back, and operations wait for it. A migration goes from its preparation to its copy
by itself, so each takes its copying slot when it begins.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from pydantic import PrivateAttr

from sterna.domain.fleet.course import OperationStatus
from sterna.domain.fleet.operations import Mays
from sterna.domain.fleet.plans import Move, Plan
from sterna.domain.fleet.snapshot import Moving, Snapshot, Vm
from sterna.domain.fleet.waiting import Progress, Queue
from sterna.domain.model import Value

MOST_NAMED = 3
"""In one sentence."""


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
    moving = {moving.vm: moving.target for moving in snapshot.moving}
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


def _why(queue: Queue, move: Move, now: Progress, moving: Mapping[str, str], rest: Mapping[str, str]) -> str:
    if move.vm in queue.plan.aborts:
        return f"{move.name} is in a migration that is being aborted"
    if move.vm in moving and not any(one.begun and one.vm == move.vm for one in queue.plan.moves):
        return f"{move.name} is in a migration to {moving[move.vm]}"
    return rest.get(move.vm) or queue.why(move.number, now)


def held(snapshot: Snapshot, holders: Mapping[str, str]) -> dict[str, str]:
    """VMs that migrations hold although they do not move any more, and why they wait: each has arrived, and is free
    once its migration has ended. `holders`: VM -> id of the migration that holds it."""
    moving = {moving.vm for moving in snapshot.moving}
    return {
        vm.uuid: f"{vm.name} is in migration {holders[vm.uuid]}, which has not ended"
        for vm in snapshot.vms
        if vm.uuid in holders and vm.uuid not in moving
    }


class Settling(Value):
    """A migration that has not ended, and whose VM has arrived."""

    vm: str
    """UUID."""
    name: str
    source: str
    target: str


class Situation(Value):
    """What an operation looks like at the moment, as far as its end depends on it."""

    hosts: frozenset[str]
    """Those that it empties; where it brings VMs back, those where these are and were that are not back."""
    snapshot: Snapshot
    plan: Plan
    admitted: Admitted
    own: frozenset[str] = frozenset()
    """UUIDs of the VMs in its own migrations."""
    settling: tuple[Settling, ...] = ()
    empties: bool = True
    """Is it to empty its hosts? Otherwise it has ended when its plan has."""

    _seen: _Seen = PrivateAttr()
    """The same for all hosts of the snapshot, so that each of many costs little."""

    def model_post_init(self, _: object) -> None:
        """Look through the snapshot, once: copies of this one for single hosts have it, too."""
        self._seen = _Seen(self.snapshot, self.settling)

    def silent(self) -> dict[str, str]:
        """Of the hosts, those that may come back, and why they cannot be reached now."""
        return {host: why for host, why in self._seen.silent.items() if host in self.hosts}

    def coming(self) -> tuple[str, ...]:
        """Migrations of others that keep one of the hosts from being empty, or may."""
        found = (one for one in self._seen.coming if one.vm not in self.own and self.hosts & one.ends)
        return tuple(one.words for one in found)

    def inside(self) -> frozenset[str]:
        """Of the hosts, those that say that they have a VM."""
        return self.hosts & self._seen.full


class _Coming(NamedTuple):
    vm: str
    ends: frozenset[str]
    words: str


class _Seen:
    """Of a snapshot, by host."""

    def __init__(self, snapshot: Snapshot, settling: Iterable[Settling]) -> None:
        self.silent = {h.name: h.unreachable for h in snapshot.hosts if h.unreachable and not h.gone}
        self.full = frozenset(name for vm in snapshot.vms for name in (vm.host, *vm.also))
        moving = {moving.vm for moving in snapshot.moving}
        at = {vm.uuid: vm for vm in snapshot.vms if vm.uuid in moving}
        self.coming = [_coming(one, at.get(one.vm)) for one in snapshot.moving]
        for one in settling:
            words = f"the end of the migration of {one.name} from {one.source} to {one.target}"
            self.coming.append(_Coming(one.vm, frozenset({one.source, one.target}), words))


def _coming(moving: Moving, vm: Vm | None) -> _Coming:
    if vm is None:  # no host has listed it yet
        return _Coming(moving.vm, frozenset({moving.target}), f"the migration of {moving.vm} to {moving.target}")
    words = f"the migration of {vm.name} from {vm.host} to {moving.target}"
    return _Coming(moving.vm, frozenset({moving.target, vm.host}), words)


def ending(status: OperationStatus, *, active: bool, situation: Situation | None = None) -> OperationStatus | None:
    """The state in which an operation ends now; None: it goes on. `active`: a migration of its own has not ended.
    `situation`: None where it only waits for these.

    An operation with a VM on a host that cannot be reached goes on: it may come back."""
    if active or status is OperationStatus.PAUSED or status.final:
        return None
    if status is OperationStatus.STOPPING:
        return OperationStatus.STOPPED
    if situation is None or situation.admitted.start or situation.admitted.waits or waits_for(status, situation):
        return None
    if status is OperationStatus.UNDOING:
        return OperationStatus.UNDONE
    left = situation.inside() if situation.empties else situation.plan.left
    return OperationStatus.INCOMPLETE if left else OperationStatus.DONE


def waits_for(status: OperationStatus, situation: Situation) -> str:
    """What keeps an operation from its end beside its own moves: one sentence, '' where that is nothing."""
    silent = situation.silent()
    if status is OperationStatus.UNDOING or not situation.empties:
        needed = frozenset(silent)
    elif coming := situation.coming():
        return ", ".join(coming[:MOST_NAMED]) + (" and others" if len(coming) > MOST_NAMED else "")
    else:
        needed = situation.inside() & silent.keys()
    named = [f"{host} cannot be reached: {silent[host]}" for host in sorted(needed)[:MOST_NAMED]]
    return "; ".join(named) + (f"; and {len(needed) - MOST_NAMED} others" if len(needed) > MOST_NAMED else "")
