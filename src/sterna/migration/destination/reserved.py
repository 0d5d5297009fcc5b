"""What is reserved for guests that are on their way to this host and have no QEMU here yet: the ports, paths and
pages that their definitions name.

Asked by the destination's check, and again at P6. At P6 only migrations that were accepted earlier count: of two
guests that want one port, the first gets it.
"""

from __future__ import annotations

import re
from typing import Protocol

from sterna.domain import state_files
from sterna.domain.entries.destination import TargetsToMake
from sterna.domain.entries.destination_notes import IncomingVm
from sterna.domain.entries.source import Snapshot
from sterna.domain.journal import Role
from sterna.domain.model import GuestState, Refusal, Vm
from sterna.domain.references import Kind, less_promised
from sterna.domain.resource_checks import clashes
from sterna.migration.context import HostPorts
from sterna.ports.hypervisor import Admission, Observations
from sterna.ports.records import Journal

_OF_ONE_VM = state_files.WRITTEN | {"tpm": "the TPM's state"}
"""State that two VMs never share."""
_RUNS = re.compile(r"\((running|paused)\)$")


class IncomingChecks(Admission, Observations, Protocol):
    """The part of the hypervisor that is used here."""


async def refusals(hypervisor: IncomingChecks, journal: Journal, vm: Vm, *, before: str = "") -> list[Refusal]:
    """The hypervisor's reasons against the VM, and what is reserved for others. `before`: the id of a migration;
    only those that were accepted earlier count."""
    others = await _on_their_way(hypervisor, journal, vm, before)
    vm = vm.model_copy(update={"references": less_promised(vm.references, [o.references for o in others])})
    found = list(await hypervisor.check_incoming(vm))
    return found + [r for other in others for r in clashes(vm.references, other.name, other.references)]


async def _on_their_way(hypervisor: Observations, journal: Journal, vm: Vm, before: str) -> tuple[Vm, ...]:
    """The other guests, oldest migration first."""
    found: list[Vm] = []
    for migration, role in journal.open() if vm.references else ():
        if migration.id == before:
            break
        if role is not Role.DESTINATION or migration.vm_uuid == vm.uuid:
            continue
        other = next(filter(None, map(IncomingVm.of, journal.entries(migration.id))), None)
        if other is None:
            continue
        seen = await hypervisor.observe(migration.vm_uuid)
        if seen.state not in (GuestState.RUNNING, GuestState.PAUSED):  # else what it has is seen to be taken
            found.append(other.vm)
    return tuple(found)


async def overwritten(host: HostPorts, journal: Journal, vm: Vm) -> list[Refusal]:
    """Files of this host that the arriving guest would write over, and that are not known to be its own: NVRAM,
    firmware, the state of a TPM, and what its devices write.

    Raises StorageSilent where one does not answer.
    """
    found = [*state_files.against(vm), *await _of_others(host, vm)]
    there = [s for s in state_files.overwritten(vm) if await host.storage.identity(s.path) is not None]
    left = _left_here(journal, vm.uuid) if there else frozenset()
    said = {state.path for state in there if any(state.path in refusal.message for refusal in found)}
    return found + state_files.exist([s for s in there if s.path not in left | said], host.name)


async def _of_others(host: HostPorts, vm: Vm) -> list[Refusal]:
    """What another VM of this host names, running or off: a VM that is off would find this VM's state in it."""
    files = {ref.name: f"{ref.where} output" for ref in vm.references if ref.kind is Kind.OUTPUT and not ref.cold}
    files = {path: what for path, what in files.items() if not path.startswith("/dev/")}
    files |= {
        state.path: _OF_ONE_VM[state.kind] for state in vm.firmware if state.kind in _OF_ONE_VM and state.path
    }
    if not files:
        return []
    claims = await host.hypervisor.claims(besides=vm.uuid)
    users = await host.storage.used_by(tuple(files), claims)
    state = {state.path for state in vm.firmware}
    running = {ref.name for ref in vm.references} - state  # the hypervisor's own check reports these
    return [
        Refusal(
            code="path-taken",
            message=f"{files[path]} would be written to {path}, of {', '.join(owners)} on {host.name}",
            fix="give one of the two VMs another path",
        )
        for path, owners in users.items()
        if path not in running or not all(_RUNS.search(owner) for owner in owners)
    ]


def _left_here(journal: Journal, uuid: str) -> frozenset[str]:
    """Paths of state that the VM may have left on this host: it ran here with them, or a migration made them."""
    found = [
        state.path
        for snapshot in filter(None, map(Snapshot.of, journal.settled(Snapshot.entry)))
        if snapshot.vm.uuid == uuid
        for state in snapshot.vm.firmware
    ]
    for entry in journal.settled(TargetsToMake.entry):
        made, accepted = TargetsToMake.of(entry), journal.get(entry.migration_id)
        if made is not None and accepted is not None and accepted[0].vm_uuid == uuid:
            found += made.absent
    return frozenset(found)
