"""Why a promise moved: the VM, host or link that moved it, found by planning without its change.

Each difference between two snapshots is taken back in turn. The one without which the promise would have moved
least is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sterna.domain.fleet.operations import Operation
from sterna.domain.fleet.planner import plan
from sterna.domain.fleet.plans import Plan
from sterna.domain.fleet.snapshot import Host, Snapshot, Vm
from sterna.domain.model import Value

TOLERANCE_S = 5.0
TOLERANCE = 0.02
"""Of the promise: less has not moved it."""
MIB = 1 << 20
MOST_TRIED = 12
"""Differences that are taken back, VMs and hosts that the plan is about first."""


class PromiseMoved(Value):
    """The promise of an operation is another one."""

    by_s: float
    """Later; negative: sooner."""
    reason: str
    """One sentence that names what moved it."""


class Then(Value):
    """A plan, what it was made from, and how long ago."""

    snapshot: Snapshot
    plan: Plan
    elapsed_s: float


def why_moved(
    before: Then, snapshot: Snapshot, operation: Operation, now: Plan, ended_s: Mapping[int, float] | None = None
) -> PromiseMoved | None:
    """The change from the plan before to the plan of now; None where it is small. `ended_s`: when moves of the plan
    before have really ended, in its seconds."""
    by = before.elapsed_s + now.promise.promised_s - before.plan.promise.promised_s
    if abs(by) <= max(TOLERANCE_S, TOLERANCE * before.plan.promise.promised_s):
        return None
    reason = _largest(before, snapshot, operation, now, by) or _slowest(before.plan, ended_s or {}, by)
    return PromiseMoved(by_s=round(by, 1), reason=reason)


def _largest(before: Then, snapshot: Snapshot, operation: Operation, now: Plan, by: float) -> str:
    """The difference that moved it most in this direction; '' where none moved it noticeably."""
    found = []
    for sentence, without in list(_differences(before, snapshot))[:MOST_TRIED]:
        other = plan(without, operation, now).promise.promised_s
        found.append((now.promise.promised_s - other, sentence))
    effect, sentence = max(found, key=lambda one: one[0] * by, default=(0.0, ""))
    return sentence if effect * by > 0 and abs(effect) >= TOLERANCE * abs(by) else ""


def _differences(before: Then, snapshot: Snapshot) -> Iterator[tuple[str, Snapshot]]:
    """What has changed, in words, and the snapshot of now without it."""
    touched = {name for move in before.plan.moves for name in (move.vm, move.source, move.target)}
    hosts = {host.name: host for host in before.snapshot.hosts}
    for host in sorted(snapshot.hosts, key=lambda host: (host.name not in touched, host.name)):
        was = hosts.get(host.name)
        for sentence, old in _host_changes(was, host) if was is not None else ():
            changed = tuple(old if one.name == host.name else one for one in snapshot.hosts)
            yield sentence, snapshot.model_copy(update={"hosts": changed})
    vms = {vm.uuid: vm for vm in before.snapshot.vms}
    for vm in sorted(snapshot.vms, key=lambda vm: (vm.uuid not in touched, vm.uuid)):
        earlier = vms.get(vm.uuid)
        if earlier is None:
            rest = tuple(one for one in snapshot.vms if one.uuid != vm.uuid)
            yield f"{vm.name} is new on {vm.host}", snapshot.model_copy(update={"vms": rest})
            continue
        for sentence, older in _vm_changes(earlier, vm):
            all_vms = tuple(older if one.uuid == vm.uuid else one for one in snapshot.vms)
            yield sentence, snapshot.model_copy(update={"vms": all_vms})


def _host_changes(was: Host, host: Host) -> Iterator[tuple[str, Host]]:
    name = host.name
    for field, what in (("out_bytes_s", "out of"), ("in_bytes_s", "into")):
        old, new = getattr(was, field), getattr(host, field)
        if old != new:
            yield (
                f"the link {what} {name} carries {_rate(new)} instead of {_rate(old)}",
                host.model_copy(update={field: old}),
            )
    if was.stream_bytes_s != host.stream_bytes_s:
        sentence = f"a copy on {name} reaches {_rate(host.stream_bytes_s)} instead of {_rate(was.stream_bytes_s)}"
        yield sentence, host.model_copy(update={"stream_bytes_s": was.stream_bytes_s})
    if was.unreachable != host.unreachable:
        sentence = (
            f"{name} is unreachable: {host.unreachable}" if host.unreachable else f"{name} is reachable again"
        )
        yield sentence, host.model_copy(update={"unreachable": was.unreachable})
    if was.closed != host.closed:
        sentence = f"{name} was closed: {host.closed}" if host.closed else f"{name} was opened"
        yield sentence, host.model_copy(update={"closed": was.closed})


def _vm_changes(was: Vm, vm: Vm) -> Iterator[tuple[str, Vm]]:
    if was.dirty_bytes_s != vm.dirty_bytes_s:
        sentence = f"{vm.name} writes {_rate(vm.dirty_bytes_s)} instead of {_rate(was.dirty_bytes_s)}"
        yield sentence, vm.model_copy(update={"dirty_bytes_s": was.dirty_bytes_s})
    if was.copied_bytes != vm.copied_bytes:
        sentence = f"{vm.name} has {vm.copied_bytes // MIB} MiB to copy instead of {was.copied_bytes // MIB} MiB"
        sizes = ("memory_bytes", "touched_bytes", "disk_bytes")
        yield sentence, vm.model_copy(update={size: getattr(was, size) for size in sizes})
    if vm.tries > was.tries:
        where = ", ".join(f"{host}: {why}" for host, why in sorted(vm.avoid.items()) if host not in was.avoid)
        sentence = f"the migration of {vm.name} failed" + (f" on {where}" if where else "")
        yield sentence, vm.model_copy(update={"tries": was.tries, "avoid": was.avoid})


def _slowest(plan: Plan, ended_s: Mapping[int, float], by: float) -> str:
    """The move that ended furthest from its forecast, in the promise's direction."""
    off = [(ended_s[move.number] - move.end_s, move) for move in plan.moves if move.number in ended_s]
    off = [(late, move) for late, move in off if late * by > 0]
    if not off:
        return f"running migrations are {'slower' if by > 0 else 'faster'} than expected"
    late, move = max(off, key=lambda one: (abs(one[0]), -one[1].number))
    word = "later" if late > 0 else "sooner"
    return f"{move.name} left {move.source} {abs(late):.0f} s {word} than expected"


def _rate(bytes_s: int | None) -> str:
    return "an unknown rate" if bytes_s is None else f"{bytes_s / MIB:.0f} MiB/s"
