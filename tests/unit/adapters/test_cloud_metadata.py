"""What a domain's definition says of the cloud it was made in."""

from __future__ import annotations

import pytest

from sterna.adapters.libvirt.xml.cloud import read_nova, read_volumes
from sterna.adapters.libvirt.xml.metadata import parse_xml
from sterna.domain.nova import Flavor, NovaFacts

VOLUME = "42bec667-7dd8-4de5-8734-b3b9164dc959"
OWNED = """
<nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/{version}">
  <nova:package version="34.0.0"/>
  <nova:name>web1</nova:name>
  <nova:creationTime>2026-11-29 06:43:22</nova:creationTime>
  <nova:flavor name="small" id="f-1">
    <nova:memory>2048</nova:memory><nova:disk>20</nova:disk><nova:swap>512</nova:swap>
    <nova:ephemeral>1</nova:ephemeral><nova:vcpus>2</nova:vcpus>
    <nova:extraSpecs><nova:extraSpec name="hw:cpu_policy">shared</nova:extraSpec></nova:extraSpecs>
  </nova:flavor>
  <nova:owner><nova:user uuid="u-1">mina</nova:user><nova:project uuid="p-1">web</nova:project></nova:owner>
  <nova:root type="{root}" uuid="i-1"/>
</nova:instance>"""


def domain(metadata: str = "", disks: str = "") -> str:
    return f"<domain><metadata>{metadata}</metadata><devices>{disks}</devices></domain>"


@pytest.mark.parametrize(("version", "root", "image"), [("1.1", "image", "i-1"), ("1.0", "volume", "")])
def test_novas_element_is_read(version: str, root: str, image: str) -> None:
    found = read_nova(parse_xml(domain(OWNED.format(version=version, root=root))))
    flavor = Flavor(
        id="f-1",
        name="small",
        memory_mib=2048,
        disk_gib=20,
        ephemeral_gib=1,
        swap_mib=512,
        vcpus=2,
        extra_specs={"hw:cpu_policy": "shared"},
    )
    assert found == NovaFacts(
        name="web1",
        created_at="2026-11-29T06:43:22+00:00",
        user_id="u-1",
        project_id="p-1",
        image=image,
        flavor=flavor,
    )


@pytest.mark.parametrize(
    "metadata",
    ["", '<a:instance xmlns:a="http://example.org/nova"/>', "<!-- nova -->"],
)
def test_what_is_not_novas_is_not_taken_for_it(metadata: str) -> None:
    assert read_nova(parse_xml(domain(metadata))) is None


def test_an_empty_or_odd_element_says_nothing() -> None:
    odd = """<nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1">
      <nova:creationTime>yesterday</nova:creationTime><nova:flavor><nova:memory>lots</nova:memory></nova:flavor>
    </nova:instance>"""
    assert read_nova(parse_xml(domain(odd))) == NovaFacts(flavor=Flavor())


def test_serials_that_are_uuids_are_volumes() -> None:
    serials = ["disk-1", VOLUME.upper(), VOLUME, VOLUME.replace("-", ""), ""]
    disks = "".join(f"<disk><serial>{serial}</serial></disk>" for serial in serials) + "<disk/>"
    assert read_volumes(parse_xml(domain(disks=disks))) == (VOLUME,)
