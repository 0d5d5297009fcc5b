"""DEST_XML and PERSIST_XML: what the guest sees stays, where things are changes, there and back for ever."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from sterna.adapters.libvirt.xml.describe import describe
from sterna.adapters.libvirt.xml.render import own_metadata, render_live, render_persistent
from sterna.domain.copying import CopyPlan, DestinationDisk, DestinationNic
from sterna.domain.errors import Permanent
from sterna.domain.model import DiskKind, IscsiSource, RbdSource, SecretRef
from tests.narrowing import not_none

XML = Path(__file__).with_name("xml")
NIC_ABI = ("mac", "model", "driver", "address", "mtu", "alias", "boot", "rom", "link", "bandwidth", "filterref")


def read(name: str) -> str:
    return (XML / f"{name}.xml").read_text()


def plan_for(
    xml: str, *, epoch: int = 1, host: str = "host2", tap: str = "tap0f", vlan: int | None = None
) -> CopyPlan:
    vm = describe(xml)
    disks = []
    for disk in vm.disks:
        iscsi = disk.iscsi.model_copy(update={"initiator": f"iqn.x:{host}"}) if disk.iscsi else None
        copied = "/instances/" in (disk.path or "")
        disks.append(
            DestinationDisk(target=disk.target, kind=disk.kind, path=disk.path, iscsi=iscsi, copied=copied)
        )
    nics = tuple(
        DestinationNic(mac=n.mac, device=tap, bridge=n.bridge or "", port_id=n.port_id or "", vlan=vlan)
        for n in vm.nics
    )
    uri = f"qemu+tcp://{host}/system"
    return CopyPlan(migration_id=f"m-{epoch}", epoch=epoch, destination_uri=uri, disks=tuple(disks), nics=nics)


def persistent(xml: str, plan: CopyPlan) -> str:
    """PERSIST_XML of a VM whose live definition says what its inactive one says."""
    return render_persistent(xml, plan, live=xml)


def guest_view(xml: str) -> str:
    """The definition with everything taken out that says where things are, in canonical form."""
    domain = etree.fromstring(xml)
    for metadata in domain.findall("metadata"):
        domain.remove(metadata)
    for disk in domain.iterfind("devices/disk"):
        for name in ("source", "backingStore"):
            for child in disk.findall(name):
                disk.remove(child)
    for interface in domain.iterfind("devices/interface"):
        interface.attrib.pop("type")
        for child in list(interface):
            if child.tag not in NIC_ABI:
                interface.remove(child)
    return re.sub(r">\s+<", "><", etree.tostring(domain, method="c14n").decode())


@pytest.mark.parametrize("name", ["booted", "booted-migratable", "arrived", "arrived-migratable"])
def test_the_guest_sees_no_difference(name: str) -> None:
    xml = read(name)
    assert guest_view(render_live(xml, plan_for(xml))) == guest_view(xml)


@pytest.mark.parametrize("name", ["booted-inactive", "arrived-inactive"])
def test_nor_at_its_next_cold_start(name: str) -> None:
    xml = read(name)
    assert guest_view(persistent(xml, plan_for(xml))) == guest_view(xml)


@pytest.mark.parametrize("name", ["booted-migratable", "arrived-migratable"])
def test_the_live_form(name: str) -> None:
    xml = read(name)
    domain = etree.fromstring(render_live(xml, plan_for(xml, epoch=7)))
    (interface,) = domain.findall("devices/interface")
    assert interface.get("type") == "bridge"
    (target,) = interface.findall("target")
    assert dict(target.attrib.items()) == {"dev": "tap0f"}
    assert not_none(interface.find("source")).get("bridge") == "br-int"
    assert not_none(interface.find("vlan/tag")).get("id") == "100"
    (iqn,) = domain.findall("devices/disk/source/initiator/iqn")
    assert iqn.get("name") == "iqn.x:host2"
    assert "vnet" not in etree.tostring(domain).decode()
    vm = describe(etree.tostring(domain).decode())
    assert vm.epoch == 7
    assert (vm.nics[0].bridge, vm.nics[0].vlan) == ("br-int", 100)
    assert vm.nics[0].port_id == describe(xml).nics[0].port_id


@pytest.mark.parametrize("name", ["booted-inactive", "arrived-inactive", "arrived-migratable"])
def test_the_cold_form_plugs_itself(name: str) -> None:
    xml = read(name)
    domain = etree.fromstring(persistent(xml, plan_for(xml, epoch=7)))
    (interface,) = domain.findall("devices/interface")
    assert interface.get("type") == "bridge"
    assert interface.find("target") is None
    assert not_none(interface.find("source")).get("bridge") == "br-int"
    (virtualport,) = interface.findall("virtualport")
    assert virtualport.get("type") == "openvswitch"
    assert not_none(virtualport.find("parameters")).get("interfaceid") == describe(xml).nics[0].port_id
    assert not_none(interface.find("vlan/tag")).get("id") == "100"


def test_the_running_guest_keeps_the_vlan_its_port_has_and_the_next_start_the_one_that_is_written() -> None:
    xml = read("arrived-inactive")
    cold = etree.fromstring(persistent(xml, plan_for(xml, vlan=300)))
    assert not_none(cold.find("devices/interface/vlan/tag")).get("id") == "100"
    for name in ("arrived", "booted"):
        assert describe(render_live(read(name), plan_for(xml, vlan=300))).nics[0].vlan == 300


@given(st.lists(st.sampled_from(["host1", "host2", "host3"]), min_size=1, max_size=8))
def test_back_and_forth_for_ever(hosts: list[str]) -> None:
    live, inactive = read("booted-migratable"), read("booted-inactive")
    first = guest_view(live)
    port = describe(live).nics[0].port_id
    for epoch, host in enumerate(hosts, start=1):
        plan = plan_for(live, epoch=epoch, host=host, tap=f"tap{epoch}")
        live, inactive = render_live(live, plan), render_persistent(inactive, plan, live=live)
        running, cold = describe(live), describe(inactive)
        assert guest_view(live) == first
        for vm in (running, cold):
            assert (vm.epoch, vm.nics[0].port_id, vm.nics[0].vlan) == (epoch, port, 100)
            assert vm.disks[2].iscsi is not None
            assert vm.disks[2].iscsi.initiator == f"iqn.x:{host}"
        assert live.count("<sterna:epoch>") == inactive.count("<sterna:epoch>") == 1
        assert (running.nics[0].device, running.nics[0].managed) == (f"tap{epoch}", True)


def test_a_copied_disk_may_get_another_path_and_loses_its_recorded_chain() -> None:
    xml = read("booted")
    plan = plan_for(xml)
    moved = tuple(d.model_copy(update={"path": "/new/disk"}) if d.target == "vdb" else d for d in plan.disks)
    domain = etree.fromstring(render_live(xml, plan.model_copy(update={"disks": moved})))
    disk = domain.findall("devices/disk")[1]
    assert not_none(disk.find("source")).get("file") == "/new/disk"
    assert disk.find("backingStore") is None
    assert domain.findall("devices/disk")[0].find("backingStore") is not None


def test_a_plan_that_does_not_fit_the_vm_is_refused() -> None:
    xml = read("booted")
    plan = plan_for(xml)
    with pytest.raises(Permanent, match="no entry for NIC"):
        render_live(xml, plan.model_copy(update={"nics": ()}))
    stray = DestinationNic(mac="52:54:00:00:00:01", device="t", bridge="b", port_id="p")
    with pytest.raises(Permanent, match="does not have"):
        render_live(xml, plan.model_copy(update={"nics": (*plan.nics, stray)}))
    with pytest.raises(Permanent, match="does not have: vdz"):
        render_live(
            xml, plan.model_copy(update={"disks": (DestinationDisk(target="vdz", kind=DiskKind.FILE, path="/x"),)})
        )
    with pytest.raises(Permanent, match="not a file"):
        render_live(
            xml, plan.model_copy(update={"disks": (DestinationDisk(target="vdc", kind=DiskKind.FILE, path="/x"),)})
        )


def test_marking_keeps_what_it_does_not_know() -> None:
    xml = read("arrived")
    marked = xml.replace("<sterna:epoch>", "<sterna:image uuid='i'/><sterna:epoch>")
    own = own_metadata(marked, epoch=9, migration_id="m-9")
    assert "xmlns" not in own  # libvirt adds the namespace itself and refuses one that is there
    assert "<epoch>9</epoch>" in own
    assert '<image uuid="i"' in own
    assert own.count("<nic ") == 1


def test_only_what_changes_is_touched() -> None:
    """Everything outside <metadata>, <disk>, <interface> is byte for byte what libvirt wrote."""
    xml = read("booted-migratable")
    before, after = etree.fromstring(xml), etree.fromstring(render_live(xml, plan_for(xml)))
    skip = ("metadata", "devices")
    for old, new in zip(
        [e for e in before if e.tag not in skip], [e for e in after if e.tag not in skip], strict=True
    ):
        assert etree.tostring(old) == etree.tostring(new)
    others_old = [e for e in not_none(before.find("devices")) if e.tag not in ("disk", "interface")]
    others_new = [e for e in not_none(after.find("devices")) if e.tag not in ("disk", "interface")]
    for old, new in zip(others_old, others_new, strict=True):
        assert etree.tostring(old) == etree.tostring(new)


def test_a_second_monitor_only_where_post_copy_may_be_and_only_once() -> None:
    xml = read("booted-migratable")
    own = (
        "<qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>"
        "<qemu:arg value='-chardev'/><qemu:arg value='null,id=mine'/></qemu:commandline></domain>"
    )
    xml = xml.replace("</domain>", own)
    permitted = plan_for(xml).model_copy(update={"flags": ("POSTCOPY",)})
    for _ in range(2):  # the second time from a host it came to in post-copy
        xml = render_live(xml, permitted)
        assert arguments(xml)[:2] == ["-chardev", "null,id=mine"]
        assert len([a for a in arguments(xml) if "sterna-recovery" in a]) == 2
        assert any(f"sterna-{describe(xml).uuid}.sock,server=on,wait=off" in a for a in arguments(xml))
    assert arguments(render_live(xml, plan_for(xml))) == ["-chardev", "null,id=mine"]
    assert arguments(render_live(read("booted-migratable"), plan_for(read("booted-migratable")))) == []


def arguments(xml: str) -> list[str]:
    """The QEMU arguments of a definition."""
    return [arg.get("value", "") for arg in etree.fromstring(xml).iter("{*}arg")]


PORT = "7d1c64c4-0000-4000-8000-0000000000aa"
MAC = "52:54:00:00:00:aa"
FORMS = {
    "ovs": "<source bridge='br-int'/><virtualport type='openvswitch'><parameters interfaceid='{port}'/>"
    "</virtualport>",
    "ovs-hybrid": "<source bridge='qbr7d1c64c4-00'/>",
    "bridge": "<source bridge='br0'/>",
    "macvtap": "<source dev='eth0' mode='passthrough'/>",
}
PLANNED = {
    "ovs": DestinationNic(mac=MAC, plug="ovs", device="tapx", bridge="br-int", port_id=PORT, vlan=7),
    "ovs-hybrid": DestinationNic(mac=MAC, plug="ovs-hybrid", device="tapx", bridge="br-int", port_id=PORT, vlan=7),
    "bridge": DestinationNic(mac=MAC, plug="bridge", device="tapx", bridge="br0"),
    "macvtap": DestinationNic(mac=MAC, plug="macvtap", parent="eth9", mode="passthrough"),
}


def plugged(plug: str) -> str:
    kind = "direct" if plug == "macvtap" else "bridge"
    return (
        "<domain type='kvm'><name>a</name><uuid>u</uuid><memory unit='MiB'>1</memory><vcpu>2</vcpu>"
        "<os><type arch='x86_64' machine='pc'>hvm</type></os><devices>"
        f"<interface type='{kind}'><mac address='{MAC}'/>{FORMS[plug].format(port=PORT)}<target dev='vnet3'/>"
        "<model type='virtio'/><mtu size='1400'/><address type='pci' slot='0x03'/></interface></devices></domain>"
    )


@pytest.mark.parametrize("plug", FORMS)
def test_each_plug_type_arrives_and_boots_from_cold_as_itself(plug: str) -> None:
    xml, nic = plugged(plug), PLANNED[plug]
    plan = CopyPlan(migration_id="m", epoch=3, destination_uri="x", nics=(nic,))
    live, cold = render_live(xml, plan), persistent(xml, plan)
    assert guest_view(live) == guest_view(cold) == guest_view(xml)
    (arrived,), (booted,) = describe(live).nics, describe(cold).nics
    for seen in (arrived, booted):
        assert (seen.plug, seen.port_id) == (plug, nic.port_id or None)
        assert (seen.bridge, seen.parent) == (nic.bridge or None, nic.parent)
    assert (arrived.device, arrived.managed) == ("tapx" if plug != "macvtap" else "vnet3", True)
    assert (booted.device, booted.managed) == ("vnet3", True)
    if plug == "ovs-hybrid":
        source = etree.fromstring(cold).find("devices/interface/source")
        assert source is not None
        assert dict(source.attrib.items()) == {"bridge": "qbr7d1c64c4-00"}


@pytest.mark.parametrize("plug", FORMS)
def test_the_form_it_arrived_in_moves_on_like_the_first(plug: str) -> None:
    plan = CopyPlan(migration_id="m", epoch=3, destination_uri="x", nics=(PLANNED[plug],))
    onward = plan.model_copy(update={"epoch": 4})
    arrived = render_live(plugged(plug), plan)
    assert render_live(arrived, onward) == render_live(plugged(plug), plan).replace("epoch>3<", "epoch>4<")
    marked = own_metadata(arrived, epoch=4, migration_id="m")
    for word in (f'mac="{MAC}"', f'plug="{plug}"' if plug != "ovs" else "port="):
        assert word in marked


def test_a_nic_may_change_its_plug_type_with_its_host() -> None:
    plan = CopyPlan(migration_id="m", epoch=3, destination_uri="x", nics=(PLANNED["ovs"],))
    for plug in ("bridge", "macvtap", "ovs-hybrid"):
        assert [n.plug for n in describe(render_live(plugged(plug), plan)).nics] == ["ovs"]
        assert [n.plug for n in describe(persistent(plugged(plug), plan)).nics] == ["ovs"]


RBD = """
<domain type='kvm'><name>c</name><uuid>537bed83-11e9-4076-a18a-954640d53db6</uuid><memory>1</memory>
<devices><disk type='network' device='disk'>
  <driver name='qemu' type='raw' cache='writeback'/>
  <auth username='cinder'><secret type='ceph' uuid='457eb676-33da-42ec-9a8c-9293d545c337'/></auth>
  <source protocol='rbd' name='volumes/volume-1'><host name='10.0.0.9' port='6789'/><config file='/c'/></source>
  <target dev='vda' bus='virtio'/><serial>f1435e20-3d68-479a-b6ed-68c2d3f147ee</serial>
</disk></devices></domain>
"""


def test_a_ceph_image_may_get_other_monitors_and_keeps_who_may_open_it() -> None:
    (disk,) = describe(RBD).disks
    assert disk.kind is DiskKind.RBD
    assert disk.rbd == RbdSource(name="volumes/volume-1", monitors=("10.0.0.9:6789",))
    assert disk.vm_uuid == "537bed83-11e9-4076-a18a-954640d53db6"
    there = RbdSource(name="volumes/volume-1", monitors=("10.0.0.1:6789", "10.0.0.2:3300"))
    planned = DestinationDisk(target="vda", kind=DiskKind.RBD, rbd=there)
    plan = CopyPlan(migration_id="m", epoch=1, destination_uri="qemu:///system", disks=(planned,))
    for render in (render_live, persistent):
        text = render(RBD, plan)
        assert describe(text).disks[0].rbd == there
        rendered = not_none(etree.fromstring(text).find("devices/disk"))
        before = not_none(etree.fromstring(RBD).find("devices/disk"))
        for name in ("auth", "driver", "source/config"):
            assert etree.tostring(not_none(rendered.find(name)), with_tail=False) == etree.tostring(
                not_none(before.find(name)), with_tail=False
            )
    with pytest.raises(Permanent):
        render_live(RBD, plan.model_copy(update={"disks": (planned.model_copy(update={"rbd": None}),)}))


CHAP = """
<domain type='kvm'><name>c</name><uuid>537bed83-11e9-4076-a18a-954640d53db6</uuid><memory>1</memory>
<devices><disk type='network' device='disk'><driver name='qemu' type='raw'/>{beside}
  <source protocol='iscsi' name='iqn.x:a/1'><host name='p' port='3260'/><initiator><iqn name='iqn.x:host1'/>
    </initiator>{inside}<encryption format='luks'><secret type='passphrase' usage='k'/></encryption></source>
  <target dev='vda' bus='virtio'/></disk></devices></domain>
"""
AUTH = "<auth username='u'><secret type='iscsi' usage='a'/></auth>"


@pytest.mark.parametrize("beside", [True, False])
def test_an_iscsi_disk_may_get_another_login_and_else_keeps_its_own(beside: bool) -> None:
    xml = CHAP.format(beside=AUTH if beside else "", inside="" if beside else AUTH)
    there = IscsiSource(target="iqn.x:a", lun=1, portal_host="q", initiator="iqn.x:host2")
    login = SecretRef(kind="iscsi", uuid="1b91f1a5-7d3c-4f7e-9d5c-0c2f5a0c1d11", username="of-host2")
    for render in (render_live, persistent):
        for wanted in (None, login):
            planned = DestinationDisk(target="vda", kind=DiskKind.ISCSI, iscsi=there, login=wanted)
            plan = CopyPlan(migration_id="m", epoch=1, destination_uri="qemu:///system", disks=(planned,))
            (disk,) = describe(render(xml, plan)).disks
            assert disk.iscsi == there
            assert disk.chap == (wanted or SecretRef(kind="iscsi", usage="a", username="u"))
            assert disk.encrypted
            assert len(disk.secrets) == 2


OPTIONAL_CD = (
    "<domain type='kvm'><name>a</name><uuid>u</uuid><devices><disk type='file' device='cdrom'><driver type='raw'/>"
    "<source file='/run/payload.img' startupPolicy='optional' index='2'/><backingStore/><target dev='sdd'/>"
    "<readonly/></disk></devices></domain>"
)
EMPTIED = CopyPlan(
    migration_id="m",
    epoch=3,
    destination_uri="x",
    disks=(DestinationDisk(target="sdd", kind=DiskKind.EMPTY),),
)


def test_a_medium_that_stays_behind_is_taken_out_of_the_live_form_only() -> None:
    live = etree.fromstring(render_live(OPTIONAL_CD, EMPTIED))
    (disk,) = live.findall("devices/disk")
    assert [child.tag for child in disk] == ["driver", "target", "readonly"]
    cold = etree.fromstring(persistent(OPTIONAL_CD, EMPTIED))
    assert cold.find("devices/disk/source[@file='/run/payload.img'][@startupPolicy='optional']") is not None


def test_a_drive_that_is_empty_already_stays_as_it_is() -> None:
    empty = OPTIONAL_CD.replace("file='/run/payload.img' ", "").replace(" index='2'", "")
    (disk,) = etree.fromstring(render_live(empty, EMPTIED)).findall("devices/disk")
    assert disk.find("source[@startupPolicy='optional']") is not None
