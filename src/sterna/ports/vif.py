"""Plugging NICs into one host, each by its own plug type (`Nic.plug`, `domain/plugs.py`)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Protocol

from sterna.domain.model import Nic, Refusal

MADE_BY: Final = {"made-by": "sterna"}
"""In the external_ids of a port that Sterna made ahead of the guest. libvirt removes it when that guest ends."""


class Vif(Protocol):
    """One host's switches, bridges and devices. Every method may be repeated, and raises Unreachable where Open
    vSwitch is needed and does not answer."""

    async def describe(self, nic: Nic) -> Nic | None:
        """The NIC as it is plugged here now (bridge or parent, vlan, mtu, external_ids, device), found by its
        device or, failing that, by port id, else by MAC; None where it is not plugged here."""

    async def check(self, nic: Nic) -> list[Refusal]:
        """What this host lacks to plug this NIC: its bridge, its parent, a parent that is free. Changes nothing."""

    async def claim(self, nic: Nic, taken: Collection[str]) -> Nic:
        """P8: the NIC with the device of this host that it shall have for itself (`plugs.claimed`), none of
        `taken`; as it is where it needs none. The same question has the same answer; nothing is changed. Raises
        Conflict where none is free."""

    async def plug(self, nic: Nic, *, vm_uuid: str, device: str) -> Nic:
        """P10: make the tap `device` ahead of the guest and put it where its plug type says, marked with iface-id,
        iface-status=active, attached-mac and vm-uuid as Nova does, and MADE_BY; VLAN tag and MTU kept. The same
        already there is not an error. Of a plug type that is not made ahead: look whether libvirt can make it.

        Raises Conflict if `device` or the parent belongs to something else, NotFound without bridge or parent,
        Permanent.
        """

    async def make_way(self, nic: Nic) -> None:
        """Before M4: libvirt makes a tap of the name `nic.device` with the incoming guest, and refuses where one is
        there already. So the tap that P10 made is deleted; what the switch knows of its port stays (VLAN, number,
        external_ids), and libvirt's tap takes that port over. A tap that is gone already is not an error.

        Raises Conflict if a process has it open, or if the device is not a tap.
        """

    async def wired(self, nic: Nic) -> bool:
        """P12, F7: is `nic.device` where it belongs, and does the host forward for it? Of a plug type that is not
        made ahead: is the device there and up?"""

    async def announce(self, nic: Nic) -> None:
        """The guest of this port runs here now: announce it to the network, as the guest would, so that its
        switches send its frames here. May be repeated. Raises NotFound where there is no such port on that
        bridge."""

    async def unplug(self, nic: Nic, *, for_good: bool = True) -> bool:
        """R6, F4: take `nic.device` out of `nic.bridge` and delete it, with all that its plug type put between the
        two. False where there was nothing of this NIC: a device that another one has under that name stays.

        Not `for_good`: the guest is off but may be started here again, so what libvirt itself plugs into stays
        (bridge and veth of a hybrid plug). Raises Conflict if the device is elsewhere.
        """

    async def put_back(self, nic: Nic) -> bool:
        """R6: the NIC's device, where it is still there, is a port again as `nic` (a `describe`) says: same bridge,
        external_ids, VLAN and MTU. False where the device is gone. The same port already there is not an error."""

    async def made_ahead(self) -> list[Nic]:
        """The ports of this host that `plug` made, for any VM (`external_ids` has vm-uuid). Without `device`: the
        tap itself is gone."""
