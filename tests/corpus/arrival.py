"""What would arrive of a definition, and in which places it differs from what left: live and persistent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from lxml import etree

from sterna.adapters.libvirt.xml.metadata import NAMESPACE
from sterna.adapters.libvirt.xml.render import render_device, render_live, render_persistent
from sterna.domain.copying import CopyPlan, DestinationDisk, DestinationNic
from sterna.domain.model import DiskKind, Nic
from sterna.domain.plugs import device_name, plug_type
from tests.corpus.catalogue import Definition
from tests.corpus.hosts import INITIATORS, NETWORKS
from tests.corpus.judge import Verdict
from tests.corpus.ports import text

Element = etree._Element
POOLS = frozenset(name for name, lan in NETWORKS.items() if lan.forward == "hostdev")
LIVE = {
    "metadata/sterna": "the epoch, which tells the newest copy of a guest from older ones",
    "metadata": "what holds the epoch, where the definition had no metadata",
    "devices/interface/target": "the tap's name: Sterna makes it ahead of the guest, so that it is wired in time",
    "devices/interface/source/address/@function": "a virtual function of the destination",
    "devices/disk/source": "a medium that is optional, and that the destination does not have: its drive is empty",
    "devices/disk/driver/@discard": "a copied raw image keeps its holes, until the next start",
    "devices/disk/source/initiator/iqn/@name": "the host's name at its iSCSI target",
    "devices/disk/source/initiator": "the same, where the definition named none",
    "devices/graphics/@listen": "the destination's address instead of the source's",
    "devices/graphics/listen/@address": "the destination's address instead of the source's",
    "devices/serial/source/@host": "the destination's address instead of the source's",
    "devices/rng/backend/source/@host": "the destination's address instead of the source's",
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
    return Counter(_walk(before, after, ""))


def _walk(before: Element, after: Element, path: str) -> Iterator[str]:
    for name in sorted({str(name) for name in (*before.attrib, *after.attrib)}):
        if before.get(name) != after.get(name):
            yield f"{path}/@{name}"
    if (before.text or "").strip() != (after.text or "").strip():
        yield f"{path}/text()"
    ours, theirs = _children(before), _children(after)
    for key in dict.fromkeys((*ours, *theirs)):
        here = f"{path}/{_name(ours.get(key, theirs.get(key)))}".lstrip("/")
        if key in ours and key in theirs:
            yield from _walk(ours[key], theirs[key], here)
        else:
            yield here


def _children(parent: Element) -> dict[tuple[str, str, int], Element]:
    found: dict[tuple[str, str, int], Element] = {}
    for child in parent:
        if not isinstance(child.tag, str):
            continue
        mac, target = child.find("mac"), child.find("target")
        own = ""
        if child.tag == "interface" and mac is not None:
            own = str(mac.get("address")) + (" function" if child.get("type") == "hostdev" else "")
        elif child.tag == "disk" and target is not None:
            own = target.get("dev") or ""
        number = 0
        while (child.tag, own, number) in found:
            number += 1
        found[child.tag, own, number] = child
    return found


def _name(element: Element | None) -> str:
    assert element is not None
    name = etree.QName(element)
    return "sterna" if name.namespace == NAMESPACE else name.localname
