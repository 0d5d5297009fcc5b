"""SR-IOV `direct`: the guest has a virtual function of one of the host's own NICs (protocol P8, M1, F6).

Which VFs there are, of which physical network, and which a guest has, the kernel tells in sysfs. Nothing is changed
here: libvirt binds the VF to vfio-pci, sets its MAC and VLAN, and gives it back. Never run on hardware
(docs/reference/plug-types.md).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from sterna.domain.errors import Conflict, NotFound
from sterna.domain.model import Nic, Refusal
from sterna.domain.sriov import VirtualFunction, choose


class HostdevVif:
    """`ports.vif.Vif` for virtual functions that the guest drives itself."""

    def __init__(self, physical_networks: Mapping[str, Sequence[str]], *, sysfs: Path = Path("/sys")) -> None:
        """`physical_networks`: each network's physical functions, by network device."""
        self._networks, self._sysfs = physical_networks, sysfs

    def functions(self) -> list[VirtualFunction]:
        """Every VF of the configured physical functions. One that is missing has none."""
        found = []
        for network, parents in self._networks.items():
            for parent in parents:
                for link in sorted((self._sysfs / "class/net" / parent / "device").glob("virtfn*")):
                    device = link.resolve()
                    driver = device / "driver"
                    found.append(
                        VirtualFunction(
                            address=device.name,
                            parent=parent,
                            physical_network=network,
                            driver=driver.resolve().name if driver.exists() else "",
                        )
                    )
        return found

    async def describe(self, nic: Nic) -> Nic | None:
        """The NIC with its VF's physical network; None where no configured one has such a VF."""
        mine = next((f for f in self.functions() if f.address == nic.pci), None)
        return nic.model_copy(update={"physical_network": mine.physical_network}) if mine is not None else None

    async def check(self, nic: Nic) -> list[Refusal]:
        """A VF of its physical network must be free here."""
        if choose(self.functions(), nic.physical_network or "", ()) is not None:
            return []
        message = f"no virtual function of {nic.physical_network} is free for NIC {nic.mac}"
        fix = "free one, or name the network's devices: [network] physical_networks"
        return [Refusal(code="vf-missing", message=message, fix=fix)]

    async def claim(self, nic: Nic, taken: Collection[str]) -> Nic:
        """P8: the VF it shall have here. Raises Conflict where none is free."""
        chosen = choose(self.functions(), nic.physical_network or "", taken)
        if chosen is None:
            raise Conflict(f"no virtual function of {nic.physical_network} is free for NIC {nic.mac}")
        return nic.model_copy(update={"pci": chosen.address})

    async def plug(self, nic: Nic, *, vm_uuid: str, device: str) -> Nic:
        """P10: a last look at the VF that was claimed. Raises NotFound, Conflict."""
        mine = next((f for f in self.functions() if f.address == nic.pci), None)
        if mine is None:
            raise NotFound(f"there is no virtual function {nic.pci} here")
        if choose([mine], nic.physical_network or "", ()) is None:
            raise Conflict(f"virtual function {nic.pci} has been taken by another guest")
        return nic

    async def make_way(self, nic: Nic) -> None:
        """Nothing: P10 made nothing."""

    async def wired(self, nic: Nic) -> bool:
        """F7: is there such a VF? Whether it forwards only its guest knows."""
        return any(f.address == nic.pci for f in self.functions())

    async def announce(self, nic: Nic) -> None:
        """Nothing: the guest's own bond tells the network when it takes the VF up."""

    async def unplug(self, nic: Nic, *, for_good: bool = True) -> bool:
        """Nothing: libvirt gave it back with the guest."""
        return False

    async def put_back(self, nic: Nic) -> bool:
        """R6: no agent takes a virtual function from its place; the guest is given it again by another step."""
        return False

    async def made_ahead(self) -> list[Nic]:
        """None, ever."""
        return []
