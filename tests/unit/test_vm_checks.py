"""What a VM itself says against moving now (`agent/source_checks.py`): its devices, disks and NICs."""

from __future__ import annotations

import pytest

from sterna.agent.vm_checks import check_vm
from sterna.domain.model import Disk, DiskKind, GuestState, Nic, Vm
from sterna.domain.plugs import BRIDGE, MACVTAP, OVS

MAC = "52:54:00:00:00:01"


def vm(**more: object) -> Vm:
    facts = {"uuid": "u", "name": "tern", "state": GuestState.RUNNING, "memory_bytes": 1, "vcpus": 1}
    return Vm.model_validate(facts | more)


def test_a_plain_vm_may_move() -> None:
    nic = Nic(mac=MAC, plug=BRIDGE, bridge="br0")
    assert check_vm(vm(nics=(nic,), disks=(Disk(target="sda", kind=DiskKind.EMPTY),)), None, []) == []


def test_a_device_that_cannot_move_is_named() -> None:
    (refusal,) = check_vm(vm(immovable=("hostdev 0000:03:00.0",)), None, [])
    assert (refusal.code, refusal.message) == ("device-immovable", "hostdev 0000:03:00.0 cannot move")


def test_a_disk_of_an_unknown_kind_is_named() -> None:
    disk = Disk(target="vdb", kind=DiskKind.OTHER, detail="network disk over nbd")
    (refusal,) = check_vm(vm(disks=(disk,)), None, [])
    assert refusal.code == "disk-unsupported"
    assert "vdb" in refusal.message and "nbd" in refusal.message


def test_a_local_disk_that_others_may_write_to_is_not_copied() -> None:
    disk = Disk(target="vdb", kind=DiskKind.FILE, path="/srv/vdb", format="raw", local=True, shareable=True)
    (refusal,) = check_vm(vm(disks=(disk,)), None, [])
    assert refusal.code == "disk-shareable"
    assert "/srv/vdb" in refusal.message and "shareable" in refusal.fix
    assert check_vm(vm(disks=(disk.model_copy(update={"local": False}),)), None, []) == []


def test_a_part_of_a_local_file_is_not_copied() -> None:
    disk = Disk(target="vdb", kind=DiskKind.FILE, path="/srv/vdb", format="raw", local=True, sliced=True)
    (refusal,) = check_vm(vm(disks=(disk,)), None, [])
    assert refusal.code == "disk-not-copyable"
    assert "slice" in refusal.message and "/srv/vdb" in refusal.message and "slices" in refusal.fix
    assert check_vm(vm(disks=(disk.model_copy(update={"local": False}),)), None, []) == []


@pytest.mark.parametrize(
    ("nic", "codes"),
    [
        (Nic(mac=MAC, plug=BRIDGE), ["nic-bridge-unknown"]),
        (Nic(mac=MAC, plug=OVS), ["nic-bridge-unknown", "nic-port-unknown"]),
        (Nic(mac=MAC, plug=MACVTAP, mode="bridge"), ["nic-parent-unknown"]),
    ],
)
def test_a_nic_that_hangs_nobody_knows_where_is_refused(nic: Nic, codes: list[str]) -> None:
    found = check_vm(vm(nics=(nic,)), None, [])
    assert [refusal.code for refusal in found] == codes
    assert all(MAC in refusal.message and refusal.fix for refusal in found)


def test_where_the_nics_of_a_vm_that_is_off_belong_is_not_asked() -> None:
    found = check_vm(vm(state=GuestState.SHUTOFF, nics=(Nic(mac=MAC, plug=BRIDGE),)), None, [])
    assert [refusal.code for refusal in found] == ["vm-not-running"]
