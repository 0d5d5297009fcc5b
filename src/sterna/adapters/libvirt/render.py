"""DEST_XML and PERSIST_XML: the source's own XML with what the destination answered put in (SPEC P11, M4).

Pure. Only the source agent calls it (ARCHITECTURE, "domain XML"). Everything the guest can see stays as it is:
libvirt compares the two definitions and refuses a change of what the guest sees.
"""

from __future__ import annotations

from collections.abc import Iterator

from lxml import etree

from sterna.adapters.libvirt.describe import describe_domain, read_vlan
from sterna.adapters.libvirt.metadata import (
    Element,
    NicFacts,
    bare_text,
    build_own,
    find_own,
    parse_xml,
    put_own,
    read_nics,
    to_text,
)
from sterna.adapters.libvirt.recovery import put_door, remove_door
from sterna.domain.errors import Permanent
from sterna.domain.model import (
    CopyPlan,
    DestinationDisk,
    DestinationNic,
    DiskKind,
    IscsiSource,
    Nic,
    RbdSource,
    SecretRef,
)
from sterna.domain.plugs import HOSTDEV, HYBRID, MACVTAP, MADE_AHEAD, OVS, SUPPORTED, hybrid_names, is_function

_WHERE = ("source", "virtualport", "vlan", "target", "script", "port")
"""Children of an interface that say where it is plugged: replaced by what the destination's plug type needs."""


def render_live(xml: str, plan: CopyPlan) -> str:
    """DEST_XML from the source's live migratable XML: taps made ahead, disks as the destination reaches them.

    Raises Permanent where the plan names a disk or NIC the VM does not have, or misses one of its NICs.
    """
    domain = parse_xml(xml)
    facts = _facts(domain, plan)
    _replace_disks(domain, plan, strict=True)
    plugged = {nic.mac.lower(): nic for nic in plan.nics if not is_function(nic)}  # functions come after the copy
    _leave_out_functions(domain, plan)
    for interface in domain.iterfind("devices/interface"):
        mac = _mac(interface)
        if mac not in plugged or _is_function(interface):
            raise Permanent(f"the plan says nothing of NIC {mac}", fix="prepare the destination again")
        _to_live(interface, plugged.pop(mac))
    if plugged:
        raise Permanent(f"the plan plugs NICs the VM does not have: {', '.join(plugged)}")
    put_own(domain, build_own(find_own(domain), epoch=plan.epoch, migration_id=plan.migration_id, nics=facts))
    remove_door(domain)
    if plan.postcopy:
        put_door(domain, domain.findtext("uuid") or "")
    return to_text(domain)


def render_persistent(xml: str, plan: CopyPlan) -> str:
    """PERSIST_XML from the source's inactive XML: the form that boots from cold on the destination.

    NICs are in the form of their plug type in which libvirt plugs them itself at a cold start. A
    disk or NIC that only the running guest has (hot-plugged, not persisted) is not added; one that only the
    inactive definition has stays as it is.
    """
    domain = parse_xml(xml)
    facts = _facts(domain, plan)
    known = {fact.mac: fact for fact in facts}
    _replace_disks(domain, plan, strict=False)
    plugged = {(nic.mac.lower(), is_function(nic)): nic for nic in plan.nics}
    for interface in domain.iterfind("devices/interface"):
        mac = _mac(interface)
        nic = plugged.get((mac, _is_function(interface)))
        if nic is not None:
            _to_cold(interface, nic, known.get(mac, NicFacts(mac=mac)))
    put_own(domain, build_own(find_own(domain), epoch=plan.epoch, migration_id=plan.migration_id, nics=facts))
    return to_text(domain)


def own_metadata(xml: str, *, epoch: int, migration_id: str) -> str:
    """Sterna's element for `mark`, from the domain's current XML: the new epoch, everything else as known.

    In the form virDomainSetMetadata wants.
    """
    domain = parse_xml(xml)
    nics = [
        NicFacts(mac=nic.mac, port_id=nic.port_id, bridge=nic.bridge, vlan=nic.vlan, plug=nic.plug)
        for nic in describe_domain(domain).nics
        if nic.plug in SUPPORTED and not is_function(nic)
    ]
    return bare_text(build_own(find_own(domain), epoch=epoch, migration_id=migration_id, nics=nics))


def _facts(domain: Element, plan: CopyPlan) -> list[NicFacts]:
    """What the next migration and a cold boot must know of each NIC. A plan without a VLAN keeps the source's."""
    vlans = {mac: fact.vlan for mac, fact in read_nics(find_own(domain)).items()}
    for interface in domain.iterfind("devices/interface"):
        if interface.find("vlan") is not None:
            vlans[_mac(interface)] = read_vlan(interface)
    facts = []
    for nic in (n for n in plan.nics if not is_function(n)):
        mac = nic.mac.lower()
        vlan = nic.vlan if nic.vlan is not None else vlans.get(mac)
        facts.append(NicFacts(mac=mac, port_id=nic.port_id, bridge=nic.bridge, vlan=vlan, plug=nic.plug))
    return facts


def _mac(interface: Element) -> str:
    mac = interface.find("mac")
    return (mac.get("address") or "").lower() if mac is not None else ""


def _to_live(interface: Element, nic: DestinationNic) -> None:
    """The live form. A tap made ahead: libvirt opens what is there and leaves it alone afterwards. A macvtap:
    libvirt makes it on the destination's parent."""
    made_ahead = nic.plug in MADE_AHEAD
    interface.set("type", "ethernet" if made_ahead else "direct")
    _drop_all(interface, _WHERE)
    if made_ahead:
        _after(interface, "mac", etree.Element("target", {"dev": nic.device, "managed": "no"}))
    else:
        _after(interface, "mac", _macvtap_source(nic))


def _to_cold(interface: Element, nic: DestinationNic, fact: NicFacts) -> None:
    """The cold form, whatever form is there: a NIC may change its plug type with its host."""
    if nic.plug == HOSTDEV:
        _to_function(interface, nic)
        return
    _drop_all(interface, _WHERE)
    interface.set("type", "direct" if nic.plug == MACVTAP else "bridge")
    if nic.plug == MACVTAP:
        _after(interface, "mac", _macvtap_source(nic))
        return
    if nic.plug == OVS:
        if fact.vlan is not None:
            vlan = etree.Element("vlan")
            etree.SubElement(vlan, "tag", {"id": str(fact.vlan)})
            _after(interface, "mac", vlan)
        vport = etree.Element("virtualport", {"type": "openvswitch"})
        etree.SubElement(vport, "parameters", {"interfaceid": nic.port_id})
        _after(interface, "mac", vport)
    bridge = hybrid_names(nic.port_id)[0] if nic.plug == HYBRID else nic.bridge
    _after(interface, "mac", etree.Element("source", {"bridge": bridge}))


def render_device(definition: str, nic: Nic) -> str:
    """The <interface> that gives a running guest this NIC: as its persistent definition has it, which also says
    what the guest sees; else the least there can be. A virtual function is `nic.pci`, whatever is written there."""
    for interface in parse_xml(definition).iterfind("devices/interface"):
        if _mac(interface) == nic.mac.lower() and _is_function(interface) == is_function(nic):
            break
    else:
        interface = etree.Element("interface")
        etree.SubElement(interface, "mac", {"address": nic.mac})
        etree.SubElement(interface, "model", {"type": "virtio"})
        planned = DestinationNic.model_validate(nic.model_dump(exclude_none=True))
        _to_cold(interface, planned, NicFacts(mac=nic.mac, vlan=nic.vlan))
    if nic.plug == HOSTDEV:
        _to_function(interface, nic)
    return to_text(interface)


def _leave_out_functions(domain: Element, plan: CopyPlan) -> None:
    """Those the plan knows. The guest has lost them before a copy; before a rehearsal it still has them."""
    known = {nic.mac.lower() for nic in plan.nics if is_function(nic)}
    for devices in domain.iterfind("devices"):
        for interface in devices.findall("interface"):
            if _is_function(interface) and _mac(interface) in known:
                _drop(devices, interface)


def _is_function(interface: Element) -> bool:
    return interface.get("type") == "hostdev"


def _to_function(interface: Element, nic: Nic | DestinationNic) -> None:
    interface.set("type", "hostdev")
    interface.set("managed", interface.get("managed", "yes"))
    _drop_all(interface, ("source", "target"))
    domain, bus, rest = (nic.pci or "").split(":")
    slot, _, function = rest.partition(".")
    source = etree.Element("source")
    parts = {"domain": domain, "bus": bus, "slot": slot, "function": function}
    etree.SubElement(source, "address", {"type": "pci", **{k: f"0x{v}" for k, v in parts.items()}})
    _after(interface, "mac", source)


def _macvtap_source(nic: DestinationNic) -> Element:
    return etree.Element("source", {"dev": nic.parent or "", "mode": nic.mode or "vepa"})


def _drop_all(interface: Element, names: tuple[str, ...]) -> None:
    for child in list(_children(interface, *names)):
        _drop(interface, child)


def _replace_disks(domain: Element, plan: CopyPlan, *, strict: bool) -> None:
    wanted = {disk.target: disk for disk in plan.disks}
    for disk in domain.iterfind("devices/disk"):
        target = disk.find("target")
        name = target.get("dev", "") if target is not None else ""
        if name in wanted:
            _replace_disk(disk, wanted.pop(name))
    if strict and wanted:
        raise Permanent(f"the plan names disks the VM does not have: {', '.join(wanted)}")


def _replace_disk(disk: Element, planned: DestinationDisk) -> None:
    """Where the bytes are changes; what the guest sees (bus, address, serial, format) does not."""
    source = disk.find("source")
    if planned.kind is DiskKind.FILE:
        if disk.get("type") != "file" or source is None or not planned.path:
            raise Permanent(f"disk {planned.target} is not a file on the source, or the plan has no path for it")
        if source.get("file") != planned.path:
            source.set("file", planned.path)
            # The recorded chain is of the old path; libvirt finds out again.
            for child in disk.findall("backingStore"):
                _drop(disk, child)
    elif planned.kind is DiskKind.ISCSI:
        if source is None or source.get("protocol") != "iscsi" or planned.iscsi is None:
            raise Permanent(f"disk {planned.target} is not iSCSI on the source, or the plan has no target for it")
        _set_iscsi(source, planned.iscsi)
        if planned.login is not None:
            _set_login(disk, source, planned.login)
    elif planned.kind is DiskKind.RBD:
        if source is None or source.get("protocol") != "rbd" or planned.rbd is None:
            raise Permanent(f"disk {planned.target} is not RBD on the source, or the plan has no image for it")
        _set_rbd(source, planned.rbd)
    elif planned.kind is not DiskKind.EMPTY:
        raise Permanent(f"disk {planned.target}: cannot render kind {planned.kind}")


def _set_iscsi(source: Element, iscsi: IscsiSource) -> None:
    """Another initiator, maybe another portal; <auth> and the rest stay."""
    source.set("name", f"{iscsi.target}/{iscsi.lun}")
    for child in list(_children(source, "host", "initiator")):
        _drop(source, child)
    host = etree.Element("host", {"name": iscsi.portal_host, "port": str(iscsi.portal_port)})
    source.insert(0, host)
    if iscsi.initiator:
        initiator = etree.Element("initiator")
        etree.SubElement(initiator, "iqn", {"name": iscsi.initiator})
        source.insert(1, initiator)


def _set_login(disk: Element, source: Element, login: SecretRef) -> None:
    """Another user and secret, wherever libvirt had the old ones: beside <source> or in it."""
    for parent in (disk, source):
        for auth in parent.findall("auth"):
            _drop(parent, auth)
    auth = etree.SubElement(source, "auth", {"username": login.username or ""})
    etree.SubElement(auth, "secret", {"type": login.kind, "uuid": login.uuid or ""})


def _set_rbd(source: Element, rbd: RbdSource) -> None:
    """Other monitors, maybe; <auth>, <config> and the rest stay."""
    source.set("name", rbd.name)
    if not rbd.monitors:
        return
    for child in source.findall("host"):
        _drop(source, child)
    for position, monitor in enumerate(rbd.monitors):
        name, _, port = monitor.rpartition(":")
        source.insert(position, etree.Element("host", {"name": name, "port": port}))


def _children(parent: Element, *names: str) -> Iterator[Element]:
    for name in names:
        yield from parent.findall(name)


def _drop(parent: Element, child: Element) -> None:
    """Remove a child and its tail (lxml would keep neither in order)."""
    parent.remove(child)


def _after(parent: Element, name: str, new: Element) -> None:
    """Insert `new` right after the first child called `name`, or first."""
    anchor = parent.find(name)
    parent.insert(parent.index(anchor) + 1 if anchor is not None else 0, new)
