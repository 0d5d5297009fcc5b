"""What libvirt is asked about the things that a definition names, before anybody looks at a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from sterna.adapters.libvirt.resources import Facts, LibvirtHostResources, ask, lan_of
from sterna.domain.references import Kind, Lan, Reference
from sterna.domain.resource_checks import refusals

WEB, DB = "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"
DOMAIN = """<domain type='test' id='{id}'><name>{name}</name><uuid>{uuid}</uuid><memory>65536</memory>
<os><type>hvm</type></os><devices><serial type='file'><source path='/srv/{name}.log'/></serial>
<vsock model='virtio'><cid auto='no' address='{cid}'/></vsock></devices></domain>"""
NETWORK = "<network><name>{name}</name><bridge name='{name}0'/></network>"


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[Any]:
    domains = DOMAIN.format(id=1, name="web", uuid=WEB, cid=5) + DOMAIN.format(id=2, name="db", uuid=DB, cid=6)
    (tmp_path / "node.xml").write_text(f"<node>{domains}{NETWORK.format(name='lan')}</node>")
    one = libvirt.open(f"test://{tmp_path}/node.xml")
    one.networkDefineXML(NETWORK.format(name="off"))
    yield one
    one.close()


def named(kind: Kind, *names: str) -> list[Reference]:
    return [Reference(kind=kind, name=name, where="it") for name in names]


def test_what_other_running_guests_have_is_taken(conn: Any) -> None:
    told = ask(conn, named(Kind.OUTPUT, "/srv/web.log"), besides=DB)
    assert told.users == {"/srv/web.log": "VM web"}
    host = LibvirtHostResources("host2", "", ask(conn, named(Kind.CID, "5", "6", "7"), besides=DB))
    assert [host.cid_user(cid) for cid in ("5", "6", "7")] == ["VM web", "", ""]
    assert ask(conn, named(Kind.CPUS, "0"), besides=DB) == Facts()


def test_networks_by_their_state(conn: Any) -> None:
    wanted = named(Kind.NETWORK, "lan", "off", "none")
    host = LibvirtHostResources("host2", "", ask(conn, wanted, besides=DB))
    assert [host.network(ref.name) for ref in wanted] == ["active", "inactive", ""]
    assert [refusal.code for refusal in refusals(wanted, host)] == ["network-inactive", "network-missing"]


SWITCH = """<network><name>ovs</name><forward mode='bridge'/><bridge name='br-int'/>
<virtualport type='openvswitch'/><vlan><tag id='5'/></vlan>
<portgroup name='web'><vlan trunk='yes'><tag id='7'/><tag id='8'/></vlan></portgroup>
<portgroup name='access'><vlan><tag id='10'/></vlan></portgroup>
<portgroup name='trunk'><vlan trunk='yes'><tag id='10'/></vlan></portgroup>
<portgroup name='native'><vlan trunk='yes'><tag id='10' nativeMode='untagged'/></vlan></portgroup>
<portgroup name='plain' default='yes'/></network>"""
NAT = "<network><name>nat</name><forward/><bridge name='virbr0'/><ip address='10.9.0.1' prefix='24'/></network>"


def test_where_a_network_leads(conn: Any) -> None:
    for xml in (SWITCH, NAT):
        conn.networkDefineXML(xml)
    assert lan_of(conn, "lan", "") == Lan()
    assert lan_of(conn, "nat", "") == Lan(forward="nat")
    assert lan_of(conn, "ovs", "web") == Lan(forward="bridge", port="openvswitch", vlan="trunk 7,8")
    assert lan_of(conn, "ovs", "") == Lan(forward="bridge", port="openvswitch", vlan="5")
    assert lan_of(conn, "none", "") is None
    vlans = {lan_of(conn, "ovs", group) for group in ("access", "trunk", "native")}
    assert {str(lan).rpartition(", ")[2] for lan in vlans} == {"VLAN 10", "VLAN trunk 10", "VLAN trunk 10 untagged"}
    nic = Reference(kind=Kind.NETWORK, name="ovs", where="it", portgroup="web", lan=Lan())
    assert LibvirtHostResources("host2", "", ask(conn, [nic], besides=DB)).lan("ovs", "web") == lan_of(
        conn, "ovs", "web"
    )


def failure(code: int) -> libvirt.libvirtError:
    error = libvirt.libvirtError("none")
    error.err = (code, 0, "none", 0, "", "", "", 0, 0)
    return error


class Libvirtd:
    """Knows one filter."""

    def nwfilterLookupByName(self, name: str) -> str:
        return self._one(name, libvirt.VIR_ERR_NO_NWFILTER)

    def getCapabilities(self) -> str:
        return "<capabilities><host><secmodel><model>dac</model></secmodel></host></capabilities>"

    def _one(self, name: str, code: int) -> str:
        if name == "known":
            return name
        raise failure(code if name == "unknown" else libvirt.VIR_ERR_RPC)


def test_filters() -> None:
    wanted = named(Kind.FILTER, "known", "unknown")
    found = refusals(wanted, LibvirtHostResources("host2", "", ask(Libvirtd(), wanted, besides=DB)))
    assert [refusal.code for refusal in found] == ["filter-missing"]
    assert "unknown" in found[0].message
    with pytest.raises(libvirt.libvirtError):
        ask(Libvirtd(), named(Kind.FILTER, "an error"), besides=DB)


def test_security_drivers() -> None:
    wanted = named(Kind.SECURITY, "dac", "selinux")
    found = refusals(wanted, LibvirtHostResources("host2", "", ask(Libvirtd(), wanted, besides=DB)))
    assert [refusal.code for refusal in found] == ["security-driver-missing"]
