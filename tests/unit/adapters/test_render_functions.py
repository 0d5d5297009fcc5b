"""DEST_XML and PERSIST_XML of a guest with a virtual function, and what is attached after its copy."""

import pytest
from lxml import etree

from sterna.adapters.libvirt.xml.describe import describe
from sterna.adapters.libvirt.xml.render import render_device, render_live, render_persistent
from sterna.domain.copying import CopyPlan, DestinationNic
from sterna.domain.errors import Permanent
from sterna.domain.model import Nic

MAC = "52:54:00:00:00:aa"


DIRECT = (
    "<domain type='kvm'><name>a</name><uuid>u</uuid><memory unit='MiB'>1</memory><vcpu>2</vcpu>"
    "<os><type arch='x86_64' machine='pc'>hvm</type></os><devices>"
    f"<interface type='hostdev' managed='yes'><mac address='{MAC}'/><source><address type='pci' domain='0x0000' "
    "bus='0x3b' slot='0x02' function='0x1'/></source><vlan><tag id='42'/></vlan>"
    "<teaming type='transient' persistent='ua-standby'/><address type='pci' slot='0x07'/></interface>"
    f"<interface type='bridge'><mac address='{MAC}'/><source bridge='br0'/><model type='virtio'/>"
    "<teaming type='persistent'/><alias name='ua-standby'/></interface></devices></domain>"
)
FUNCTION = DestinationNic(mac=MAC, plug="hostdev", pci="0000:5e:10.3", vlan=42)
SPARE = DestinationNic(mac=MAC, plug="bridge", device="tapx", bridge="br0")
WITH_FUNCTION = CopyPlan(migration_id="m", epoch=3, destination_uri="x", nics=(FUNCTION, SPARE))


def test_a_virtual_function_is_not_in_the_live_form_and_its_standby_is() -> None:
    nic, standby = describe(DIRECT).nics
    assert (nic.plug, nic.pci, nic.vlan) == ("hostdev", "0000:3b:02.1", 42)
    assert standby.plug == "bridge"
    assert describe(DIRECT).immovable == ()
    detached = etree.fromstring(DIRECT)
    devices = detached.find("devices")
    assert devices is not None
    devices.remove(devices[0])
    live = render_live(etree.tostring(detached, encoding="unicode"), WITH_FUNCTION)
    (arrived,) = describe(live).nics
    assert arrived.device == "tapx"
    assert '<teaming type="persistent"/>' in live
    assert "ua-standby" in live


def test_a_function_the_guest_still_has_is_left_out_where_it_is_planned_and_never_forgotten() -> None:
    """A rehearsal shows the definition to the destination's libvirt before anything is taken from the guest."""
    (arrived,) = describe(render_live(DIRECT, WITH_FUNCTION)).nics
    assert arrived.device == "tapx"
    with pytest.raises(Permanent, match=MAC):
        render_live(DIRECT, WITH_FUNCTION.model_copy(update={"nics": (SPARE,)}))


def test_its_cold_form_and_what_is_attached_name_the_new_hosts_function() -> None:
    cold = render_persistent(DIRECT, WITH_FUNCTION, live=DIRECT)
    assert [(n.plug, n.pci, n.bridge) for n in describe(cold).nics] == [
        ("hostdev", "0000:5e:10.3", None),
        ("bridge", None, "br0"),
    ]
    attached = etree.fromstring(render_device(cold, Nic(mac=MAC, plug="hostdev", pci="0000:5e:10.3", vlan=42)))
    assert attached.get("managed") == "yes"
    wanted = {
        "teaming": {"type": "transient", "persistent": "ua-standby"},
        "vlan/tag": {"id": "42"},
        "source/address": {"type": "pci", "domain": "0x0000", "bus": "0x5e", "slot": "0x10", "function": "0x3"},
        "address": {"type": "pci", "slot": "0x07"},
    }
    for path, attributes in wanted.items():
        found = attached.find(path)
        assert found is not None
        assert dict(found.attrib.items()) == attributes


POOL = (
    f"<interface type='network'><mac address='{MAC}'/><source network='fast' portgroup='gold'/>"
    "<vlan><tag id='42'/></vlan>{teaming}<boot order='2'/><address type='pci' slot='0x07'/></interface>"
)
ON_BRIDGE = f"<interface type='bridge'><mac address='{MAC}'/><source bridge='br0'/>{{teaming}}</interface>"
ON_NETWORK = f"<interface type='network'><mac address='{MAC}'/><source network='office'/>{{teaming}}</interface>"
TRANSIENT, PERSISTENT = "<teaming type='transient' persistent='ua-s'/>", "<teaming type='persistent'/>"


def of_pool(standby: str, teaming: tuple[str, str] = ("", "")) -> str:
    """The definition of a VM with a function of a libvirt network, which comes last."""
    nics = (standby + POOL).replace("{teaming}", teaming[0], 1 if standby else 0).replace("{teaming}", teaming[1])
    return f"<domain type='kvm'><name>a</name><uuid>u</uuid><devices>{nics}</devices></domain>"


STANDBYS = pytest.mark.parametrize(
    ("standby", "teaming"),
    [
        ("", ("", "")),
        (ON_BRIDGE, ("", "")),
        (ON_BRIDGE, (PERSISTENT, TRANSIENT)),
        (ON_NETWORK, ("", "")),
        (ON_NETWORK, (PERSISTENT, TRANSIENT)),
    ],
)


@STANDBYS
def test_a_function_of_a_libvirt_network_is_attached_as_it_is_written(
    standby: str, teaming: tuple[str, str]
) -> None:
    """libvirt takes a free function of the network, and gives it the network's VLAN."""
    nic = Nic(mac=MAC, plug="hostdev", pci="0000:5e:10.3")
    attached = etree.fromstring(render_device(of_pool(standby, teaming), nic, {"fast"}))
    assert attached.get("type") == "network"
    assert attached.find("source[@network='fast'][@portgroup='gold']") is not None
    assert [child.tag for child in attached][1:] == [
        "source",
        "vlan",
        *(["teaming"] if teaming[1] else []),
        "boot",
        "address",
    ]


@pytest.mark.parametrize("standby", [ON_BRIDGE, ON_NETWORK])
def test_a_standby_is_never_taken_for_the_function(standby: str) -> None:
    alone = of_pool("").replace(POOL.format(teaming=""), standby.format(teaming=""))
    attached = etree.fromstring(render_device(alone, Nic(mac=MAC, plug="hostdev", pci="0000:5e:10.3"), {"fast"}))
    assert attached.get("type") == "hostdev"
    for running in (alone, alone.replace("</interface>", f"{PERSISTENT}</interface>")):
        assert render_live(running, WITH_FUNCTION).count("<interface") == 1


@STANDBYS
def test_a_rehearsal_leaves_out_a_function_of_a_libvirt_network(standby: str, teaming: tuple[str, str]) -> None:
    plan = WITH_FUNCTION if standby else WITH_FUNCTION.model_copy(update={"nics": (FUNCTION,)})
    live = etree.fromstring(render_live(of_pool(standby, teaming), plan))
    assert len(live.findall("devices/interface")) == bool(standby)
    assert live.find("devices/interface/teaming[@type='transient']") is None


@STANDBYS
def test_the_persistent_form_of_one_of_a_libvirt_network_stays(standby: str, teaming: tuple[str, str]) -> None:
    definition = of_pool(standby, teaming)
    running = DIRECT if standby else DIRECT.replace(DIRECT[DIRECT.index("<interface type='bridge'") : -19], "")
    plan = WITH_FUNCTION if standby else WITH_FUNCTION.model_copy(update={"nics": (FUNCTION,)})
    after = etree.fromstring(render_persistent(definition, plan, live=running))
    (function,) = after.findall("devices/interface/source[@network='fast']")
    found = function.getparent()
    assert found is not None
    before = etree.fromstring(definition).findall("devices/interface")[-1]
    assert etree.tostring(found) == etree.tostring(before)


def test_a_definition_that_does_not_know_the_nic_still_gives_it() -> None:
    unknown = "<domain type='kvm'><devices/></domain>"
    for nic in (Nic(mac=MAC, plug="hostdev", pci="0000:5e:10.3"), Nic(mac=MAC, plug="bridge", bridge="br0")):
        (seen,) = describe(f"<domain><devices>{render_device(unknown, nic)}</devices></domain>").nics
        assert (seen.mac, seen.plug, seen.pci, seen.bridge) == (nic.mac, nic.plug, nic.pci, nic.bridge)
