"""What would arrive of a definition, and in which places it differs from what left: live and persistent."""

from __future__ import annotations

from collections import Counter
from typing import Any

from lxml import etree

from sterna.adapters.libvirt.xml.differences import differences as find_differences
from sterna.adapters.libvirt.xml.render import render_device, render_live, render_persistent
from sterna.domain.copying import CopyPlan, DestinationDisk, DestinationNic
from sterna.domain.definition_changes import place_of, reason_of
from sterna.domain.model import DiskKind, Nic
from sterna.domain.plugs import device_name, plug_type
from tests.corpus.catalogue import Definition
from tests.corpus.hosts import INITIATORS, NETWORKS
from tests.corpus.judge import Verdict
from tests.corpus.ports import text

Element = etree._Element
POOLS = frozenset(name for name, lan in NETWORKS.items() if lan.forward == "hostdev")
LIVE = {
    place: reason_of(place)
    for place in (
        "metadata/sterna",
        "metadata",
        "devices/interface/target",
        "devices/interface/source/address/@function",
        "devices/disk/source",
        "devices/disk/driver/@discard",
        "devices/disk/source/initiator/iqn/@name",
        "devices/disk/source/initiator",
        "devices/graphics/@listen",
        "devices/graphics/listen/@address",
        "devices/serial/source/@host",
        "devices/rng/backend/source/@host",
    )
}
"""Places in which the running definition may differ, each with the reason."""
PERSISTENT = {
    place: reason
    for place, reason in LIVE.items()
    if place
    not in (
        "devices/interface/target",
        "devices/disk/source",
        "devices/disk/driver/@discard",
    )
}
"""The same of the definition for its next start."""


def plan_of(verdict: Verdict) -> CopyPlan:
    """As the destination answers (P11): the same disks, with its own initiator, and a port for each NIC."""
    disks = [
        DestinationDisk(
            target=disk.target,
            kind=disk.kind,
            path=disk.path if disk.kind is DiskKind.FILE else None,
            iscsi=disk.iscsi.model_copy(update={"initiator": INITIATORS["beta"]}) if disk.iscsi else None,
            rbd=disk.rbd,
            copied=bool(disk.local) and not disk.carried,
            holes_kept=disk.holes_kept,
        )
        for disk in verdict.vm.disks
    ]
    nics = [_answered(nic) for nic in verdict.vm.nics]
    return CopyPlan(
        migration_id="m",
        epoch=1,
        destination_uri="x",
        disks=tuple(disks),
        nics=tuple(nics),
        listens=verdict.listens,
    )


def _answered(nic: Nic) -> DestinationNic:
    device = device_name(nic) if plug_type(nic).made_ahead else ""
    facts: dict[str, Any] = {"mac": nic.mac, "plug": nic.plug, "device": device, "bridge": nic.bridge or ""}
    pci = "0000:81:02.4" if nic.pci else None
    return DestinationNic(
        **facts, port_id=nic.port_id or "", mtu=nic.mtu, vlan=nic.vlan, parent=nic.parent, mode=nic.mode, pci=pci
    )


def arrives(definition: Definition, verdict: Verdict) -> tuple[Element, Element]:
    """The running definition on the destination, with what is attached after the copy, and the persistent one."""
    plan = plan_of(verdict)
    left, live = _without_functions(verdict.migratable, verdict), text(verdict.live)
    running = etree.fromstring(render_live(text(left), plan))
    persistent = render_persistent(text(definition.domain), plan, live=live)
    functions = [nic for nic in verdict.vm.nics if plug_type(nic).hot_unplugged]
    for nic in functions:
        there = nic.model_copy(update={"pci": "0000:81:02.4"})
        device = etree.fromstring(render_device(persistent, there, POOLS))
        devices = running.find("devices")
        assert devices is not None
        devices.append(device)
    return running, etree.fromstring(persistent)


def _without_functions(migratable: Element, verdict: Verdict) -> Element:
    """They are taken from the guest before the copy, whatever the persistent definition calls them."""
    left = etree.fromstring(text(migratable))
    macs = {nic.mac.lower() for nic in verdict.vm.nics if plug_type(nic).hot_unplugged}
    for devices in left.iterfind("devices"):
        for nic in devices.findall("interface"):
            mac = nic.find("mac")
            teamed = nic.find("teaming[@type='persistent']") is not None
            if mac is not None and (mac.get("address") or "").lower() in macs and not teamed:
                devices.remove(nic)
    return left


def differences(before: Element, after: Element) -> Counter[str]:
    """The places in which they differ, and how often."""
    return Counter(place_of(change.where) for change in find_differences(before, after))
