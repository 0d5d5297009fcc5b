"""The Hypervisor port on a simulated host, with libvirt's real shape: its states, its refusals, its words."""

from __future__ import annotations

from sterna.domain.model import Nic
from sterna.sim.libvirt import devices
from sterna.sim.libvirt.inventory import SimInventory
from sterna.sim.libvirt.keyring import SimKeyring
from sterna.sim.libvirt.lifecycle import SimLifecycle
from sterna.sim.libvirt.mover import SimMover


class SimHypervisor(SimInventory, SimMover, SimLifecycle, SimKeyring):
    """One simulated host's hypervisor (ports.hypervisor.Hypervisor). Each call takes `Pace.call_ms`.

    Make a new one for each life of an agent: it remembers which guests it has seen running.
    """

    async def detach_nic(self, uuid: str, nic: Nic) -> None:
        """See ports.hypervisor.Devices."""
        await self._called()
        devices.detach_nic(self._world, self._host.name, uuid, nic)

    async def attach_nic(self, uuid: str, nic: Nic) -> None:
        """See ports.hypervisor.Devices."""
        await self._called()
        devices.attach_nic(self._world, self._host.name, uuid, nic)
