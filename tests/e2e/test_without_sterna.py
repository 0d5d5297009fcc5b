"""A VM that Sterna moved is libvirt's: its own tools move, save, restore and start it, then Sterna moves it again.

Its persistent definition is the one that an operator wrote.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from lxml import etree

from sterna.lab.guest_view import Guest
from tests.e2e.conftest import Fleet

pytestmark = pytest.mark.lab

IMAGE = "/var/lib/libvirt/qemu/save/by-hand.img"
NETWORK = "<network><name>lan</name><forward mode='bridge'/><bridge name='br-lan'/></network>"
WRITTEN = {
    "52:54:00:74:0a:01": "<interface type='network'><mac address='52:54:00:74:0a:01'/>"
    "<source network='lan'/><target dev='web0'/><model type='virtio'/></interface>",
    "52:54:00:74:0a:02": "<interface type='bridge'><mac address='52:54:00:74:0a:02'/><source bridge='br-int'/>"
    "<vlan trunk='yes'><tag id='42' nativeMode='untagged'/><tag id='47'/></vlan>"
    "<virtualport type='openvswitch'><parameters interfaceid='7d1c64c4-0000-4000-8000-0000000000aa' "
    "profileid='gold'/></virtualport><bandwidth><outbound average='2000'/></bandwidth>"
    "<model type='virtio'/></interface>",
}
"""Two NICs, by MAC, that a running guest is given: as libvirt understands them, and nobody else need."""


@pytest.fixture(scope="module")
def guest(fleet: Fleet) -> Iterator[Guest]:
    """With NICs of three kinds and the two above, on host1."""
    for host in fleet.lab.hosts.values():
        host.run(["sh", "-c", f'echo "{NETWORK}" > /tmp/lan.xml'])
        host.virsh("net-define", "/tmp/lan.xml")
        host.virsh("net-start", "lan")
    guest = fleet.lab.create_vm(
        "plain", "host1", memory_mib=192, dirty_mib_s=2, disks=("shared",), nics=("bridge", "macvtap")
    )
    host = fleet.lab.hosts["host1"]
    for xml in WRITTEN.values():
        host.run(["sh", "-c", f'echo "{xml}" > /tmp/nic.xml'])
        host.virsh("attach-device", guest.name, "/tmp/nic.xml", "--live", "--config")
    yield guest
    fleet.remove(guest)
    for other in fleet.lab.hosts.values():
        other.virsh("net-destroy", "lan")
        other.virsh("net-undefine", "lan")


def definition(fleet: Fleet, host: str, guest: Guest) -> str:
    """The persistent one, without what Sterna wrote about its last move."""
    text = fleet.lab.hosts[host].virsh("dumpxml", guest.name, "--inactive", "--security-info")
    domain = etree.fromstring(text, etree.XMLParser(remove_blank_text=True))
    for own in domain.findall("metadata"):
        domain.remove(own)
    return etree.tostring(domain, pretty_print=True).decode()


def port_of(fleet: Fleet, host: str, mac: str) -> dict[str, Any]:
    """What the switch says of a NIC's port: VLANs, and the limit of what the guest may send."""
    run = fleet.lab.hosts[host].run
    find = ["ovs-vsctl", "--bare", "--columns=name", "find", "Interface", f'external_ids:attached-mac="{mac}"']
    name = run(find).stdout.strip()
    columns = [("Port", "tag"), ("Port", "trunks"), ("Port", "vlan_mode"), ("Interface", "ingress_policing_rate")]
    columns.append(("Interface", "external_ids:port-profile"))
    return {
        column: run(["ovs-vsctl", "--if-exists", "get", table, name, column]).stdout.strip()
        for table, column in columns
    }


def moved(fleet: Fleet, guest: Guest) -> str:
    """Sterna moves it to the other host, whose name is returned."""
    (here,) = fleet.lab.hosts_running(guest.name)
    before = definition(fleet, here, guest)
    there = fleet.other(here)
    assert fleet.wait(fleet.started(guest.name, there))["status"] == "completed"
    assert fleet.lab.hosts_running(guest.name) == [there]
    assert guest.status(timeout=60).clean
    assert definition(fleet, there, guest) == before
    assert not names(fleet, here)
    return there


def names(fleet: Fleet, host: str) -> set[str]:
    """The guest's devices and ports on a host."""
    seen: dict[str, Any] = fleet.lab.snapshot(host)
    links = {link["name"] for link in seen["links"] if link["kind"] in ("tun", "macvtap")}
    return links | {port["name"] for port in seen["ports"] if port["name"].startswith(("tap", "vnet"))}


def reboot_network(fleet: Fleet, host: str) -> None:
    """What a reboot of the host takes from its network: taps, macvtaps, and the switch's transient ports."""
    for name in names(fleet, host):
        fleet.lab.hosts[host].run(["ip", "link", "delete", name], check=False)
        fleet.lab.hosts[host].run(["ovs-vsctl", "--if-exists", "del-port", name])
    assert not names(fleet, host)


def test_both_definitions_are_as_an_operator_writes_them(fleet: Fleet, guest: Guest) -> None:
    (here,) = fleet.lab.hosts_running(guest.name)
    ports = {mac: port_of(fleet, here, mac) for mac in (guest.mac, "52:54:00:74:0a:02")}
    there = moved(fleet, guest)
    live = etree.fromstring(fleet.lab.hosts[there].virsh("dumpxml", guest.name))
    assert {i.get("type") for i in live.iterfind("devices/interface")} == {"bridge", "direct"}
    assert not live.findall("devices/interface/target[@managed]")
    assert len(live.findall("devices/interface/target[@dev='web0']")) == 1
    assert {mac: port_of(fleet, there, mac) for mac in ports} == ports
    assert ports["52:54:00:74:0a:02"]["trunks"] == "[42, 47]"


def test_virsh_moves_it_and_sterna_moves_it_on(fleet: Fleet, guest: Guest) -> None:
    here = moved(fleet, guest)
    boot = guest.status().boot_id
    there = fleet.lab.hosts[fleet.other(here)]
    uris = (there.peer_uri, f"tcp://{there.address}")
    fleet.lab.hosts[here].virsh(
        "migrate", "--live", "--p2p", "--persistent", "--undefinesource", guest.name, *uris, timeout=120
    )
    assert fleet.lab.hosts_running(guest.name) == [there.name]
    assert guest.status(timeout=60).boot_id == boot
    moved(fleet, guest)


@pytest.mark.parametrize("how", ["managedsave", "save"])
def test_it_is_saved_and_restored_after_a_reboot(fleet: Fleet, guest: Guest, how: str) -> None:
    here = moved(fleet, guest)
    host, boot = fleet.lab.hosts[here], guest.status().boot_id
    host.virsh(how, guest.name, *([IMAGE] if how == "save" else []))
    reboot_network(fleet, here)
    host.virsh(*(["restore", IMAGE] if how == "save" else ["start", guest.name]))
    assert guest.status(timeout=60).boot_id == boot
    moved(fleet, guest)


def test_it_is_ended_and_started(fleet: Fleet, guest: Guest) -> None:
    here = moved(fleet, guest)
    host, boot = fleet.lab.hosts[here], guest.status().boot_id
    host.virsh("destroy", guest.name)
    assert not names(fleet, here)
    host.virsh("start", guest.name)
    assert guest.status(timeout=60).boot_id != boot
    moved(fleet, guest)
