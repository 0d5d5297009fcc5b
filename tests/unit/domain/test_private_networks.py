"""Whoever follows the advice of a refusal must not end up in another host's private network."""

import pytest

from sterna.domain.model import Nic
from sterna.domain.plugs import BRIDGE, no_bridge, refusals

MAC = "52:54:00:00:00:01"


@pytest.mark.parametrize("name", ["default", "isolated"])
def test_a_network_of_libvirt(name: str) -> None:
    (found,) = refusals(Nic(mac=MAC, plug=f"other: network {name}"))
    assert name in found.message
    assert "each host's own" in found.fix


def test_a_bridge_that_libvirt_made_for_its_network_is_not_to_be_made_by_hand() -> None:
    found = no_bridge(Nic(mac=MAC, plug=BRIDGE, bridge="virbr0"))
    assert found.code == "bridge-missing"
    assert "ip link add" not in found.fix
    assert "each host's own" in found.fix


def test_any_other_bridge_is() -> None:
    assert "ip link add br-lan" in no_bridge(Nic(mac=MAC, plug=BRIDGE, bridge="br-lan")).fix
