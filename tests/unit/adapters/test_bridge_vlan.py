"""A VLAN of a NIC on a Linux bridge: only a bridge that filters VLANs takes notice of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sterna.adapters.vif import bridge
from sterna.adapters.vif.bridge import LinuxBridgeVif, against_vlan
from sterna.domain.bridge_vlans import against_libvirt, without_effect
from sterna.domain.model import Nic
from sterna.domain.plugs import BRIDGE, OVS
from tests.corpus.hosts import facts

NIC = Nic(mac="52:54:00:00:00:01", plug=BRIDGE, bridge="br0", device="tap0", vlan=7)
PLAIN = NIC.model_copy(update={"vlan": None})
ON_SWITCH = NIC.model_copy(update={"plug": OVS})


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    for name, filters in (("br0", "1"), ("br1", "0")):
        folder = tmp_path / f"class/net/{name}/bridge"
        folder.mkdir(parents=True)
        (folder / "vlan_filtering").write_text(f"{filters}\n")
    return tmp_path


def test_a_bridge_that_filters_has_it(sysfs: Path) -> None:
    assert against_vlan(NIC, sysfs) == []


@pytest.mark.parametrize("name", ["br1", "br-none"])
def test_another_one_does_not(sysfs: Path, name: str) -> None:
    (refusal,) = against_vlan(NIC.model_copy(update={"bridge": name}), sysfs)
    assert (refusal.code, refusal.fix) == ("bridge-vlan", f"ip link set {name} type bridge vlan_filtering 1")
    assert name in refusal.message and "VLAN 7" in refusal.message


def test_without_a_vlan_it_need_not_filter(sysfs: Path) -> None:
    assert against_vlan(PLAIN.model_copy(update={"bridge": "br1"}), sysfs) == []


def test_a_definitions_vlan_that_has_no_effect_is_said() -> None:
    refusal = without_effect(NIC, "alpha")
    assert refusal.code == "bridge-vlan" and "alpha" in refusal.message and "<vlan>" in refusal.fix


@pytest.mark.parametrize(
    ("version", "nic", "refused"),
    [
        (10_010_000, NIC, True),
        (11_000_000, NIC, False),
        (10_010_000, PLAIN, False),
        (10_010_000, ON_SWITCH, False),
    ],
)
def test_the_destinations_libvirt_must_know_how_to_set_it(version: int, nic: Nic, refused: bool) -> None:
    there = facts("beta", "/i").model_copy(update={"libvirt_version": version})
    found = list(against_libvirt((nic,), there))
    assert bool(found) is refused
    for refusal in found:
        assert refusal.code == "bridge-vlan"
        assert "libvirt 10.10 on beta" in refusal.message and "11.0" in refusal.fix


class _Inline:
    async def run(self, act: Callable[[], Any]) -> Any:
        return act()


@pytest.mark.parametrize(("nic", "frames"), [(PLAIN, ["br0"]), (NIC, [])])
async def test_nothing_is_announced_outside_of_the_nics_vlan(
    nic: Nic, frames: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    asked: list[list[str]] = []

    class Done:
        code = 0

    async def run(argv: list[str], **_: object) -> Done:
        asked.append(argv)
        return Done()

    monkeypatch.setattr(bridge, "_must_be_port", lambda device, name: None)
    monkeypatch.setattr(bridge, "send", lambda device, _: sent.append(device))
    monkeypatch.setattr(bridge, "run", run)
    vif: Any = LinuxBridgeVif(_Inline())  # type: ignore[arg-type]
    await vif.announce(nic)
    assert sent == frames
    assert [argv[:5] for argv in asked] == [["bridge", "fdb", "replace", nic.mac, "dev"]]
