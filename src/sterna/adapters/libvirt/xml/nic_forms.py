"""An <interface> of libvirt's XML and its plug type: one form per type, in one registry.

Pure. `describe.py` reads by it, `replug.py` and `render.py` write by it. libvirt makes every NIC's device with its
guest, from the form an operator writes (ADR 15).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from lxml import etree

from sterna.adapters.libvirt.xml.metadata import Element, NicFacts
from sterna.domain.copying import DestinationNic
from sterna.domain.errors import Permanent
from sterna.domain.model import DEFAULT_PLUG, Data, Nic
from sterna.domain.plugs import (
    BRIDGE,
    HOSTDEV,
    HYBRID,
    MACVTAP,
    OTHERS_TAP,
    OVS,
    PASSTHROUGH,
    VHOSTUSER,
    hybrid_names,
    plug_type,
)

LOCATIONS = ("file", "dev", "name", "dir", "volume", "path", "namespace", "network")
"""Attributes of a <source>, of which one says where it is."""
_WHERE = ("source", "virtualport", "vlan", "target", "script", "port")
"""Children of an interface that say where it is plugged: replaced where another plug type is needed."""
_MACVTAP_MODE = "vepa"
"""libvirt's own, where the XML names none."""


def _nothing(interface: Element, nic: Nic | DestinationNic) -> None:
    """Nothing in it has to change."""


def _says_nothing(interface: Element, fact: NicFacts) -> Data:
    return {}


@dataclass(frozen=True)
class Form:
    """How libvirt's XML says one plug type."""

    type: str
    """Of the <interface>."""
    fits: Callable[[Element], bool]
    """Is an interface of that `type` one of this plug type? The first form that fits has it."""
    read: Callable[[Element, NicFacts], Data] = _says_nothing
    """The fields of `Nic` that are this plug type's own."""
    write: Callable[[Element, DestinationNic, int | None], None] = lambda interface, nic, vlan: None
    """Children of an interface that has none which say where it is plugged. The number is the VLAN."""
    move: Callable[[Element, DestinationNic], None] = _nothing
    """Another bridge or parent, where the destination has another."""
    fit: Callable[[Element, DestinationNic], None] = _nothing
    """The live form only: what was set on the switch's port while the guest ran is sent along, too."""
    place: Callable[[Element, Nic | DestinationNic], None] | None = None
    """One of the host's own devices in the place of any other, and nothing else changed; None where libvirt makes
    the device."""


# ------------------------------------------------------------ on a bridge


def _bridge(nic: DestinationNic) -> str:
    return hybrid_names(nic.port_id)[0] if plug_type(nic).keeps_bridge else nic.bridge


def _write_bridge(interface: Element, nic: DestinationNic, vlan: int | None) -> None:
    after(interface, "mac", etree.Element("source", {"bridge": _bridge(nic)}))


def _move_bridge(interface: Element, nic: DestinationNic) -> None:
    source = interface.find("source")
    if source is not None and source.get("bridge") != _bridge(nic):
        source.set("bridge", _bridge(nic))


def _write_vlan(interface: Element, vlan: int) -> None:
    element = etree.Element("vlan")
    etree.SubElement(element, "tag", {"id": str(vlan)})
    after(interface, "mac", element)


def _write_switch_port(interface: Element, nic: DestinationNic, vlan: int | None) -> None:
    if vlan is not None:
        _write_vlan(interface, vlan)
    vport = etree.Element("virtualport", {"type": "openvswitch"})
    etree.SubElement(vport, "parameters", {"interfaceid": nic.port_id})
    after(interface, "mac", vport)
    _write_bridge(interface, nic, vlan)


def _fit_switch_port(interface: Element, nic: DestinationNic) -> None:
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


def _on_linux_bridge(interface: Element) -> bool:
    """In one VLAN, or without any."""
    one = interface.find("vlan") is None or read_vlan(interface) is not None
    return not _attr(interface, "virtualport", "type") and one


# ------------------------------------------------------------ on a device of the host


def _on_parent(interface: Element) -> bool:
    """libvirt sets a VLAN on the parent if that is a virtual function, which one guest has for itself."""
    alone = _attr(interface, "source", "mode") == PASSTHROUGH
    return not _attr(interface, "virtualport", "type") and (alone or interface.find("vlan") is None)


def _read_parent(interface: Element, fact: NicFacts) -> Data:
    mode = _attr(interface, "source", "mode") or _MACVTAP_MODE
    return {"parent": _attr(interface, "source", "dev") or None, "mode": mode}


def _write_parent(interface: Element, nic: DestinationNic, vlan: int | None) -> None:
    if vlan is not None and nic.mode == PASSTHROUGH:
        _write_vlan(interface, vlan)
    source = {"dev": nic.parent or "", "mode": nic.mode or _MACVTAP_MODE}
    after(interface, "mac", etree.Element("source", source))


def _move_parent(interface: Element, nic: DestinationNic) -> None:
    source = interface.find("source")
    if source is None:
        return
    wanted = {"dev": nic.parent or "", "mode": nic.mode or _MACVTAP_MODE}
    for name, value in wanted.items():
        if (source.get(name) or (_MACVTAP_MODE if name == "mode" else "")) != value:
            source.set(name, value)


def _place_function(interface: Element, nic: Nic | DestinationNic) -> None:
    if interface.get("type") == "hostdev" and pci_address(interface.find("source/address")) == nic.pci:
        return
    interface.set("type", "hostdev")
    interface.set("managed", interface.get("managed", "yes"))
    for name in ("source", "target"):
        drop_all(interface, name)
    domain, bus, rest = (nic.pci or "").split(":")
    slot, _, function = rest.partition(".")
    source = etree.Element("source")
    parts = {"domain": domain, "bus": bus, "slot": slot, "function": function}
    etree.SubElement(source, "address", {"type": "pci", **{k: f"0x{v}" for k, v in parts.items()}})
    after(interface, "mac", source)


FORMS: Final[dict[str, Form]] = {
    VHOSTUSER: Form(
        "vhostuser",
        lambda interface: True,
        read=lambda interface, fact: {"device": _attr(interface, "source", "path") or None},
    ),
    HOSTDEV: Form(
        "hostdev",
        lambda interface: (
            _attr(interface, "source/address", "type") == "pci" and not _attr(interface, "virtualport", "type")
        ),
        read=lambda interface, fact: {"pci": pci_address(interface.find("source/address"))},
        place=_place_function,
    ),
    MACVTAP: Form("direct", _on_parent, read=_read_parent, write=_write_parent, move=_move_parent),
    OVS: Form(
        "bridge",
        lambda interface: _attr(interface, "virtualport", "type") == "openvswitch",
        write=_write_switch_port,
        move=_move_bridge,
        fit=_fit_switch_port,
    ),
    HYBRID: Form(
        "bridge",
        lambda interface: _on_linux_bridge(interface) and _attr(interface, "source", "bridge").startswith("qbr"),
        read=lambda interface, fact: {"bridge": fact.bridge},  # the switch's, which only the metadata names
        write=_write_bridge,
        move=_move_bridge,
    ),
    BRIDGE: Form("bridge", _on_linux_bridge, write=_write_bridge, move=_move_bridge),
}
_HOT_UNPLUGGED = frozenset(form.type for name, form in FORMS.items() if plug_type(name).hot_unplugged)


def plug_of(interface: Element, fact: NicFacts | None) -> str:
    """Its plug type, one of `domain/plugs.py`, else `other: ` and what the XML says.

    `fact`: what Sterna remembers of the NIC; it names the type of a tap made ahead, which the XML does not say.
    """
    if fact is not None and is_foreign_tap(interface):
        return fact.plug or DEFAULT_PLUG
    kind = interface.get("type", "")
    found = next((name for name, form in FORMS.items() if form.type == kind and form.fits(interface)), None)
    return found or f"other: {_other(interface, kind)}".rstrip()


def is_made_ahead(interface: Element, fact: NicFacts | None) -> bool:
    """The form of earlier versions: the tap that was there before its guest, and stays. Where Sterna remembers
    nothing of the NIC (`fact`), another program has made the tap, as Nova and KubeVirt do."""
    return fact is not None and is_foreign_tap(interface)


def is_foreign_tap(interface: Element) -> bool:
    """libvirt has not made its tap."""
    return interface.get("type") == "ethernet" and _attr(interface, "target", "managed") == "no"


def is_hot_unplugged(interface: Element) -> bool:
    """Of a type that is taken from the guest for a copy? Its standby NIC has the same MAC."""
    return interface.get("type") in _HOT_UNPLUGGED


def function_among(interfaces: Sequence[Element], pools: Collection[str] | None = None) -> Element | None:
    """Which of these NICs of one MAC is the virtual function; None where none is.

    A definition that does not say what the guest has just now names one of a libvirt network as `type='network'`,
    as it may name its standby. `pools`: the networks of virtual functions; None: unknown, any network may be one.
    """
    own = next(filter(is_hot_unplugged, interfaces), None)
    if own is not None:
        return own
    found = [nic for nic in interfaces if nic.get("type") == "network"]
    found = [nic for nic in found if _attr(nic, "teaming", "type") != "persistent"]
    if pools is not None:
        found = [nic for nic in found if _attr(nic, "source", "network") in pools]
    return next((nic for nic in found if _attr(nic, "teaming", "type") == "transient"), found[0] if found else None)


def _other(interface: Element, kind: str) -> str:
    """In words: the plug type that is not supported."""
    source, port = _attr(interface, "source", "bridge"), _attr(interface, "virtualport", "type")
    if kind == "bridge" and not port:
        return f"trunk of VLANs on the Linux bridge {source}"
    if kind == "bridge":
        return f"bridge {source} with virtualport {port}"
    if kind == "ethernet":
        made = OTHERS_TAP if is_foreign_tap(interface) else "a tap that libvirt makes"
        return f"ethernet with {made}"
    found = interface.find("source")
    return f"{kind} {any_location(found) if found is not None else ''}"


def read_nic(interface: Element, remembered: dict[str, NicFacts]) -> Nic:
    """One <interface>, its plug type one of `domain/plugs.py` where Sterna supports it.

    Port id: Sterna's metadata, else the XML's interfaceid. Bridge and VLAN: the XML where it says them.
    """
    mac = mac_of(interface)
    # What is remembered of a virtual function's MAC is about its standby, which has the same.
    known = None if is_hot_unplugged(interface) else remembered.get(mac)
    fact = known or NicFacts(mac=mac)
    plug = plug_of(interface, known)
    mtu = _attr(interface, "mtu", "size")
    fields: Data = {
        "port_id": fact.port_id or _interface_id(interface),
        "bridge": _attr(interface, "source", "bridge") or fact.bridge,
        "vlan": fact.vlan if interface.get("type") == "ethernet" else read_vlan(interface),
        "mtu": int(mtu) if mtu else None,
        "device": _attr(interface, "target", "dev") or None,
        "managed": _attr(interface, "target", "managed") != "no",
    }
    own = FORMS[plug].read(interface, fact) if plug in FORMS else {}
    return Nic(mac=mac, plug=plug, **fields | own)


def _interface_id(interface: Element) -> str | None:
    parameters = interface.find("virtualport/parameters")
    return parameters.get("interfaceid") if parameters is not None else None


def read_vlan(interface: Element) -> int | None:
    """The single access VLAN; None where there is none, or a trunk."""
    tags = interface.findall("vlan/tag")
    trunk = _attr(interface, "vlan", "trunk") == "yes" or any(tag.get("nativeMode") for tag in tags)
    return int(tags[0].get("id", "0")) if len(tags) == 1 and not trunk else None


def form_of(nic: DestinationNic) -> Form:
    """Raises Permanent for a plug type that this version cannot describe to libvirt."""
    if nic.plug not in FORMS:
        raise Permanent(f"NIC {nic.mac}: no form of libvirt's is known for {nic.plug!r}")
    return FORMS[nic.plug]


def write_nic(interface: Element, nic: DestinationNic, vlan: int | None) -> None:
    """Whatever form is there: the one in which libvirt plugs a NIC of this type itself."""
    if place_device(interface, nic):
        return
    form = form_of(nic)
    for name in _WHERE:
        drop_all(interface, name)
    interface.set("type", form.type)
    form.write(interface, nic, vlan)


def place_device(interface: Element, nic: Nic | DestinationNic) -> bool:
    """The device of the host that `nic` has, in the place of any other. False where it has none of its own."""
    form = FORMS.get(nic.plug)
    if form is None or form.place is None:
        return False
    form.place(interface, nic)
    return True


# ------------------------------------------------------------ elements


def mac_of(interface: Element) -> str:
    """In lower case; '' where there is none."""
    return _attr(interface, "mac", "address").lower()


def pci_address(address: Element | None) -> str | None:
    """A <source>'s PCI <address> as the kernel writes it: `0000:3b:02.4`."""
    if address is None:
        return None
    part = {k: int(address.get(k, "0"), 16) for k in ("domain", "bus", "slot", "function")}
    return f"{part['domain']:04x}:{part['bus']:02x}:{part['slot']:02x}.{part['function']:x}"


def any_location(source: Element) -> str:
    """Whatever says where a <source> is: an attribute, or else its servers (NBD needs no name)."""
    return next((str(source.get(name)) for name in LOCATIONS if source.get(name)), "") or servers(source)


def servers(source: Element) -> str:
    """Of a disk on the network, in words: `nas:10809`, `unix:/run/nbd.sock`."""
    if not source.get("protocol"):
        return ""
    return ", ".join(
        f"unix:{host.get('socket')}"
        if host.get("socket")
        else ":".join(filter(None, (host.get("name"), host.get("port"))))
        for host in source.findall("host")
    )


def drop_all(interface: Element, name: str) -> None:
    """Remove every child of that name."""
    for child in interface.findall(name):
        interface.remove(child)


def after(parent: Element, name: str, new: Element) -> None:
    """Insert `new` right after the first child called `name`, or first."""
    anchor = parent.find(name)
    parent.insert(parent.index(anchor) + 1 if anchor is not None else 0, new)


def _attr(element: Element, child: str, name: str) -> str:
    """`element/child@name`, or ''."""
    found = element.find(child)
    return (found.get(name) or "") if found is not None else ""
