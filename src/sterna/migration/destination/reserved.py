"""What is reserved for guests that are on their way to this host and have no QEMU here yet: the ports, paths and
pages that their definitions name.

Asked by the destination's check, and again at P6. At P6 only migrations that were accepted earlier count: of two
guests that want one port, the first gets it.
"""

from __future__ import annotations

from typing import Protocol

from sterna.domain.entries.destination_notes import IncomingVm
from sterna.domain.journal import Role
from sterna.domain.model import GuestState, Refusal, Vm
from sterna.domain.references import less_promised
from sterna.domain.resource_checks import clashes
from sterna.migration.context import HostPorts
from sterna.ports.hypervisor import Admission, Observations
from sterna.ports.records import Journal

_OF_ONE_VM = {"nvram": "NVRAM", "tpm": "the TPM's state"}
"""State that two VMs never share."""


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


async def state_of_others(host: HostPorts, vm: Vm) -> list[Refusal]:
    """NVRAM and TPM state of `vm` that would be written into a file which another VM of this host names: also one
    that is off, which would find this VM's state in it."""
    files = {state.path: state.kind for state in vm.firmware if state.kind in _OF_ONE_VM and state.path}
    if not files:
        return []
    users = await host.storage.used_by(tuple(files), await host.hypervisor.claims(besides=vm.uuid))
    return [
        Refusal(
            code="path-taken",
            message=f"{_OF_ONE_VM[files[path]]} would be written to {path}, of {', '.join(owners)} on {host.name}",
            fix="give one of the two VMs another path",
        )
        for path, owners in users.items()
    ]
