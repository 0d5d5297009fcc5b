"""Place a VM: all hosts, the best first, each with what keeps it away. Starts nothing, and asks no host.

It is how drains choose. What a host's agent has against the VM is asked when a migration is planned or begun.
"""

from __future__ import annotations

from sterna.controller.operations.calculating import calculated
from sterna.controller.operations.observing import Observer
from sterna.controller.records.inventory import Inventory
from sterna.domain.fleet.ranking import Ranking, rank
from sterna.domain.fleet.snapshot import Snapshot
from sterna.domain.model import Value
from sterna.domain.policies import DEFAULT, POLICIES
from sterna.ports.fleet import VmRecord


class Placement(Value):
    """A VM and all other hosts."""

    vm: VmRecord
    ranking: Ranking


class PlaceVm:
    """The intent "where could it go"."""

    def __init__(self, inventory: Inventory, observer: Observer) -> None:
        self._inventory, self._observer = inventory, observer

    async def place(self, vm: str) -> Placement:
        """`vm`: name or UUID. Raises VmMissing; Refused where the name is ambiguous or the VM runs twice."""
        found = await self._inventory.find(vm)
        ranking = await _ranked((await self._observer.observe()).snapshot, found)
        if found.migration_id is not None:
            why = f"{found.name} is in migration {found.migration_id} already"
            ranking = ranking.model_copy(update={"stays": why})
        return Placement(vm=found, ranking=ranking)


async def _ranked(snapshot: Snapshot, vm: VmRecord) -> Ranking:
    """That of many VMs is made beside the event loop."""
    if not any(one.uuid == vm.uuid for one in snapshot.vms) or not any(
        one.name == vm.host for one in snapshot.hosts
    ):
        return Ranking(stays=f"{vm.name} has just left {vm.host}")
    may = POLICIES[DEFAULT].may
    return await calculated(len(snapshot.vms), lambda: rank(snapshot, vm.uuid, may))
