"""Whoever follows the advice of a refusal must not end up in another host's private network."""

import pytest

from sterna.domain.model import Nic
from sterna.domain.plugs import BRIDGE, OVS, no_bridge, refusals

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


@pytest.mark.parametrize("bridge", ["virbr0", "virbr12"])
def test_a_nic_on_such_a_bridge_is_refused_although_the_destination_has_one_of_that_name(bridge: str) -> None:
    (found,) = refusals(Nic(mac=MAC, plug=BRIDGE, bridge=bridge))
    assert found.code == "nic-unsupported"
    assert bridge in found.message
    assert "each host's own" in found.fix


@pytest.mark.parametrize(
    ("plug", "bridge"), [(BRIDGE, "br0"), (BRIDGE, "virbr-lan"), (OVS, "virbr0"), (BRIDGE, None)]
)
def test_a_bridge_that_an_operator_named_is_not(plug: str, bridge: str | None) -> None:
    assert refusals(Nic(mac=MAC, plug=plug, bridge=bridge)) == []
