"""Every plug type of one host behind one port: each NIC goes to the adapter of its own type.

Made by `bootstrap.host`. What else a new plug type needs: docs/contributing/adding-a-plug-type.md.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sterna.adapters.vif.bridge import LinuxBridgeVif
from sterna.adapters.vif.hostdev import HostdevVif
from sterna.adapters.vif.hybrid import HybridVif
from sterna.adapters.vif.links import Netlink
from sterna.adapters.vif.macvtap import MacvtapVif
from sterna.adapters.vif.ovs import OvsVif
from sterna.adapters.vif.ovsdb import TIMEOUT_S, OvsDb
from sterna.domain.errors import Permanent
from sterna.domain.model import Nic, Refusal
from sterna.domain.plugs import BRIDGE, HOSTDEV, HYBRID, MACVTAP, OVS, is_supported
from sterna.ports.vif import Vif


class Plugs:
    """`ports.vif.Vif` for every plug type this host can have."""

    def __init__(
        self,
        ovsdb: str = "unix:/run/openvswitch/db.sock",
        physical_networks: Mapping[str, Sequence[str]] | None = None,
        *,
        timeout_s: int = TIMEOUT_S,
    ) -> None:
        """`ovsdb` '': a host without Open vSwitch. `physical_networks`: the physical functions of each."""
        self._db = OvsDb(ovsdb, timeout_s=timeout_s)
        self._netlink = Netlink()
        self._by_type: dict[str, Vif] = {
            HOSTDEV: HostdevVif(physical_networks or {}),
            BRIDGE: LinuxBridgeVif(self._netlink),
            MACVTAP: MacvtapVif(self._netlink),
        }
        if ovsdb:
            self._by_type |= {OVS: OvsVif(self._db), HYBRID: HybridVif(self._db)}

    async def describe(self, nic: Nic) -> Nic | None:
        """See the port; None too for a type Sterna does not know. Raises Unreachable."""
        return await self._by_type[nic.plug].describe(nic) if nic.plug in self._by_type else None

    async def check(self, nic: Nic) -> list[Refusal]:
        """See the port. Types that are not supported are refused by `domain/plugs.py`. Raises Unreachable."""
        if nic.plug in self._by_type or not is_supported(nic):
            return await self._by_type[nic.plug].check(nic) if nic.plug in self._by_type else []
        message = f"NIC {nic.mac} needs Open vSwitch, which this host does not have"
        fix = "install it and name its database in the agent's settings: [network] ovsdb"
        return [Refusal(code="no-open-vswitch", message=message, fix=fix)]

    async def claim(self, nic: Nic, taken: Collection[str]) -> Nic:
        """P8. Raises Conflict where nothing is free."""
        return await self._of(nic).claim(nic, taken)

    async def plug(self, nic: Nic, *, vm_uuid: str, device: str) -> Nic:
        """P10. Raises Conflict, NotFound, Permanent, Unreachable."""
        return await self._of(nic).plug(nic, vm_uuid=vm_uuid, device=device)

    async def make_way(self, nic: Nic) -> None:
        """Before M4. Raises Conflict, Permanent, Unreachable."""
        await self._of(nic).make_way(nic)

    async def wired(self, nic: Nic) -> bool:
        """P12, F7. Raises Permanent for a type Sterna does not know, Unreachable."""
        return await self._of(nic).wired(nic)

    async def announce(self, nic: Nic) -> None:
        """Tell the network that the guest is here. Raises NotFound, Permanent, Temporary, Unreachable."""
        await self._of(nic).announce(nic)

    async def unplug(self, nic: Nic, *, for_good: bool = True) -> bool:
        """R6, F4. Raises Conflict, Permanent, Unreachable."""
        return await self._of(nic).unplug(nic, for_good=for_good)

    async def put_back(self, nic: Nic) -> bool:
        """R6: False for a type Sterna does not know. Raises Permanent, Unreachable."""
        return nic.plug in self._by_type and await self._by_type[nic.plug].put_back(nic)

    async def made_ahead(self) -> list[Nic]:
        """Of every type. Raises Unreachable: half an answer would look like "nothing is left over"."""
        return [nic for vif in self._by_type.values() for nic in await vif.made_ahead()]

    async def close(self) -> None:
        """Drop the database connection and end the threads."""
        await self._db.close()
        self._netlink.stop()

    def _of(self, nic: Nic) -> Vif:
        if nic.plug not in self._by_type:
            raise Permanent(f"NIC {nic.mac}: nothing here can be plugged as {nic.plug!r}")
        return self._by_type[nic.plug]
