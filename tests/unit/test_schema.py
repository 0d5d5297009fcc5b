"""libvirt's domain schema, walked: every place that may name something of the host has a class, and code for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from lxml import etree

import sterna
from sterna.adapters.libvirt.xml.describe import describe_domain
from sterna.adapters.libvirt.xml.listen_addresses import listen_at
from sterna.adapters.libvirt.xml.references import QEMU, references_of
from sterna.agent.vm_checks import check_vm
from sterna.domain.references import Kind
from tests.unit.schema_page import KINDS, PAGE, written
from tests.unit.schema_places import places
from tests.unit.schema_rules import RULES, Rule, Verdict, class_of

PATH, ADDRESS, PORT, SET, SIZE = "/made/up", "192.0.2.77", "4711", "6", "2048"
VALUES = {
    Kind.ADDRESS: ADDRESS,
    Kind.CPUS: SET,
    Kind.NODES: SET,
    Kind.PAGES: SIZE,
    Kind.NETWORK: "lan",
    Kind.FILTER: "mine",
    Kind.SECRET: "aa-bb",
    Kind.CID: "77",
    Kind.SECURITY: "selinux",
}
PORTS = ("@port", "@tlsPort", "@websocket", "@service")
SPECIAL = {
    "devices/graphics/@address": f"unix:path={PATH}",
    "devices/graphics/@display": ":7",
    "memoryBacking/hugepages/page/@nodeset": "0",
    "resource/fibrechannel/@appid": "web",  # looked for is where it is written to
}
AROUND = (
    ("devices/graphics/@listen", {"devices/graphics": {"type": "vnc"}}),
    ("devices/graphics/@address", {"devices/graphics": {"type": "dbus"}}),
    ("devices/graphics/@display", {"devices/graphics": {"type": "sdl"}}),
    ("devices/graphics/listen/@address", {"devices/graphics/listen": {"type": "address"}}),
    ("devices/graphics/@", {"devices/graphics": {"type": "vnc"}, "devices/graphics/listen": {"type": "address"}}),
    ("devices/*/source/@path", {"devices/*": {"type": "unix"}, "devices/*/source": {"mode": "bind"}}),
    ("devices/*/source/@", {"devices/*": {"type": "tcp"}, "devices/*/source": {"mode": "bind"}}),
    ("devices/rng/backend/log", {"devices/rng/backend": {"model": "egd", "type": "tcp"}}),
    (
        "devices/rng/backend/source/@path",
        {"devices/rng/backend": {"model": "egd", "type": "unix"}, "devices/rng/backend/source": {"mode": "bind"}},
    ),
    (
        "devices/rng/backend/source/@",
        {"devices/rng/backend": {"model": "egd", "type": "tcp"}, "devices/rng/backend/source": {"mode": "bind"}},
    ),
    ("devices/rng/backend", {"devices/rng/backend": {"model": "random"}}),
    ("devices/interface/source/@network", {"devices/interface": {"type": "network"}}),
    ("devices/interface/", {"devices/interface": {"type": "user"}}),
    ("devices/tpm/backend/source", {"devices/tpm/backend": {"type": "external"}}),
    ("devices/tpm/backend/device", {"devices/tpm/backend": {"type": "passthrough"}}),
    ("memoryBacking/hugepages/page/@nodeset", {"memoryBacking/hugepages/page": {"size": SIZE}}),
    ("devices/memory/source/path", {"devices/memory": {"model": "nvdimm"}}),
    ("devices/input/", {"devices/input": {"type": "passthrough"}}),
    ("devices/smartcard/", {"devices/smartcard": {"mode": "host-certificates"}}),
    ("os/nvram/source/", {"os/nvram": {"type": "network"}}),
)
"""What must stand around a place for its value to mean anything: beginnings of places; `*`: a character device."""
CHARACTER = ("serial", "parallel", "console", "channel", "redirdev", "smartcard")
RESERVATIONS = "/reservations/source/@path"
DISK_TYPES = {
    "@dev": "block",
    "@dir": "dir",
    "@volume": "volume",
    "@pool": "volume",
    "@path": "vhostuser",
    "@namespace": "nvme",
}


def test_every_place_of_the_schema_has_a_class() -> None:
    found = places()
    assert len(found) > 1000, "the schema was not walked"
    assert [place for place in found if class_of(place) is None] == []


def test_every_class_is_of_a_place() -> None:
    used = {class_of(place) for place in places()}
    assert [rule.pattern for rule in RULES if rule not in used] == []


def test_what_a_later_libvirt_adds_is_noticed() -> None:
    new = (
        "devices/serial/source/@file",
        "devices/graphics/@folder",
        "os/splash",
        "devices/disk/source/@uri",
        "features/thing/@path",
        "devices/controller/@hostpath",
        "cputune/thing/@cpuset",
        "devices/new/source/@path",
    )
    assert [class_of(place) for place in new] == [None] * len(new)


def test_nothing_is_called_harmless_wholesale() -> None:
    wide = [rule.pattern for rule in RULES if rule.verdict is Verdict.HARMLESS and rule.pattern.endswith("**")]
    assert wide == []


def judged(*verdicts: Verdict) -> list[object]:
    """Places of these classes, with their rule."""
    found = ((place, class_of(place)) for place in places())
    return [pytest.param(place, rule, id=place) for place, rule in found if rule and rule.verdict in verdicts]


def build(place: str, value: str) -> etree._Element:
    """A domain with this value at this place, and around it what AROUND says."""
    domain = etree.Element("domain", nsmap={"qemu": QEMU})
    etree.SubElement(domain, "memory").text = "65536"
    tag = place.split("/")[1] if place.startswith("devices/") else ""
    general = place.replace(f"devices/{tag}", "devices/*", 1) if tag in CHARACTER else place
    around = next((more for begin, more in AROUND if place.startswith(begin) or general.startswith(begin)), {})
    for path, attributes in around.items():
        element = at(domain, path.replace("*", tag))
        for name, text in attributes.items():
            element.set(name, text)
    if place == "devices/memory/source/pagesize":
        at(domain, "devices/memory/target/size").text = "65536"
    if place.endswith(RESERVATIONS):
        at(domain, place.removesuffix("/source/@path")).set("managed", "no")
    parent, _, last = place.rpartition("/")
    if last.startswith("@"):
        at(domain, parent).set(last[1:], value)
    else:
        at(domain, place).text = value
    return domain


def at(domain: etree._Element, path: str) -> etree._Element:
    """The element of that path, made where it is missing."""
    element = domain
    for step in path.split("/") if path else ():
        name = f"{{{QEMU}}}{step}" if path.split("/", maxsplit=1)[0] in ("commandline", "override") else step
        found = element.find(name)
        element = found if found is not None else etree.SubElement(element, name)
    return element


def value_for(place: str, kind: str) -> str:
    if place in SPECIAL:
        return SPECIAL[place]
    if place.rpartition("/")[2] in PORTS:
        return PORT
    return VALUES.get(Kind(kind), PATH)


@pytest.mark.parametrize(("place", "rule"), judged(Verdict.CHECKED, Verdict.TRANSLATED))
def test_what_is_checked_or_translated_is_read(place: str, rule: Rule) -> None:
    if rule.by not in set(Kind):
        assert (Path(sterna.__file__).parent / rule.by).is_file()
        return
    value = value_for(place, rule.by)
    domain = build(place, value)
    found = [ref for ref in references_of(domain) if ref.kind == rule.by]
    names = [name for ref in found for name in (ref.name, str(ref.port), ref.nodes)]
    assert found, f"nothing of kind {rule.by}"
    if place not in SPECIAL and rule.by not in (Kind.CACHE, Kind.SECURITY):
        assert value in names
    if rule.verdict is Verdict.TRANSLATED and value == ADDRESS:
        listen_at(domain, {ADDRESS: "198.51.100.1"})
        assert ADDRESS not in etree.tostring(domain, encoding="unicode")


@pytest.mark.parametrize(("place", "rule"), judged(Verdict.REFUSED))
def test_what_is_refused_is_refused(place: str, rule: Rule) -> None:
    assert (Path(sterna.__file__).parent / rule.by).is_file()
    domain = build(place, PORT if place.rpartition("/")[2] in PORTS else PATH)
    if place.startswith("devices/disk/"):
        if not place.startswith("devices/disk/source/") or "dataStore" in place:
            return  # of a chain or a mirror: tests/e2e/test_chains.py
        disk = at(domain, "devices/disk")
        at(disk, "target").set("dev", "vda")
        last = place.rpartition("/")[2]
        disk.set("type", "nvme" if "/address/" in place else DISK_TYPES.get(last, "network"))
        at(disk, "source").set("protocol", "rbd" if "snapshot" in place else "https")
        if last != "@fdgroup":
            at(disk, "source").set("name", "x")
    vm = describe_domain(domain)
    codes = {refusal.code for refusal in check_vm(vm, None, ())} - {"vm-not-running"}
    assert codes, f"{place}: {etree.tostring(domain, encoding='unicode')}"


def test_the_page_is_what_the_code_does() -> None:
    assert set(KINDS) == set(Kind)
    assert written(PAGE.read_text()) == PAGE.read_text(), "run python -m tests.unit.schema_page"
