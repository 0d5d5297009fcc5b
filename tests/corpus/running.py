"""What libvirt makes of a persistent definition when the guest runs, and what it gives to migrate. Pure.

Only what matters to a migration: names it chose (taps, sockets, ports), what a network came to, backing files, and
labels. `tests/unit/adapters/xml` has such definitions as a real libvirt wrote them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

from lxml import etree

from tests.corpus.hosts import ACTUAL

Element = etree._Element
FIRST_PORT, FUNCTION = 5900, "0000:81:02.3"


def live(domain: Element, bases: Mapping[str, str]) -> Element:
    """The definition of the running guest. `bases`: what the image of a disk's target stands on, by its header."""
    running = copy.deepcopy(domain)
    running.set("id", "7")
    _disks(running, bases)
    _nics(running)
    for position, screen in enumerate(running.iterfind("devices/graphics")):
        _screen(screen, position)
    for channel in running.iterfind("devices/channel[@type='unix']"):
        if channel.find("source") is None:
            name = channel.find("target")
            folder = f"/run/libvirt/qemu/channel/7-{running.findtext('name', '')[:20]}"
            path = f"{folder}/{name.get('name', '') if name is not None else ''}"
            channel.insert(0, etree.Element("source", {"mode": "bind", "path": path}))
    for kind in ("serial", "console"):
        for terminal in running.iterfind(f"devices/{kind}[@type='pty']"):
            terminal.insert(0, etree.Element("source", {"path": "/dev/pts/3"}))
    for position, device in enumerate(running.iterfind("devices/*")):
        if device.find("alias") is None and device.tag not in ("emulator", "audio"):
            etree.SubElement(device, "alias", {"name": f"{device.tag}{position}"})
    etree.SubElement(running, "seclabel", {"type": "dynamic", "model": "dac", "relabel": "yes"})
    return running


def migratable(domain: Element) -> Element:
    """The form for another host: what libvirt chose by itself is not in it."""
    return copy.deepcopy(domain)


def _disks(running: Element, bases: Mapping[str, str]) -> None:
    for position, disk in enumerate(running.iterfind("devices/disk")):
        source, target = disk.find("source"), disk.find("target")
        if source is None or disk.find("backingStore") is not None:
            continue
        source.set("index", str(position + 1))
        store = etree.Element("backingStore")
        name = (target.get("dev") or "") if target is not None else ""
        if name in bases:
            store.set("type", "file")
            etree.SubElement(store, "format", {"type": "qcow2"})
            etree.SubElement(store, "source", {"file": bases[name]})
            etree.SubElement(store, "backingStore")
        disk.insert(disk.index(source) + 1, store)


def _nics(running: Element) -> None:
    for position, nic in enumerate(running.iterfind("devices/interface")):
        source = nic.find("source")
        if nic.get("type") == "network" and source is not None:
            kind, more = ACTUAL.get(source.get("network", ""), ("network", {"bridge": "virbr9"}))
            nic.set("type", kind)
            source.set("portid", f"6f1e2d3c-0000-4000-8000-00000000000{position}")
            for name, value in more.items():
                source.set(name, value)
            if kind == "hostdev":
                nic.set("managed", "yes")
                nic.remove(source)
                nic.insert(1, _function())
            if source.get("network") == "tenants":
                _port_of(nic)
        if nic.get("type") not in ("hostdev", "vhostuser", "vdpa") and nic.find("target") is None:
            etree.SubElement(
                nic, "target", {"dev": f"{'macvtap' if nic.get('type') == 'direct' else 'vnet'}{position}"}
            )


def _function() -> Element:
    """A virtual function of the pool."""
    source = etree.Element("source")
    parts = {"domain": "0x0000", "bus": "0x81", "slot": "0x02", "function": "0x3"}
    etree.SubElement(source, "address", {"type": "pci", **parts})
    return source


def _port_of(nic: Element) -> None:
    """The network's virtual port, with the interface id that libvirt made for the NIC."""
    port = nic.find("virtualport")
    known = port.find("parameters") if port is not None else None
    if port is not None:
        nic.remove(port)
    port = etree.SubElement(nic, "virtualport", {"type": "openvswitch"})
    given = known.get("interfaceid", "") if known is not None else ""
    etree.SubElement(port, "parameters", {"interfaceid": given or "3d9e4b7a-0000-4000-8000-000000000001"})


def _screen(screen: Element, position: int) -> None:
    if screen.get("autoport") == "yes" or screen.get("port") in (None, "-1"):
        screen.set("port", str(FIRST_PORT + position))
    if screen.find("listen") is None and screen.get("type") in ("vnc", "spice", "rdp"):
        screen.set("listen", screen.get("listen") or "127.0.0.1")
        etree.SubElement(screen, "listen", {"type": "address", "address": screen.get("listen", "")})
