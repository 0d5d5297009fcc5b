"""Where a NIC is plugged, in an <interface> of libvirt's XML: changed where the destination plugs it differently.

Pure. Called by `render.py`. libvirt makes every NIC's device with its guest, from the form an operator writes
(ADR 15), so that form stays as it is unless the destination needs another one. Versions before wrote
`<interface type='ethernet'>` with `managed='no'` into the live definition; that is read, and turned back.
"""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from lxml import etree

from sterna.adapters.libvirt.xml.describe import pci_address, plug_of
from sterna.adapters.libvirt.xml.metadata import Element, NicFacts
from sterna.domain.copying import DestinationNic
from sterna.domain.model import Nic
from sterna.domain.plugs import HOSTDEV, HYBRID, MACVTAP, OVS, hybrid_names

_WHERE = ("source", "virtualport", "vlan", "target", "script", "port")
"""Children of an interface that say where it is plugged: replaced where another plug type is needed."""


def mac_of(interface: Element) -> str:
    """In lower case; '' where there is none."""
    mac = interface.find("mac")
    return (mac.get("address") or "").lower() if mac is not None else ""


def is_hostdev(interface: Element) -> bool:
    """A virtual function?"""
    return interface.get("type") == "hostdev"


def to_live(interface: Element, nic: DestinationNic, remembered: Mapping[str, NicFacts]) -> None:
    """The live form: as on the source, with the name of the port that was made ahead for it."""
    fact = remembered.get(mac_of(interface), NicFacts(mac=nic.mac))
    if _must_be_replugged(interface, nic, fact):
        replug(interface, nic, vlan=_vlan(nic, fact))
    elif interface.get("type") != "network":  # there it is the destination's network that says it
        _fit(interface, nic)
    if nic.device:
        _name_device(interface, nic.device)


def to_cold(
    interface: Element, nic: DestinationNic, remembered: Mapping[str, NicFacts], live: Element | None
) -> None:
    """The form that boots from cold: as it is, unless the destination plugs it differently than the source did.

    `live`: the interface in the source's live definition, None where the running guest does not have it.
    """
    fact = remembered.get(mac_of(interface), NicFacts(mac=nic.mac))
    if nic.plug == HOSTDEV:
        to_function(interface, nic)
    elif _is_made_ahead(interface):
        replug(interface, nic, vlan=_vlan(nic, fact))
    elif interface.get("type") == "network" or live is None:
        return
    elif _is_made_ahead(live):
        if (fact.plug or OVS) != plug_of(interface, None) or (fact.bridge or nic.bridge) != nic.bridge:
            replug(interface, nic, vlan=_vlan(nic, fact))
    elif _must_be_replugged(live, nic, fact):
        replug(interface, nic, vlan=_vlan(nic, fact))
    elif _source(interface) == _source(live):
        _move(interface, nic)


def replug(interface: Element, nic: DestinationNic, *, vlan: int | None) -> None:
    """Whatever form is there: the one in which libvirt plugs a NIC of this type itself."""
    if nic.plug == HOSTDEV:
        to_function(interface, nic)
        return
    for name in _WHERE:
        _drop_all(interface, name)
    interface.set("type", "direct" if nic.plug == MACVTAP else "bridge")
    if nic.plug == MACVTAP:
        _after(interface, "mac", etree.Element("source", {"dev": nic.parent or "", "mode": nic.mode or "vepa"}))
        return
    if nic.plug == OVS:
        if vlan is not None:
            element = etree.Element("vlan")
            etree.SubElement(element, "tag", {"id": str(vlan)})
            _after(interface, "mac", element)
        vport = etree.Element("virtualport", {"type": "openvswitch"})
        etree.SubElement(vport, "parameters", {"interfaceid": nic.port_id})
        _after(interface, "mac", vport)
    _after(interface, "mac", etree.Element("source", {"bridge": _bridge(nic)}))


def to_function(interface: Element, nic: Nic | DestinationNic) -> None:
    """The host's virtual function `nic.pci`."""
    if is_hostdev(interface) and pci_address(interface.find("source/address")) == nic.pci:
        return
    interface.set("type", "hostdev")
    interface.set("managed", interface.get("managed", "yes"))
    for name in ("source", "target"):
        _drop_all(interface, name)
    domain, bus, rest = (nic.pci or "").split(":")
    slot, _, function = rest.partition(".")
    source = etree.Element("source")
    parts = {"domain": domain, "bus": bus, "slot": slot, "function": function}
    etree.SubElement(source, "address", {"type": "pci", **{k: f"0x{v}" for k, v in parts.items()}})
    _after(interface, "mac", source)


def _is_made_ahead(interface: Element) -> bool:
    """The form of versions before: the tap that was there before its guest, and stays."""
    target = interface.find("target")
    return interface.get("type") == "ethernet" and target is not None and target.get("managed") == "no"


def _must_be_replugged(interface: Element, nic: DestinationNic, fact: NicFacts) -> bool:
    """Does it need the form of another plug type?"""
    if _is_made_ahead(interface):
        return True
    return interface.get("type") != "network" and plug_of(interface, fact.plug) != nic.plug


def _vlan(nic: DestinationNic, fact: NicFacts) -> int | None:
    return nic.vlan if nic.vlan is not None else fact.vlan


def _bridge(nic: DestinationNic) -> str:
    return hybrid_names(nic.port_id)[0] if nic.plug == HYBRID else nic.bridge


def _source(interface: Element) -> dict[str, str]:
    source = interface.find("source")
    if source is None:
        return {}
    return {name: source.get(name) or "" for name in ("bridge", "dev", "mode")}


def _move(interface: Element, nic: DestinationNic) -> None:
    """Another bridge or parent, where the destination has another."""
    source = interface.find("source")
    if source is None:
        return
    if nic.plug == MACVTAP:
        wanted = {"dev": nic.parent or "", "mode": nic.mode or "vepa"}
        for name, value in wanted.items():
            if (source.get(name) or ("vepa" if name == "mode" else "")) != value:
                source.set(name, value)
    elif source.get("bridge") != _bridge(nic):
        source.set("bridge", _bridge(nic))


def _fit(interface: Element, nic: DestinationNic) -> None:
    """The live form alone: what the switch was told about this port while its guest ran goes along, too."""
    _move(interface, nic)
    if nic.plug != OVS:
        return
    parameters = interface.find("virtualport/parameters")
    if parameters is not None and _is_uuid(nic.port_id) and parameters.get("interfaceid") != nic.port_id:
        parameters.set("interfaceid", nic.port_id)
    vlan = interface.find("vlan")
    tags = vlan.findall("tag") if vlan is not None else []
    if vlan is None or nic.vlan is None or len(tags) != 1 or vlan.get("trunk") == "yes":
        return
    if tags[0].get("nativeMode") is None and tags[0].get("id") != str(nic.vlan):
        tags[0].set("id", str(nic.vlan))


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _name_device(interface: Element, name: str) -> None:
    target = interface.find("target")
    if target is None:
        _after(interface, "model", etree.Element("target", {"dev": name}))
    elif target.get("dev") != name:
        target.set("dev", name)


def _drop_all(interface: Element, name: str) -> None:
    for child in interface.findall(name):
        interface.remove(child)


def _after(parent: Element, name: str, new: Element) -> None:
    """Insert `new` right after the first child called `name`, or first."""
    anchor = parent.find(name)
    parent.insert(parent.index(anchor) + 1 if anchor is not None else 0, new)
