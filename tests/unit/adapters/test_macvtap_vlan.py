"""A VLAN of a macvtap in passthrough mode: libvirt sets it on virtual functions only."""

from pathlib import Path

import pytest

from sterna.adapters.vif.macvtap import against_vlan
from sterna.domain.model import Nic
from sterna.domain.plugs import MACVTAP, PASSTHROUGH

NIC = Nic(mac="52:54:00:00:00:01", plug=MACVTAP, parent="ens1f0v3", mode=PASSTHROUGH, vlan=7)


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    (tmp_path / "class/net/ens1f0v3/device/physfn").mkdir(parents=True)
    (tmp_path / "class/net/ens1f0/device").mkdir(parents=True)
    return tmp_path


def test_a_virtual_function_can_have_it(sysfs: Path) -> None:
    assert against_vlan(NIC, sysfs) == []


def test_another_device_cannot(sysfs: Path) -> None:
    (refusal,) = against_vlan(NIC.model_copy(update={"parent": "ens1f0"}), sysfs)
    assert refusal.code == "vf-missing"
    assert "ens1f0 is not a virtual function" in refusal.message and "VLAN 7" in refusal.message
    assert "ens1f0" in refusal.fix


def test_without_a_vlan_it_need_not_be_one(sysfs: Path) -> None:
    assert against_vlan(NIC.model_copy(update={"parent": "ens1f0", "vlan": None}), sysfs) == []
