"""Which places of a definition are different on the destination, and what is kept of them."""

from __future__ import annotations

import pytest
from lxml import etree

from sterna.adapters.libvirt.xml.differences import changes_for, differences
from sterna.domain.copying import CopyPlan, DestinationNic
from sterna.domain.definition_changes import LONGEST, MOST, DefinitionChange, bounded
from sterna.domain.errors import Permanent

MAC = "52:54:00:00:00:0a"
DOMAIN = f"""<domain type='kvm'><name>web1</name><uuid>aaaaaaaa-0000-4000-8000-000000000001</uuid>
<metadata><sterna:domain xmlns:sterna='https://sterna.dev/xmlns/domain/1'><sterna:epoch>1</sterna:epoch>
<sterna:migration>m</sterna:migration></sterna:domain></metadata>
<devices><interface type='bridge'><mac address='{MAC}'/><source bridge='br0'/><target dev='vnet3'/>
<model type='virtio'/></interface>
<graphics type='vnc' port='-1' listen='10.0.0.1' passwd='hidden'>
<listen type='address' address='10.0.0.1'/></graphics>
</devices></domain>"""
PLAN = CopyPlan(
    migration_id="m",
    epoch=1,
    destination_uri="x",
    nics=(DestinationNic(mac=MAC, plug="bridge", bridge="br-prod", device="tap0a"),),
    listens={"10.0.0.1": "10.0.0.2"},
)


def found(before: str, after: str) -> list[tuple[str, str, str]]:
    changes = differences(etree.fromstring(before), etree.fromstring(after))
    return [(one.where, one.before, one.after) for one in changes]


def test_what_the_destination_is_given_differently() -> None:
    inactive = DOMAIN.replace("<target dev='vnet3'/>", "")
    changes = changes_for(DOMAIN, inactive, PLAN)
    both = {
        (f"devices/interface[{MAC}]/source/@bridge", "br0", "br-prod"),
        ("devices/graphics/@listen", "10.0.0.1", "10.0.0.2"),
        ("devices/graphics/listen/@address", "10.0.0.1", "10.0.0.2"),
    }
    cold = {(one.where, one.before, one.after) for one in changes.persistent or () if "metadata" not in one.where}
    live = {(one.where, one.before, one.after) for one in changes.live if "metadata" not in one.where}
    assert cold == both
    assert live == both | {(f"devices/interface[{MAC}]/target/@dev", "vnet3", "tap0a")}
    assert changes.left_out == 0
    assert any(one.where.startswith(f"metadata/sterna/nic[{MAC}]") for one in changes.live)


def test_a_transient_vm_has_no_next_start() -> None:
    assert changes_for(DOMAIN, None, PLAN).persistent is None
    assert changes_for(DOMAIN, DOMAIN, PLAN.model_copy(update={"persistent": False})).persistent is None


def test_a_plan_that_does_not_fit_is_said_as_for_the_copy() -> None:
    with pytest.raises(Permanent, match="no entry for NIC"):
        changes_for(DOMAIN, None, PLAN.model_copy(update={"nics": ()}))


def test_no_secret_is_in_it() -> None:
    url = "<domain><a password='hidden'><b href='https://joe:hidden@host/x?token=hidden'/></a></domain>"
    graphics = "<domain><graphics type='vnc' passwd='hidden'/></domain>"
    pairs = [
        (graphics, graphics.replace("hidden", "hidden too")),
        (graphics, "<domain/>"),
        ("<domain/>", graphics),
        (url, "<domain/>"),
        (url, url.replace("@host", "@other")),
        (url, "<domain><a>password=hidden</a></domain>"),
    ]
    for before, after in pairs:
        assert found(before, after) and "hidden" not in str(found(before, after))


def test_elements_are_known_by_what_tells_them_apart() -> None:
    disk = "<disk><source file='/{0}'/><target dev='{1}'/></disk>"
    before = (
        f"<domain><devices>{disk.format('a', 'vda')}{disk.format('b', 'vdb')}<serial/><serial/></devices></domain>"
    )
    after = f"<domain><devices>{disk.format('b', 'vdb')}{disk.format('c', 'vda')}<serial/></devices></domain>"
    assert found(before, before) == []
    assert found(before, after) == [
        ("devices/disk[vda]/source/@file", "/a", "/c"),
        ("devices/serial[2]", "<serial/>", ""),
    ]


def test_white_space_and_comments_are_no_difference() -> None:
    assert found("<domain><a/><b>x</b></domain>", "<domain>\n <a/> <!-- c -->\n<b> x </b></domain>") == []
    assert found("<domain><b>x</b></domain>", "<domain><b>y</b></domain>") == [("b/text()", "x", "y")]


def test_it_is_bounded() -> None:
    addresses = {f"10.0.{number >> 8}.{number & 255}": "10.9.9.9" for number in range(MOST + 50)}
    serial = "".join(
        f"<serial type='tcp'><source mode='bind' host='{one}' service='1'/></serial>" for one in addresses
    )
    domain = f"<domain><devices>{serial}</devices></domain>"
    plan = CopyPlan(migration_id="m", epoch=1, destination_uri="x", listens=addresses)
    changes = changes_for(domain, domain, plan)
    assert changes.persistent is not None and len(changes.live) == len(changes.persistent) == MOST
    assert changes.left_out == 2 * 51  # with the metadata
    long = DefinitionChange(where="devices", after="<" + "x" * 5000)
    assert [len(one.after) for one in bounded([long], None).live] == [LONGEST]
