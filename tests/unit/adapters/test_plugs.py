"""Every plug type of one host behind one port."""

from __future__ import annotations

import pytest

from sterna.adapters.vif.links import belongs_to, tap_mac
from sterna.adapters.vif.plugs import Plugs
from sterna.domain.model import Nic
from sterna.domain.plugs import HYBRID, OVS


@pytest.mark.parametrize("plug", [OVS, HYBRID])
async def test_a_host_without_open_vswitch_takes_no_nic_that_needs_it(plug: str) -> None:
    nic = Nic(mac="52:54:00:00:00:01", plug=plug, bridge="br-int", port_id="p")
    (refusal,) = await Plugs(ovsdb="").check(nic)
    assert refusal.code == "no-open-vswitch"
    assert nic.mac in refusal.message


async def test_a_type_that_nobody_supports_is_refused_elsewhere() -> None:
    assert await Plugs(ovsdb="").check(Nic(mac="52:54:00:00:00:01", plug="other: user")) == []


@pytest.mark.parametrize(
    ("guest", "tap"),
    [("52:54:00:00:00:01", "fe:54:00:00:00:01"), ("FE:54:00:00:00:AB", "fa:54:00:00:00:ab")],
)
def test_a_tap_is_known_by_the_mac_that_libvirt_gives_it(guest: str, tap: str) -> None:
    assert tap_mac(guest) == tap
    assert belongs_to({"address": tap}, guest)
    assert not belongs_to({"address": guest.lower()}, guest)
