"""The persistent definition arrives as an operator wrote it: element by element, but for what must differ.

Each part of a definition is written in many ways here, and every combination of two of them is rendered. The plan
is made as the destination makes it: from what `describe` reads in the live definition, with its own initiator.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from sterna.adapters.libvirt.xml.describe import describe
from sterna.adapters.libvirt.xml.metadata import NAMESPACE
from sterna.adapters.libvirt.xml.render import render_live, render_persistent
from sterna.domain.copying import CopyPlan, DestinationDisk, DestinationNic
from sterna.domain.model import DiskKind
from sterna.domain.plugs import device_name, plug_type

PORT = "7d1c64c4-0000-4000-8000-0000000000aa"
OVS = f"<virtualport type='openvswitch'><parameters interfaceid='{PORT}'{{more}}/></virtualport>"
BANDWIDTH = "<bandwidth><inbound average='1000' peak='5000' burst='1024'/><outbound average='128'/></bandwidth>"
# Of a network the live definition says what it came to: what is written, and what the running guest has.
INTERFACES = {
    "bridge": ("bridge", "<source bridge='br0'/>", None),
    "bridge, named": ("bridge", "<source bridge='br0'/><target dev='web0'/>", None),
    "bridge, isolated": ("bridge", "<source bridge='br0'/><port isolated='yes'/>", None),
    "bridge, limited": ("bridge", f"<source bridge='br0'/>{BANDWIDTH}", None),
    "bridge, filtered": ("bridge", "<source bridge='br0'/><filterref filter='clean-traffic'/>", None),
    "bridge, script": ("bridge", "<source bridge='br0'/><script path='/etc/up'/>", None),
    "bridge, queues": ("bridge", "<source bridge='br0'/><driver name='vhost' queues='4'/>", None),
    "ovs": ("bridge", "<source bridge='br-int'/>" + OVS.format(more=""), None),
    "ovs, vlan": ("bridge", "<source bridge='br-int'/><vlan><tag id='42'/></vlan>" + OVS.format(more=""), None),
    "ovs, trunk": (
        "bridge",
        "<source bridge='br-int'/><vlan trunk='yes'><tag id='42'/><tag id='47'/></vlan>" + OVS.format(more=""),
        None,
    ),
    "ovs, native": (
        "bridge",
        "<source bridge='br-int'/><vlan trunk='yes'><tag id='42' nativeMode='untagged'/><tag id='47'/></vlan>"
        + OVS.format(more=""),
        None,
    ),
    "ovs, profile": ("bridge", "<source bridge='br-int'/>" + OVS.format(more=" profileid='gold'"), None),
    "ovs, limited": ("bridge", "<source bridge='br-int'/>" + OVS.format(more="") + BANDWIDTH, None),
    "ovs, named": ("bridge", "<source bridge='br-int'/>" + OVS.format(more="") + "<target dev='web0'/>", None),
    "ovs, trusted": ("bridge", "<source bridge='br-int'/>" + OVS.format(more="") + "<mtu size='1400'/>", None),
    "network": ("network", "<source network='lan'/>", ("bridge", "<source network='lan' bridge='br0'/>")),
    "network, group": (
        "network",
        "<source network='ovs' portgroup='vlan-42'/>",
        (
            "bridge",
            "<source network='ovs' portgroup='vlan-42' bridge='br-int'/><vlan><tag id='42'/></vlan>"
            + OVS.format(more=""),
        ),
    ),
    "network, port": (
        "network",
        "<source network='ovs'/><virtualport><parameters interfaceid='" + PORT + "'/></virtualport>",
        ("bridge", "<source network='ovs' bridge='br-int'/>" + OVS.format(more="")),
    ),
    "network, pool": (
        "network",
        "<source network='pool'/>",
        ("direct", "<source network='pool' dev='eth1' mode='bridge'/>"),
    ),
    "macvtap": ("direct", "<source dev='eth0' mode='bridge'/>", None),
    "macvtap, default": ("direct", "<source dev='eth0'/>", None),
    "macvtap, named": ("direct", "<source dev='eth0' mode='private'/><target dev='web0'/>", None),
    "macvtap, vlan": ("direct", "<source dev='ens1f0v3' mode='passthrough'/><vlan><tag id='42'/></vlan>", None),
    "link down": ("bridge", "<source bridge='br0'/><link state='down'/><boot order='1'/>", None),
}
DISKS = {
    "file": "<disk type='file'><driver name='qemu' type='qcow2' discard='unmap'/><source file='/d/a'/>{target}"
    "</disk>",
    "file, chain": "<disk type='file'><driver name='qemu' type='qcow2'/>"
    "<source file='/d/a' startupPolicy='optional'><seclabel model='dac' relabel='no'/></source>"
    "<backingStore type='file'><format type='raw'/>"
    "<source file='/d/base'/><backingStore/></backingStore>{target}</disk>",
    "cdrom": "<disk type='file' device='cdrom'><source file='/d/iso'/>{target}<readonly/></disk>",
    "empty": "<disk type='file' device='cdrom'>{target}<readonly/></disk>",
    "rbd": "<disk type='network'><source protocol='rbd' name='p/v'><host name='mon1'/><host name='mon2'/></source>"
    "{target}</disk>",
    "rbd, ports": "<disk type='network'><auth username='u'><secret type='ceph' usage='c'/></auth>"
    "<source protocol='rbd' name='p/v'><host name='mon1' port='6789'/><config file='/etc/ceph/c'/></source>"
    "{target}</disk>",
    "iscsi": "<disk type='network'><source protocol='iscsi' name='iqn.x:a/1'><host name='p'/>{initiator}</source>"
    "{target}</disk>",
    "iscsi, login": "<disk type='network'><source protocol='iscsi' name='iqn.x:a'><host name='p' port='3260'/>"
    "<auth username='u'><secret type='iscsi' usage='a'/></auth>{initiator}</source>{target}</disk>",
}
MUST_DIFFER = ("metadata/domain", "devices/disk/source/initiator/iqn")
"""Sterna's own element, and the host's name at an iSCSI target."""


def interface(name: str, index: int, *, live: bool) -> str:
    kind, inner, actual = INTERFACES[name]
    if live and actual is not None:
        kind, inner = actual
    mac = f"<mac address='52:54:00:00:00:{index:02x}'/>"
    device = f"<target dev='vnet{index}'/>" if live and "<target" not in inner else ""
    model = "" if "<driver" in inner else "<driver name='vhost'/>"
    return f"<interface type='{kind}'>{mac}{inner}{device}<model type='virtio'/>{model}</interface>"


def disk(name: str, index: int, initiator: str = "host1") -> str:
    iqn = f"<initiator><iqn name='iqn.x:{initiator}'/></initiator>"
    return DISKS[name].format(target=f"<target dev='vd{chr(97 + index)}' bus='virtio'/>", initiator=iqn)


def domain(nics: list[str], disks: list[str], *, live: bool = False) -> str:
    devices = "".join(disk(name, i) for i, name in enumerate(disks))
    devices += "".join(interface(name, i, live=live) for i, name in enumerate(nics))
    return (
        "<domain type='kvm'><name>a</name><uuid>u</uuid><title>Written by hand</title><metadata>"
        "<app:mine xmlns:app='http://x/y' kept='1'/></metadata><memory unit='MiB'>1</memory><vcpu>2</vcpu>"
        f"<os><type arch='x86_64' machine='pc'>hvm</type></os><devices>{devices}</devices></domain>"
    )


def plan_for(live: str) -> CopyPlan:
    """As the destination answers: the same disks, its own initiator, a port for each NIC."""
    vm = describe(live)
    disks = []
    for seen in vm.disks:
        iscsi = seen.iscsi.model_copy(update={"initiator": "iqn.x:host2"}) if seen.iscsi else None
        disks.append(
            DestinationDisk(
                target=seen.target,
                kind=seen.kind,
                path=seen.path if seen.kind is DiskKind.FILE else None,
                iscsi=iscsi,
                rbd=seen.rbd,
            )
        )
    nics = []
    for nic in vm.nics:
        device = device_name(nic) if plug_type(nic).made_ahead else ""
        facts: dict[str, Any] = {"mac": nic.mac, "plug": nic.plug, "device": device, "bridge": nic.bridge or ""}
        nics.append(
            DestinationNic(**facts, port_id=nic.port_id or "", vlan=nic.vlan, parent=nic.parent, mode=nic.mode)
        )
    return CopyPlan(migration_id="m", epoch=3, destination_uri="x", disks=tuple(disks), nics=tuple(nics))


def parts(xml: str) -> list[tuple[str, dict[str, str], str]]:
    """Every element by its path, with attributes and text, in order; not what must differ."""
    found = []

    def walk(element: etree._Element, path: str) -> None:
        for child in element:
            name = etree.QName(child).localname
            here = f"{path}{name}"
            own = etree.QName(child).namespace == NAMESPACE
            if here not in MUST_DIFFER or (here == "metadata/domain" and not own):
                found.append((here, {str(k): str(v) for k, v in child.attrib.items()}, (child.text or "").strip()))
                walk(child, f"{here}/")

    walk(etree.fromstring(xml), "")
    return found


@pytest.mark.parametrize("nic", INTERFACES)
@pytest.mark.parametrize("name", DISKS)
def test_nothing_that_was_written_changes(nic: str, name: str) -> None:
    written, running = domain([nic], [name]), domain([nic], [name], live=True)
    assert parts(render_persistent(written, plan_for(running), live=running)) == parts(written)


@pytest.mark.parametrize(("one", "other"), list(combinations(INTERFACES, 2)))
def test_nor_of_two_nics(one: str, other: str) -> None:
    written, running = domain([one, other], []), domain([one, other], [], live=True)
    assert parts(render_persistent(written, plan_for(running), live=running)) == parts(written)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(sorted(INTERFACES)), max_size=4), st.lists(st.sampled_from(sorted(DISKS)), max_size=4)
)
def test_nor_of_any_machine_moved_twice(nics: list[str], disks: list[str]) -> None:
    written, running = domain(nics, disks), domain(nics, disks, live=True)
    once = render_persistent(written, plan_for(running), live=running)
    assert parts(render_persistent(once, plan_for(running), live=running)) == parts(written)


@pytest.mark.parametrize("nic", INTERFACES)
def test_the_live_form_gets_a_device_name_and_nothing_else(nic: str) -> None:
    """From what libvirt gives to migrate: there a network is still a network."""
    migratable, running = domain([nic], []), domain([nic], [], live=True)
    rendered = render_live(migratable, plan_for(running))
    named = [part for part in parts(rendered) if part[0] != "devices/interface/target"]
    assert named == [part for part in parts(migratable) if part[0] != "devices/interface/target"]
    targets = [attributes for path, attributes, _ in parts(rendered) if path == "devices/interface/target"]
    made = plug_type(describe(running).nics[0]).made_ahead
    assert len(targets) == (1 if made or "<target" in INTERFACES[nic][1] else 0)
    assert all("managed" not in target and not target["dev"].startswith("vnet") for target in targets)


def test_a_disk_or_nic_that_the_next_start_has_elsewhere_stays_there() -> None:
    running = domain(["ovs", "macvtap"], ["iscsi", "file"], live=True)
    written = domain(["ovs", "macvtap"], ["iscsi", "file"])
    for old, new in (("br-int", "br-new"), ("eth0", "eth7"), ("iqn.x:a/1", "iqn.x:b/1"), ("/d/a", "/d/new")):
        assert old in written
        written = written.replace(old, new)
    assert "iqn.x:host1" in written
    rendered = render_persistent(written, plan_for(running), live=running)
    assert parts(rendered) == parts(written)
    assert "iqn.x:host1" in rendered
