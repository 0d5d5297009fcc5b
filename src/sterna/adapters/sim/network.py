"""The Network port on the simulated world: a service with one binding per port and host, as Neutron has them."""

from __future__ import annotations

from sterna.adapters.sim.world import SimWorld
from sterna.domain import plugs
from sterna.domain.errors import Refused
from sterna.domain.model import Nic, Vm


class SimNetwork:
    """One simulated network service (ports.network.Network)."""

    def __init__(self, world: SimWorld) -> None:
        self._world = world

    async def nics_for(self, vm: Vm, host: str) -> tuple[Nic, ...]:
        """P5, F6: the VM's NICs; an inactive binding for `host` where it has none yet. Raises Refused."""
        await self._called()
        refusals = [r for nic in vm.nics for r in plugs.refusals(nic) or plugs.unknowns(nic)]
        if refusals:
            raise Refused(refusals)
        for port in _ports(vm):
            if host not in self._world.bindings.get(port, {}):
                self._world.bind(port, host, False)
        return vm.nics

    async def activate(self, vm: Vm, host: str) -> None:
        """F7: the ports are `host`'s; every other binding is deleted."""
        await self._called()
        for port in _ports(vm):
            self._world.bind(port, host, True)
            for other in sorted(self._world.bindings[port].keys() - {host}):
                self._world.bind(port, other, None)

    async def withdraw(self, vm: Vm, host: str) -> None:
        """R6: delete `host`'s inactive bindings."""
        await self._called()
        for port in _ports(vm):
            if self._world.bindings.get(port, {}).get(host) is False:
                self._world.bind(port, host, None)

    async def _called(self) -> None:
        await self._world.clock.sleep(self._world.pace.call_ms / 1000)


def _ports(vm: Vm) -> list[str]:
    return [nic.port_id for nic in vm.nics if nic.port_id]
