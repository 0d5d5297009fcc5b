"""Plugging NICs into one host's switch. Three verbs, as os-vif has them, and a look at the bridge."""

from __future__ import annotations

from typing import Final, Protocol

from sterna.domain.model import Nic

MADE_BY: Final = {"made-by": "sterna"}
"""In the external_ids of a port whose tap Sterna made ahead of the guest: libvirt does not remove it."""


class Vif(Protocol):
    """One plug type on one host. Every method may be repeated."""

    async def describe(self, nic: Nic) -> Nic | None:
        """The NIC's port as the switch has it now (bridge, vlan, mtu, external_ids, device), found by its
        device or, failing that, by port id; None where it is not plugged here."""

    async def bridge_exists(self, bridge: str) -> bool:
        """Is there such a bridge on this host?"""

    async def plug(self, nic: Nic, *, vm_uuid: str, device: str) -> Nic:
        """P10: make the tap `device` ahead of the guest and add it to the NIC's bridge, with external_ids as
        Nova writes them (iface-id, iface-status=active, attached-mac, vm-uuid) and MADE_BY, VLAN tag and MTU kept.
        The same tap already there is success. Raises Conflict if `device` belongs to something else."""

    async def wired(self, device: str) -> bool:
        """P12: does the switch forward for this port (ofport assigned, no error)?"""

    async def announce(self, device: str, *, bridge: str, mac: str) -> None:
        """The guest of this port runs here now: tell the network, as the guest would, so that its switches send
        its frames here. May be repeated. Raises NotFound where there is no such port on that bridge."""

    async def unplug(self, device: str, *, bridge: str) -> bool:
        """R6, F4: take the port off the bridge and delete the tap. False where there was nothing."""

    async def put_back(self, nic: Nic) -> bool:
        """R6: the NIC's device, where it is still there, is a port again as `nic` (a `describe`) says: same bridge,
        external_ids, VLAN and MTU. False where the device is gone. The same port already there is success."""

    async def made_ahead(self) -> list[Nic]:
        """The ports of this host whose tap `plug` made, whoever's VM they are for (`external_ids` has vm-uuid)."""
