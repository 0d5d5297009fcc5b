"""DEST_XML and PERSIST_XML: the source's own XML with what the destination answered put in (protocol P11, M4).

Pure. Only the source agent calls it. Everything the guest can see stays as it is:
libvirt compares the two definitions and refuses a change of what the guest sees. Of the rest nothing is changed but
what the destination's answer says differently than the source's live definition does (`replug.py` for NICs,
`disk_places.py` for disks): what an operator wrote is there afterwards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from lxml import etree

from sterna.adapters.libvirt.xml.describe import describe_domain, read_disk
from sterna.adapters.libvirt.xml.disk_places import replace_disk, same_place
from sterna.adapters.libvirt.xml.listen_addresses import listen_at
from sterna.adapters.libvirt.xml.metadata import (
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
from sterna.adapters.libvirt.xml.nic_forms import (
    function_among,
    is_hot_unplugged,
    mac_of,
    place_device,
    read_vlan,
    write_nic,
)
from sterna.adapters.libvirt.xml.recovery_monitor import add_recovery_monitor, remove_recovery_monitor
from sterna.adapters.libvirt.xml.replug import to_cold, to_live
from sterna.adapters.libvirt.xml.sparse_disks import let_zeros_be_holes
from sterna.domain.copying import CopyPlan, DestinationNic
from sterna.domain.errors import Permanent
from sterna.domain.model import DiskKind, Nic
from sterna.domain.plugs import is_supported, plug_type


def render_live(xml: str, plan: CopyPlan) -> str:
    """DEST_XML from the source's live migratable XML: disks as the destination reaches them, NICs with the names of
    the ports made ahead for them.

    Raises Permanent where the plan names a disk or NIC the VM does not have, or misses one of its NICs.
    """
    domain = parse_xml(xml)
    facts, remembered = _facts(domain, plan), read_nics(find_own(domain))
    _replace_disks(domain, plan)
    listen_at(domain, plan.listens)
    # functions come after the copy
    plugged = {nic.mac.lower(): nic for nic in plan.nics if not plug_type(nic).hot_unplugged}
    _leave_out_functions(domain, plan)
    for interface in domain.iterfind("devices/interface"):
        mac = mac_of(interface)
        if mac not in plugged or is_hot_unplugged(interface):
            raise Permanent(f"the plan has no entry for NIC {mac}", fix="prepare the destination again")
        to_live(interface, plugged.pop(mac), remembered)
    if plugged:
        raise Permanent(f"the plan plugs NICs the VM does not have: {', '.join(plugged)}")
    put_own(domain, build_own(find_own(domain), epoch=plan.epoch, migration_id=plan.migration_id, nics=facts))
    remove_recovery_monitor(domain)
    if plan.postcopy:
        add_recovery_monitor(domain, domain.findtext("uuid") or "")
    return to_text(domain)


def render_persistent(xml: str, plan: CopyPlan, *, live: str) -> str:
    """PERSIST_XML from the source's inactive XML: the form that boots from cold on the destination.

    `live`: the source's live XML. A disk or NIC is changed only where the destination differs from that, and only
    if the inactive definition says the same as the live one. One that only the running guest has (hot-plugged, not
    persisted) is not added; one that only the inactive definition has stays as it is.
    """
    domain, running = parse_xml(xml), parse_xml(live)
    facts, remembered = _facts(domain, plan), read_nics(find_own(running))
    there = {read_disk(disk).target: read_disk(disk) for disk in running.iterfind("devices/disk")}
    # A medium that stays behind is optional: the next start looks for it again.
    wanted = {disk.target: disk for disk in plan.disks if disk.kind is not DiskKind.EMPTY}
    for disk in domain.iterfind("devices/disk"):
        seen = read_disk(disk)
        if seen.target in wanted and seen.target in there and same_place(seen, there[seen.target]):
            replace_disk(disk, wanted[seen.target])
    plugged = {(nic.mac.lower(), plug_type(nic).hot_unplugged): nic for nic in plan.nics}
    was = {(mac_of(i), is_hot_unplugged(i)): i for i in running.iterfind("devices/interface")}
    for interface in domain.iterfind("devices/interface"):
        key = (mac_of(interface), is_hot_unplugged(interface))
        if key in plugged:
            to_cold(interface, plugged[key], remembered, was.get(key))
    listen_at(domain, plan.listens)
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
        if is_supported(nic) and not plug_type(nic).hot_unplugged
    ]
    return bare_text(build_own(find_own(domain), epoch=epoch, migration_id=migration_id, nics=nics))


def _facts(domain: Element, plan: CopyPlan) -> list[NicFacts]:
    """What the next migration and a cold boot must know of each NIC. A plan without a VLAN keeps the source's."""
    vlans = {mac: fact.vlan for mac, fact in read_nics(find_own(domain)).items()}
    for interface in domain.iterfind("devices/interface"):
        if interface.find("vlan") is not None:
            vlans[mac_of(interface)] = read_vlan(interface)
    facts = []
    for nic in (n for n in plan.nics if not plug_type(n).hot_unplugged):
        mac = nic.mac.lower()
        vlan = nic.vlan if nic.vlan is not None else vlans.get(mac)
        facts.append(NicFacts(mac=mac, port_id=nic.port_id, bridge=nic.bridge, vlan=vlan, plug=nic.plug))
    return facts


def render_device(definition: str, nic: Nic, pools: Collection[str] = ()) -> str:
    """The <interface> that gives a running guest this NIC: as its persistent definition has it, which also says
    what the guest sees; else the least there can be. A virtual function is `nic.pci`, whatever is written there. Of
    a libvirt network (`pools`), libvirt takes a free one, with the network's VLAN."""
    interface = _as_written(parse_xml(definition), nic, pools)
    if interface is None:
        interface = etree.Element("interface")
        etree.SubElement(interface, "mac", {"address": nic.mac})
        etree.SubElement(interface, "model", {"type": "virtio"})
        write_nic(interface, DestinationNic.model_validate(nic.model_dump(exclude_none=True)), nic.vlan)
    if interface.get("type") != "network":
        place_device(interface, nic)
    return to_text(interface)


def _as_written(domain: Element, nic: Nic, pools: Collection[str]) -> Element | None:
    same = [each for each in domain.iterfind("devices/interface") if mac_of(each) == nic.mac.lower()]
    if plug_type(nic).hot_unplugged:
        return function_among(same, pools)
    return next((interface for interface in same if not is_hot_unplugged(interface)), None)


def _leave_out_functions(domain: Element, plan: CopyPlan) -> None:
    """Those the plan knows. The guest has lost them before a copy; before a rehearsal it still has them."""
    known = {nic.mac.lower() for nic in plan.nics if plug_type(nic).hot_unplugged}
    standbys = Counter(nic.mac.lower() for nic in plan.nics if not plug_type(nic).hot_unplugged)
    for devices in domain.iterfind("devices"):
        for mac in known:
            same = [interface for interface in devices.findall("interface") if mac_of(interface) == mac]
            function = function_among(same) if len(same) > standbys[mac] else None
            if function is not None:
                devices.remove(function)


def _replace_disks(domain: Element, plan: CopyPlan) -> None:
    wanted = {disk.target: disk for disk in plan.disks}
    for disk in domain.iterfind("devices/disk"):
        name = read_disk(disk).target
        if name in wanted:
            planned = wanted.pop(name)
            replace_disk(disk, planned)
            if planned.copied and planned.holes_kept:
                let_zeros_be_holes(disk)
    if wanted:
        raise Permanent(f"the plan names disks the VM does not have: {', '.join(wanted)}")
