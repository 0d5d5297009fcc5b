"""Virtual functions read from a sysfs laid out as the kernel does; no machine here has any."""

from pathlib import Path

import pytest

from sterna.adapters.vif.hostdev import HostdevVif
from sterna.domain.errors import Conflict, NotFound
from sterna.domain.model import Nic

NIC = Nic(mac="52:54:00:00:00:aa", plug="hostdev", pci="0000:3b:02.1", physical_network="physnet1")


def add_function(sysfs: Path, parent: str, number: int, address: str, driver: str = "") -> None:
    """As the kernel shows it: the device under its bus, a `virtfnN` link in its physical function's folder."""
    device = sysfs / "devices/pci0000:3a" / address
    device.mkdir(parents=True)
    if driver:
        (sysfs / "bus/pci/drivers" / driver).mkdir(parents=True, exist_ok=True)
        (device / "driver").symlink_to(sysfs / "bus/pci/drivers" / driver)
    physical = sysfs / "devices/pci0000:3a" / f"pf-{parent}"
    physical.mkdir(exist_ok=True)
    (physical / f"virtfn{number}").symlink_to(device)
    interface = sysfs / "class/net" / parent
    interface.mkdir(parents=True, exist_ok=True)
    if not (interface / "device").exists():
        (interface / "device").symlink_to(physical)


@pytest.fixture
def vif(tmp_path: Path) -> HostdevVif:
    add_function(tmp_path, "eth0", 0, "0000:3b:02.0", "vfio-pci")
    add_function(tmp_path, "eth0", 1, "0000:3b:02.1", "iavf")
    add_function(tmp_path, "eth1", 0, "0000:3c:02.0")
    add_function(tmp_path, "eth2", 0, "0000:3d:02.0")
    networks = {"physnet1": ("eth0", "eth1", "eth9"), "physnet2": ("eth2",)}
    return HostdevVif(networks, sysfs=tmp_path)


def test_every_function_of_the_configured_devices_with_its_driver(vif: HostdevVif) -> None:
    assert [(f.address, f.parent, f.physical_network, f.driver) for f in vif.functions()] == [
        ("0000:3b:02.0", "eth0", "physnet1", "vfio-pci"),
        ("0000:3b:02.1", "eth0", "physnet1", "iavf"),
        ("0000:3c:02.0", "eth1", "physnet1", ""),
        ("0000:3d:02.0", "eth2", "physnet2", ""),
    ]


async def test_a_nics_network_is_its_functions(vif: HostdevVif) -> None:
    seen = await vif.describe(NIC.model_copy(update={"physical_network": None, "pci": "0000:3d:02.0"}))
    assert seen is not None
    assert seen.physical_network == "physnet2"
    assert await vif.describe(NIC.model_copy(update={"pci": "0000:99:00.0"})) is None


async def test_a_claim_is_none_that_a_guest_has_or_was_promised(vif: HostdevVif) -> None:
    assert (await vif.claim(NIC, ())).pci == "0000:3b:02.1"
    assert (await vif.claim(NIC, {"0000:3b:02.1"})).pci == "0000:3c:02.0"
    with pytest.raises(Conflict):
        await vif.claim(NIC, {"0000:3b:02.1", "0000:3c:02.0"})
    assert await vif.check(NIC) == []
    elsewhere = NIC.model_copy(update={"physical_network": "physnet9"})
    assert [r.code for r in await vif.check(elsewhere)] == ["vf-missing"]


async def test_the_last_look_before_the_guest_comes(vif: HostdevVif) -> None:
    assert await vif.plug(NIC, vm_uuid="v", device="") == NIC
    with pytest.raises(Conflict):
        await vif.plug(NIC.model_copy(update={"pci": "0000:3b:02.0"}), vm_uuid="v", device="")
    with pytest.raises(NotFound):
        await vif.plug(NIC.model_copy(update={"pci": "0000:99:00.0"}), vm_uuid="v", device="")
