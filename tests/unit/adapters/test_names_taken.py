"""What P10 refuses is said beforehand: names of taps, ports and the devices of a hybrid plug."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest

from sterna.adapters.vif import bridge, hybrid, links, ovs, ovsdb
from sterna.domain.errors import Conflict
from sterna.domain.model import Nic, Refusal
from sterna.domain.plugs import BRIDGE, HYBRID, OVS, hybrid_names

MAC, PORT, VM = "52:54:00:00:00:aa", "7d1c64c4-0000-4000-8000-0000000000aa", "vm-1"
BY_LIBVIRT = {"iface-id": PORT, "attached-mac": MAC, "vm-id": VM, "iface-status": "active"}
NIC = Nic(mac=MAC, plug=OVS, port_id=PORT, bridge="br-int", device="web0", external_ids=BY_LIBVIRT)
HYBRID_NIC = NIC.model_copy(update={"plug": HYBRID})
ON_BRIDGE = Nic(mac=MAC, plug=BRIDGE, bridge="br-lan", device="web0")
OUTER = hybrid_names(PORT)[2]


class Switch:
    """A copy of Open vSwitch's database: one port on br-int, or none."""

    def __init__(self, name: str = "", **external_ids: str) -> None:
        interface = SimpleNamespace(name=name, uuid="i1", external_ids=external_ids)
        port = SimpleNamespace(interfaces=[interface])
        br_int = SimpleNamespace(name="br-int", ports=[port] if name else [])
        rows = {"Interface": {"i1": interface} if name else {}, "Bridge": {"b1": br_int}}
        self.ovsdb_connection = SimpleNamespace(lock=contextlib.nullcontext())
        self.idl = SimpleNamespace(tables={table: SimpleNamespace(rows=found) for table, found in rows.items()})


class Link(dict[Any, Any]):
    """One device, as pyroute2 shows it."""

    def __init__(self, index: int, name: str, kind: str, **more: object) -> None:
        super().__init__(index=index, ifname=name, flags=0, **more)
        self[("linkinfo", "kind")] = kind


class Kernel:
    """These devices."""

    def __init__(self, *found: Link) -> None:
        self.found = found

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def link_lookup(self, ifname: str) -> list[int]:
        return [link["index"] for link in self.found if link["ifname"] == ifname]

    def get_links(self, *index: int) -> list[Link]:
        return [link for link in self.found if not index or link["index"] in index]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Any:
    def has(*found: Link) -> Kernel:
        kernel = Kernel(Link(1, "br-lan", "bridge"), *found)
        monkeypatch.setattr(links, "IPRoute", lambda: kernel)
        return kernel

    has()
    return has


async def said(vif: Any, nic: Nic, switch: Switch) -> list[Refusal]:
    async def run(act: Any) -> Any:
        return act(switch)

    return list(await vif(SimpleNamespace(run=run)).check(nic))


async def said_of_bridge(nic: Nic) -> list[Refusal]:
    async def run(act: Any) -> Any:
        return act()

    return await bridge.LinuxBridgeVif(SimpleNamespace(run=run)).check(nic)  # type: ignore[arg-type]


def tap(**marks: str) -> Link:
    return Link(7, "web0", "tun", ifalias="sterna " + " ".join(f"{k}={v}" for k, v in marks.items()))


@pytest.mark.parametrize("key", ["vm-id", "vm-uuid"])
async def test_a_port_that_a_dead_hosts_libvirt_left_is_the_vms_own(key: str, kernel: Any) -> None:
    """Open vSwitch keeps its rows over a reboot; libvirt has written `vm-id`, os-vif `vm-uuid`."""
    switch = Switch("web0", **{"iface-id": PORT, key: VM})
    ovsdb.check_free(switch, "web0", "br-int", ovsdb.ids_for(NIC, VM))
    assert await said(ovs.OvsVif, NIC, switch) == []


@pytest.mark.parametrize(
    "theirs",
    [{"iface-id": PORT, "vm-id": "vm-2"}, {"iface-id": PORT}, {"iface-id": "port-2", "vm-id": VM}, {}],
)
async def test_anothers_port_is_refused_before_p10_refuses_it(theirs: dict[str, str], kernel: Any) -> None:
    switch = Switch("web0", **theirs)
    with pytest.raises(Conflict):
        ovsdb.check_free(switch, "web0", "br-int", ovsdb.ids_for(NIC, VM))
    (refusal,) = await said(ovs.OvsVif, NIC, switch)
    assert (refusal.code, "web0" in refusal.message) == ("device-name-taken", True)


@pytest.mark.parametrize(
    "theirs",
    [{"iface-id": "port-2", "vm-uuid": VM}, {"iface-id": PORT, "vm-uuid": "vm-2"}],
)
async def test_the_switchs_port_of_a_hybrid_plug(theirs: dict[str, str], kernel: Any) -> None:
    switch = Switch(OUTER, **theirs)
    with pytest.raises(Conflict):
        ovsdb.check_free(switch, OUTER, "br-int", ovsdb.ids_for(HYBRID_NIC, VM))
    (refusal,) = await said(hybrid.HybridVif, HYBRID_NIC, switch)
    assert (refusal.code, OUTER in refusal.message, OUTER in refusal.fix) == ("device-name-taken", True, True)
    assert await said(hybrid.HybridVif, HYBRID_NIC, Switch(OUTER, **BY_LIBVIRT)) == []


@pytest.mark.parametrize("name", hybrid_names(PORT))
async def test_the_other_devices_of_a_hybrid_plug(name: str, kernel: Any) -> None:
    kernel(Link(8, name, "dummy"))
    (refusal,) = await said(hybrid.HybridVif, HYBRID_NIC, Switch())
    assert (refusal.code, name in refusal.message) == ("device-name-taken", True)
    kernel(Link(8, name, "bridge" if name.startswith("qbr") else "veth"))
    assert await said(hybrid.HybridVif, HYBRID_NIC, Switch()) == []


@pytest.mark.parametrize(
    ("nic", "marks"),
    [
        (ON_BRIDGE, {"vm-uuid": "vm-2", "attached-mac": "52:54:00:00:00:bb"}),
        (ON_BRIDGE, {"vm-uuid": VM, "attached-mac": MAC, "iface-id": "port-2"}),
        (
            ON_BRIDGE.model_copy(update={"external_ids": {"vm-uuid": VM}}),
            {"vm-uuid": "vm-2", "attached-mac": MAC},
        ),
    ],
)
async def test_a_free_tap_that_carries_anothers_marks(nic: Nic, marks: dict[str, str], kernel: Any) -> None:
    theirs = tap(**marks)
    with pytest.raises(Conflict):
        bridge._is_ours(kernel(theirs), theirs, {"vm-uuid": VM, "attached-mac": MAC}, "br-lan")
    (refusal,) = await said_of_bridge(nic)
    assert (refusal.code, "web0" in refusal.message) == ("device-name-taken", True)


async def test_a_free_tap_of_ones_own_or_of_nobody(kernel: Any) -> None:
    for own in (tap(**{"vm-uuid": VM, "attached-mac": MAC}), Link(7, "web0", "tun")):
        there = kernel(own)
        bridge._is_ours(there, own, {"vm-uuid": VM, "attached-mac": MAC}, "br-lan")
        assert await said_of_bridge(ON_BRIDGE) == []


async def unplugged(vif: Any, nic: Nic, switch: Switch | None = None) -> bool:
    async def run(act: Any) -> Any:
        return act(switch) if switch is not None else act()

    return bool(await vif(SimpleNamespace(run=run)).unplug(nic))


@pytest.mark.parametrize(
    "theirs", [{"iface-id": "port-2", "vm-id": "vm-2"}, {"iface-id": PORT, "vm-id": "vm-2"}, {}]
)
async def test_a_port_that_another_guest_has_by_now_is_not_unplugged(theirs: dict[str, str], kernel: Any) -> None:
    """The switch would have to change for it, and this one cannot."""
    kernel(Link(7, "web0", "tun", address="fe:54:00:00:00:bb"))
    assert not await unplugged(ovs.OvsVif, NIC, Switch("web0", **theirs))
    assert not await unplugged(ovs.OvsVif, NIC.model_copy(update={"bridge": "br-x"}), Switch("web0", **theirs))
    assert not await unplugged(hybrid.HybridVif, HYBRID_NIC, Switch(OUTER, **theirs))


@pytest.mark.parametrize("on", ["br-lan", "br-other", ""])
@pytest.mark.parametrize(
    "theirs", [{"ifalias": "sterna attached-mac=52:54:00:00:00:bb"}, {"address": "fe:54:00:00:00:bb"}]
)
async def test_a_tap_that_another_guest_has_by_now_is_not_unplugged(
    theirs: dict[str, str], on: str, kernel: Any
) -> None:
    """This kernel has no way to delete a device."""
    bridges = {"br-lan": 1, "br-other": 2}
    more = {"master": bridges[on]} if on else {}
    tap = Link(7, "web0", "tun", **theirs, **more)
    tap["flags"] = links.IFF_LOWER_UP
    kernel(Link(2, "br-other", "bridge"), tap)
    assert not await unplugged(bridge.LinuxBridgeVif, ON_BRIDGE)
    assert not await unplugged(ovs.OvsVif, NIC, Switch())


async def test_ones_own_tap_elsewhere_or_open_is_a_conflict(kernel: Any) -> None:
    own = Link(7, "web0", "tun", address="fe:54:00:00:00:aa")
    own["flags"] = links.IFF_LOWER_UP
    kernel(own)
    with pytest.raises(Conflict):
        await unplugged(bridge.LinuxBridgeVif, ON_BRIDGE)
    with pytest.raises(Conflict):
        await unplugged(ovs.OvsVif, NIC, Switch())
    with pytest.raises(Conflict):
        await unplugged(ovs.OvsVif, NIC.model_copy(update={"bridge": "br-x"}), Switch("web0", **BY_LIBVIRT))
