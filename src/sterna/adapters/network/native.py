"""The `native` network: no service, the VM's own description is the truth (protocol P5, F7, R6)."""

from __future__ import annotations

from sterna.domain import plugs
from sterna.domain.errors import Refused
from sterna.domain.model import Nic, Refusal, Vm


class NativeNetwork:
    """`ports.network.Network` without a network service: there are no bindings to make, move or withdraw."""

    service = ""

    async def nics_for(self, vm: Vm, source: str, destination: str) -> tuple[Nic, ...]:
        """P5: the VM's NICs as it describes them; the same bridge and VLAN on every host.

        Raises Refused, with every reason, for NICs that no host could plug.
        """
        refusals = [r for nic in vm.nics for r in plugs.refusals(nic) or plugs.unknowns(nic)]
        if refusals:
            raise Refused(refusals)
        return vm.nics

    async def check(self, vm: Vm, source: str, destination: str) -> list[Refusal]:
        """There is no service to ask."""
        return []

    async def prepare(self, vm: Vm, source: str, destination: str) -> None:
        """Nothing to do, no service knows where a port is."""

    async def switch(self, vm: Vm, source: str, destination: str) -> None:
        """Nothing to do."""

    async def settle(self, vm: Vm, source: str, destination: str) -> None:
        """F7: nothing to do."""

    async def give_back(self, vm: Vm, source: str, destination: str) -> bool:
        """R6: nothing to do."""
        return False

    async def withdraw(self, vm: Vm, source: str, destination: str) -> None:
        """R6: nothing to do."""

    async def wired(self, vm: Vm, host: str) -> bool:
        """There is no service to ask: the switch itself shows all there is to know."""
        return True
