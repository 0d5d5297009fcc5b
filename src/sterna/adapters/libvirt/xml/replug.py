"""Where a NIC is plugged, in an <interface> of libvirt's XML: changed where the destination plugs it differently.

Pure. Called by `render.py`. The form of each plug type is in `nic_forms.py`; the one that is there stays as it is
unless the destination needs another one. Versions before wrote `<interface type='ethernet'>` with `managed='no'`
into the live definition; that is read, and turned back.
"""

from __future__ import annotations

from collections.abc import Mapping

from lxml import etree

from sterna.adapters.libvirt.xml.metadata import Element, NicFacts
from sterna.adapters.libvirt.xml.nic_forms import (
    after,
    form_of,
    is_foreign_tap,
    is_made_ahead,
    mac_of,
    place_device,
    plug_of,
    write_nic,
)
from sterna.domain.copying import DestinationNic
from sterna.domain.model import DEFAULT_PLUG


def to_live(interface: Element, nic: DestinationNic, remembered: Mapping[str, NicFacts]) -> None:
    """The live form: as on the source, with the name of the port that was made ahead for it."""
    fact = remembered.get(mac_of(interface))
    if _must_be_replugged(interface, nic, fact):
        write_nic(interface, nic, _vlan(nic, fact))
    elif interface.get("type") != "network":  # there it is the destination's network that says it
        form_of(nic).move(interface, nic)
        form_of(nic).fit(interface, nic)
    if nic.device:
        _name_device(interface, nic.device)


def to_cold(
    interface: Element, nic: DestinationNic, remembered: Mapping[str, NicFacts], live: Element | None
) -> None:
    """The form that boots from cold: as it is, unless the destination plugs it differently than the source did.

    `live`: the interface in the source's live definition, None where the running guest does not have it.
    """
    fact = remembered.get(mac_of(interface))
    if place_device(interface, nic):
        return
    if is_made_ahead(interface, fact):
        write_nic(interface, nic, _vlan(nic, fact))
    elif interface.get("type") == "network" or live is None:
        return
    elif fact is not None and is_foreign_tap(live):
        if (fact.plug or DEFAULT_PLUG) != plug_of(interface, None) or (fact.bridge or nic.bridge) != nic.bridge:
            write_nic(interface, nic, _vlan(nic, fact))
    elif _must_be_replugged(live, nic, fact):
        write_nic(interface, nic, _vlan(nic, fact))
    elif _source(interface) == _source(live):
        form_of(nic).move(interface, nic)


def _must_be_replugged(interface: Element, nic: DestinationNic, fact: NicFacts | None) -> bool:
    """Does it need the form of another plug type?"""
    if is_made_ahead(interface, fact):
        return True
    return interface.get("type") != "network" and plug_of(interface, fact) != nic.plug


def _vlan(nic: DestinationNic, fact: NicFacts | None) -> int | None:
    return fact.vlan if nic.vlan is None and fact is not None else nic.vlan


def _source(interface: Element) -> dict[str, str]:
    source = interface.find("source")
    if source is None:
        return {}
    return {name: source.get(name) or "" for name in ("bridge", "dev", "mode")}


def _name_device(interface: Element, name: str) -> None:
    target = interface.find("target")
    if target is None:
        after(interface, "model", etree.Element("target", {"dev": name}))
    elif target.get("dev") != name:
        target.set("dev", name)
