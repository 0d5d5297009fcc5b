"""Domain XML -> `Vm`, on definitions that libvirt 11.3 really wrote (xml/*.xml)."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sterna.adapters.libvirt.xml.describe import all_secrets, describe
from sterna.adapters.libvirt.xml.metadata import parse_xml
from sterna.domain.errors import Permanent
from sterna.domain.model import DiskKind, Nic, SecretRef
from sterna.domain.plugs import BRIDGE, HYBRID, MACVTAP, OVS, VHOSTUSER, refusals
from tests.narrowing import not_none

UUID = "0b91f1a5-7d3c-4f7e-9d5c-0c2f5a0c1d11"
XML = Path(__file__).with_name("xml")
MAC = "52:54:00:74:00:14"


def read(name: str) -> str:
    return (XML / f"{name}.xml").read_text()


def small(devices: str = "", metadata: str = "", nic: str = "") -> str:
    """A domain with little in it."""
    return (
        "<domain type='kvm'><name>a</name><uuid>u</uuid><memory unit='MiB'>1</memory><vcpu>2</vcpu>"
        f"<metadata>{metadata}</metadata><os><type arch='x86_64' machine='pc'>hvm</type></os>"
        f"<devices>{devices}{nic}</devices></domain>"
    )


@pytest.mark.parametrize("name", ["booted", "arrived"])
def test_what_stays_the_same_wherever_the_guest_is(name: str) -> None:
    vm = describe(read(name))
    assert (vm.name, vm.memory_bytes, vm.vcpus, vm.virt_type, vm.machine) == (
        "g1",
        512 << 20,
        1,
        "qemu",
        "pc-q35-10.0",
    )
    assert vm.emulator == "/usr/bin/qemu-system-x86_64"
    assert "qemu64" in vm.cpu_xml
    assert [(d.target, d.kind, d.format) for d in vm.disks] == [
        ("vda", DiskKind.FILE, "qcow2"),
        ("vdb", DiskKind.FILE, "qcow2"),
        ("vdc", DiskKind.ISCSI, "raw"),
    ]
    assert all(d.volume_id and len(d.volume_id) == 36 and d.backing_path is None for d in vm.disks)
    assert not_none(vm.disks[0].volume_id) in (vm.disks[0].path or "")
    assert vm.immovable == ()
    (nic,) = vm.nics
    assert (nic.mac, nic.plug, nic.bridge, nic.vlan) == (MAC, "ovs", "br-int", 100)
    assert nic.port_id == describe(read("booted")).nics[0].port_id


@pytest.mark.parametrize(("inside", "mirrored"), [("", False), ("<mirror type='network' job='copy'/>", True)])
def test_a_disk_that_a_block_job_copies_elsewhere(inside: str, mirrored: bool) -> None:
    disk = f"<disk type='file'><source file='/a'/><target dev='vda'/>{inside}</disk>"
    (found,) = describe(small(disk)).disks
    assert found.mirrored is mirrored
    assert ("mirrored" in found.model_dump(mode="json")) is mirrored  # journals stay as they were


def test_a_guest_that_booted_here() -> None:
    vm = describe(read("booted"))
    assert vm.epoch == 0
    assert (vm.nics[0].device, vm.nics[0].managed) == ("vnet0", True)
    assert vm.disks[2].iscsi is not None
    assert vm.disks[2].iscsi.initiator == "iqn.2026-11.lab.sterna:host1"
    assert (vm.disks[2].iscsi.lun, vm.disks[2].iscsi.portal_port) == (1, 3260)


def test_a_guest_that_arrived_here_knows_its_port_from_the_metadata() -> None:
    vm = describe(read("arrived"))
    assert vm.epoch == 1
    assert vm.nics[0].managed is False
    assert (vm.nics[0].device or "").startswith("tap")
    assert vm.disks[2].iscsi is not None
    assert vm.disks[2].iscsi.initiator == "iqn.2026-11.lab.sterna:host2"


@pytest.mark.parametrize(
    ("nic", "plug"),
    [
        (
            "<interface type='bridge'><source bridge='br0'/><virtualport type='midonet'/></interface>",
            "other: bridge br0 with virtualport midonet",
        ),
        (
            "<interface type='bridge'><source bridge='br0'/><vlan><tag id='7'/></vlan></interface>",
            BRIDGE,
        ),
        (
            "<interface type='bridge'><source bridge='br0'/><vlan trunk='yes'><tag id='7'/></vlan></interface>",
            "other: trunk of VLANs on the Linux bridge br0",
        ),
        (
            "<interface type='direct'><source dev='eth0' mode='vepa'/><virtualport type='802.1Qbh'/></interface>",
            "other: direct eth0",
        ),
        ("<interface type='network'><source network='default'/></interface>", "other: network default"),
        (
            "<interface type='network'><source network='default' portid='u' bridge='virbr0'/></interface>",
            "other: network default",
        ),
        (
            "<interface type='ethernet'><target dev='x'/></interface>",
            "other: ethernet with a tap that libvirt makes",
        ),
    ],
)
def test_plug_types_not_supported_say_what_they_are(nic: str, plug: str) -> None:
    assert describe(small(nic=nic)).nics[0].plug == plug


def test_a_private_network_is_refused_by_its_name_and_with_its_own_reason() -> None:
    (found,) = refusals(one_nic("<interface type='network'><source network='default'/></interface>"))
    assert "is on default, a network of its host's libvirt" in found.message
    assert "not virbr..." in found.fix


def one_nic(xml: str, metadata: str = "") -> Nic:
    (nic,) = describe(small(nic=xml, metadata=metadata)).nics
    return nic


def test_a_linux_bridge() -> None:
    nic = one_nic(
        f"<interface type='bridge'><mac address='{MAC}'/><source bridge='br0'/><target dev='vnet3'/>"
        "<mtu size='1400'/></interface>"
    )
    assert (nic.plug, nic.bridge, nic.device, nic.port_id, nic.mtu) == (BRIDGE, "br0", "vnet3", None, 1400)


def test_a_hybrid_plug_as_nova_writes_it_names_its_own_bridge_and_not_the_switch() -> None:
    nic = one_nic(
        f"<interface type='bridge'><mac address='{MAC}'/><source bridge='qbr7d1c64c4-00'/>"
        "<target dev='vnet3'/></interface>"
    )
    assert (nic.plug, nic.bridge, nic.device, nic.port_id) == (HYBRID, None, "vnet3", None)


@pytest.mark.parametrize(("said", "mode"), [("mode='bridge'", "bridge"), ("mode='passthrough'", "passthrough")])
def test_a_macvtap_may_have_queues(said: str, mode: str) -> None:
    nic = one_nic(
        f"<interface type='direct'><mac address='{MAC}'/><source dev='eth0' {said}/>"
        "<target dev='macvtap0'/><driver queues='4'/></interface>"
    )
    assert (nic.plug, nic.parent, nic.mode, nic.device, nic.bridge) == (MACVTAP, "eth0", mode, "macvtap0", None)


@pytest.mark.parametrize(
    ("mode", "plug", "vlan"), [("passthrough", MACVTAP, 7), ("bridge", "other: direct eth0", 7)]
)
def test_a_vlan_of_a_macvtap_is_libvirts_to_set_on_a_virtual_function(mode: str, plug: str, vlan: int) -> None:
    nic = one_nic(
        f"<interface type='direct'><mac address='{MAC}'/><source dev='eth0' mode='{mode}'/>"
        f"<vlan><tag id='{vlan}'/></vlan><target dev='macvtap0'/></interface>"
    )
    assert (nic.plug, nic.vlan) == (plug, vlan)


def test_a_macvtap_that_says_no_mode_is_libvirts_own_default() -> None:
    assert one_nic("<interface type='direct'><source dev='eth0'/></interface>").mode == "vepa"


def test_a_vhost_user_port() -> None:
    nic = one_nic(
        "<interface type='vhostuser'><source type='unix' path='/run/vhu1' mode='server'/>"
        "<driver queues='4'/></interface>"
    )
    assert (nic.plug, nic.device) == (VHOSTUSER, "/run/vhu1")


@pytest.mark.parametrize(
    ("remembered", "plug"), [("", OVS), ("plug='ovs-hybrid'", HYBRID), ("plug='bridge'", BRIDGE)]
)
def test_a_tap_made_ahead_is_plugged_as_the_metadata_remembers(remembered: str, plug: str) -> None:
    own = (
        "<s:domain xmlns:s='https://sterna.dev/xmlns/domain/1'><s:epoch>1</s:epoch>"
        f"<s:nic mac='{MAC}' port='p-1' bridge='b0' {remembered}/></s:domain>"
    )
    nic = one_nic(
        f"<interface type='ethernet'><mac address='{MAC}'/><target dev='tap1' managed='no'/></interface>", own
    )
    assert (nic.plug, nic.bridge, nic.port_id, nic.managed) == (plug, "b0", "p-1", False)


OTHERS = f"<interface type='ethernet'><mac address='{MAC}'/><target dev='tap0' managed='no'/></interface>"


@pytest.mark.parametrize(
    "own",
    [
        "",
        "<s:domain xmlns:s='https://sterna.dev/xmlns/domain/1'><s:epoch>1</s:epoch>"
        "<s:nic mac='52:54:00:00:00:77' port='p-1' bridge='b0'/></s:domain>",
    ],
)
def test_a_tap_of_which_sterna_remembers_nothing_was_made_by_another_program(own: str) -> None:
    nic = one_nic(OTHERS, own)
    (refused,) = refusals(nic)
    assert (refused.code, nic.bridge, nic.port_id) == ("nic-unsupported", None, None)
    assert "tap0" in refused.message and "another program" in refused.message
    assert "have that program move the VM" in refused.fix


def test_a_tap_that_libvirt_makes_is_another_kind() -> None:
    (refused,) = refusals(one_nic(OTHERS.replace(" managed='no'", "")))
    assert "a tap that libvirt makes" in refused.message


NETWORK = "<disk type='network' device='{}'><source {}>{}</source><target dev='sda'/></disk>"


@pytest.mark.parametrize(
    ("disk", "kind", "detail"),
    [
        ("<disk type='file' device='cdrom'><target dev='sda'/><readonly/></disk>", DiskKind.EMPTY, ""),
        (
            "<disk type='block'><source dev='/dev/vg/lv'/><target dev='sda'/></disk>",
            DiskKind.OTHER,
            "block disk /dev/vg/lv",
        ),
        (
            "<disk type='network'><source protocol='gluster' name='p/i'/><target dev='sda'/></disk>",
            DiskKind.OTHER,
            "network disk over gluster: p/i",
        ),
        (
            NETWORK.format("disk", "protocol='nbd'", "<host transport='unix' socket='/run/n.sock'/>"),
            DiskKind.OTHER,
            "network disk over nbd: unix:/run/n.sock",
        ),
        (
            NETWORK.format("cdrom", "protocol='nbd'", "<host transport='unix' socket='/run/n.sock'/>"),
            DiskKind.OTHER,
            "network disk over nbd: unix:/run/n.sock",
        ),
        (
            NETWORK.format("disk", "protocol='nbd' name='x'", "<host name='nas' port='10809'/>"),
            DiskKind.OTHER,
            "network disk over nbd: x at nas:10809",
        ),
        (
            NETWORK.format("disk", "protocol='gluster' name='v/i'", "<host name='a'/><host name='b' port='7'/>"),
            DiskKind.OTHER,
            "network disk over gluster: v/i at a, b:7",
        ),
        (NETWORK.format("disk", "protocol='vxhs'", ""), DiskKind.OTHER, "network disk over vxhs: without a server"),
        (
            NETWORK.format("disk", "protocol='iscsi'", "<host name='a'/>"),
            DiskKind.OTHER,
            "iSCSI without the name of a target",
        ),
        (
            NETWORK.format("disk", "protocol='rbd'", "<host name='a'/>"),
            DiskKind.OTHER,
            "Ceph without the name of an image",
        ),
        (
            "<disk type='network'><source protocol='iscsi' name='iqn.x/1'/><target dev='sda'/></disk>",
            DiskKind.OTHER,
            "iSCSI with 0 portals",
        ),
        (
            "<disk type='file'><source file='/a'/><transient/><target dev='sda'/></disk>",
            DiskKind.OTHER,
            "transient overlay: its changes live in a hidden file of this host",
        ),
    ],
)
def test_disks_not_supported_say_what_they_are(disk: str, kind: DiskKind, detail: str) -> None:
    found = describe(small(disk)).disks[0]
    assert (found.kind, found.detail) == (kind, detail)


def test_a_backing_file_over_a_socket_without_a_name_is_in_the_chain() -> None:
    disk = (
        "<disk type='file'><source file='/a'/><backingStore type='network'><format type='raw'/>"
        "<source protocol='nbd'><host transport='unix' socket='/run/n.sock'/></source><backingStore/>"
        "</backingStore>"
        "<target dev='vda'/></disk>"
    )
    assert describe(small(disk)).disks[0].chain == ("nbd://unix:/run/n.sock",)


def test_a_backing_file_is_seen() -> None:
    disk = (
        "<disk type='file'><driver type='qcow2'/><source file='/a'/><backingStore type='file'>"
        "<format type='raw'/><source file='/base'/><backingStore/></backingStore><target dev='vda'/></disk>"
    )
    assert describe(small(disk)).disks[0].backing_path == "/base"


def test_a_part_of_a_file_is_seen() -> None:
    part = "<source file='/a'><slices><slice type='storage' offset='1048576' size='33554432'/></slices></source>"
    disk = f"<disk type='file'><driver type='raw'/>{part}<target dev='vda'/></disk>"
    assert describe(small(disk)).disks[0].sliced
    assert not describe(small(disk.replace(part, "<source file='/a'/>"))).disks[0].sliced


@pytest.mark.parametrize("policy, optional", [("optional", True), ("requisite", False), ("mandatory", False)])
def test_a_medium_may_be_missing_only_where_a_cold_start_drops_it(policy: str, optional: bool) -> None:
    """With `requisite` libvirt drops a missing medium of an arriving guest, and fails a start."""
    cd = f"<disk type='file' device='cdrom'><source file='/cd' startupPolicy='{policy}'/><target dev='sda'/></disk>"
    (disk,) = describe(small(cd)).disks
    assert disk.optional == optional


def test_image_metadata_as_nova_writes_it() -> None:
    nova = """<nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1"><nova:name>web</nova:name>
      <nova:image uuid="i-1"><nova:properties><nova:property name="hw_disk_bus">virtio</nova:property>
      </nova:properties></nova:image><nova:root type="image" uuid="i-1"/></nova:instance>"""
    assert describe(small(metadata=nova)).image == {"uuid": "i-1", "properties": {"hw_disk_bus": "virtio"}}
    old = (
        nova.replace("nova/1.1", "nova/1.0")
        .replace("<nova:image", "<nova:other")
        .replace("</nova:image", "</nova:other")
    )
    assert describe(small(metadata=old)).image == {"uuid": "i-1"}


def test_external_entities_are_not_resolved(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("SECRET")
    evil = f'<!DOCTYPE domain [<!ENTITY x SYSTEM "file://{secret}">]>' + small().replace("<name>a", "<name>&x;")
    with pytest.raises(Permanent, match="DOCTYPE"):
        describe(evil)
    bomb = '<!DOCTYPE d [<!ENTITY a "aa"><!ENTITY b "&a;&a;&a;">]>' + small().replace("<name>a", "<name>&b;")
    with pytest.raises(Permanent, match="DOCTYPE"):
        describe(bomb)


@given(st.text(max_size=60))
def test_text_that_is_no_xml_is_one_of_our_errors(text: str) -> None:
    with pytest.raises(Permanent):
        describe(text)


def test_the_secrets_of_a_disk_are_found_wherever_libvirt_allows_them() -> None:
    disk = f"""<disk type='network' device='disk'>
      <auth username='fred'><secret type='iscsi' usage='beside'/></auth>
      <source protocol='iscsi' name='iqn.2026-11.org.sterna:a/1'><host name='10.0.0.9'/>
        <encryption format='luks'><secret type='passphrase' uuid='{UUID.upper()}'/></encryption>
      </source>
      <backingStore type='network'><format type='raw'/>
        <source protocol='rbd' name='p/base'>
          <auth username='cinder'><secret type='ceph' uuid='457eb676-33da-42ec-9a8c-9293d545c337'/></auth>
        </source>
      </backingStore>
      <mirror type='file' job='copy'><source file='/m'>
        <encryption format='luks'><secret type='passphrase' usage='/m'/></encryption></source></mirror>
      <encryption format='luks'><secret type='passphrase' uuid='{UUID}'/></encryption>
      <target dev='vda' bus='virtio'/></disk>"""
    (found,) = describe(small(devices=disk)).disks
    assert found.encrypted
    assert set(found.secrets) == {
        SecretRef(kind="iscsi", usage="beside", username="fred"),
        SecretRef(kind="ceph", uuid="457eb676-33da-42ec-9a8c-9293d545c337", username="cinder"),
        SecretRef(kind="volume", uuid=UUID),
        SecretRef(kind="volume", usage="/m"),
    }
    assert len(found.secrets) == 4
    assert found.secrets[0].kind == "iscsi"


@pytest.mark.parametrize(
    ("nic", "plug"),
    [
        ("<source bridge='br0'/><port isolated='yes'/>", "bridge"),
        ("<source bridge='b'/><virtualport type='openvswitch'/><driver queues='4'/>", "ovs"),
        ("<source bridge='b'/><virtualport type='openvswitch'/><vlan trunk='yes'><tag id='1'/></vlan>", "ovs"),
        (
            "<source bridge='b'/><virtualport type='openvswitch'/><vlan><tag id='1' nativeMode='tagged'/></vlan>",
            "ovs",
        ),
    ],
)
def test_what_libvirt_sets_up_with_the_tap_is_no_obstacle(nic: str, plug: str) -> None:
    (seen,) = describe(small(nic=f"<interface type='bridge'>{nic}</interface>")).nics
    assert (seen.plug, seen.vlan) == (plug, None)


def test_the_secret_of_a_tpm_counts_as_referred_to() -> None:
    tpm = (
        "<tpm model='tpm-crb'><backend type='emulator' version='2.0'>"
        f"<encryption secret='{UUID.upper()}'/></backend></tpm>"
    )
    disk = "<disk type='file'><source file='/a'><encryption format='luks'><secret type='passphrase' usage='/a'/>"
    devices = f"{disk}</encryption></source><target dev='vda'/></disk>{tpm}"
    assert list(all_secrets(parse_xml(small(devices)))) == [
        SecretRef(kind="volume", usage="/a"),
        SecretRef(kind="vtpm", uuid=UUID),
    ]
