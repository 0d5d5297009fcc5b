"""The destination's half of a simulated migration, and how it ends alone where its source was declared dead."""

from __future__ import annotations

from bench.fleetsim.host import SimHost
from bench.fleetsim.journal import Half
from bench.fleetsim.truth import Truth
from sterna.domain.copying import CompletedJob
from sterna.domain.entries.base import StatusSet
from sterna.domain.entries.destination import VmUpdated
from sterna.domain.errors import Conflict
from sterna.domain.journal import Kind, Migration, Role
from sterna.domain.model import GuestState
from sterna.domain.status import Status


def prepare(host: SimHost, truth: Truth, migration: Migration) -> None:
    """P3: a QEMU waits for the guest. Raises Conflict where its VM is taken here, or it was refused."""
    if migration.id in host.refused:
        raise Conflict(f"{host.name} was told to refuse migration {migration.id}")
    host.journal.accept(migration, Role.DESTINATION)
    host.journal.steps(migration.id, "P4", "P5", "P6", "P7", "P8", "P9")
    truth.receive(host.name, migration.vm_uuid, migration.id)
    host.journal.steps(migration.id, "P10")
    host.to_hint = host.to_list = True


def arrive(host: SimHost, truth: Truth, id: str, job: CompletedJob | None) -> None:
    """F6 to F9: the guest is this host's. May be repeated."""
    half = host.journal.halves.get(id)
    if half is None or half.closed is not None:
        return
    _finish(host, truth, half, job)
    host.journal.write(id, Kind.CLOSED, row="F9")


def _finish(host: SimHost, truth: Truth, half: Half, job: CompletedJob | None) -> None:
    id, vm = half.migration.id, half.migration.vm_uuid
    state = GuestState.RUNNING if truth.runs_on.get(vm) == host.name else GuestState.SHUTOFF
    updated = VmUpdated(host=host.name, power_state=state, job=job)
    host.journal.steps(id, "F6", "F7")
    host.journal.write(id, Kind.INTENT, "F8", VmUpdated.entry)
    host.journal.write(id, Kind.DONE, "F8", VmUpdated.entry, updated.to_data())
    host.journal.steps(id, "F9")
    host.to_hint = host.to_list = True


def roll_back(host: SimHost, truth: Truth, id: str) -> None:
    """R5 to R7: nothing of it is left here. May be repeated."""
    half = host.journal.halves.get(id)
    if half is None or half.closed is not None:
        return
    _undo(host, truth, half)
    host.journal.write(id, Kind.CLOSED, row="R7")


def _undo(host: SimHost, truth: Truth, half: Half) -> None:
    host.journal.steps(half.migration.id, "R3", "R5", "R6")
    if truth.runs_on.get(half.migration.vm_uuid) != host.name:
        truth.forget(host.name, half.migration.vm_uuid)
    host.journal.steps(half.migration.id, "R7")
    host.to_hint = host.to_list = True


def has_arrived(host: SimHost, truth: Truth, half: Half) -> bool:
    """Is the guest here, or was it when it stopped? One that only waits for its memory is not."""
    vm = half.migration.vm_uuid
    waits = vm in truth.holds[host.name] and truth.runs_on.get(vm) != host.name
    return vm in truth.defined[host.name] and not waits


def settle(host: SimHost, truth: Truth, half: Half) -> None:
    """Its source was declared dead: this half ends by what is true here."""
    id, taken = half.migration.id, has_arrived(host, truth, half)
    status = Status.COMPLETED if taken else Status.FAILED
    if taken:
        _finish(host, truth, half, None)
    else:
        _undo(host, truth, half)
    source = half.migration.source
    where = f"the guest is on {host.name}" if taken else f"the guest was on {source} then"
    reason = StatusSet(status=status, reason=f"{source} was declared dead; {where}")
    host.journal.write(id, Kind.STATUS, name=status, data=reason.to_data())
    host.journal.write(id, Kind.CLOSED, row="F9" if taken else "R7")
    host.to_hint = True
