"""A <disk> of libvirt's XML and the kind of disk it is: one form per kind, in one registry.

Pure. `describe.py` reads by it, `disk_places.py` writes by it. What the guest sees stays (bus, address, serial,
format). So does whatever already says what the destination needs: only an element whose meaning changes is touched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from lxml import etree

from sterna.adapters.libvirt.xml.metadata import Element
from sterna.adapters.libvirt.xml.nic_forms import any_location, drop_all, servers
from sterna.domain.copying import DestinationDisk
from sterna.domain.errors import Permanent
from sterna.domain.model import Data, Disk, DiskKind, IscsiSource, RbdSource, SecretRef


@dataclass(frozen=True)
class Form:
    """How libvirt's XML says one kind of disk."""

    type: str
    """Of the <disk>."""
    protocol: str | None
    """Of its <source>, where the type is `network`."""
    read: Callable[[Element], Data | str]
    """From a <source>: the fields of `Reached` that are this kind's own; or why it is not supported, in words."""
    write: Callable[[Element, Element, Disk, DestinationDisk], None]
    """Let a <disk>, with its <source> and as it was read, name what the destination planned. Raises Permanent where
    it is another kind of disk."""


# ------------------------------------------------------------ a file


def _write_file(disk: Element, source: Element, known: Disk, planned: DestinationDisk) -> None:
    if disk.get("type") != "file" or not planned.path:
        raise Permanent(f"disk {planned.target} is not a file on the source, or the plan has no path for it")
    if source.get("file") == planned.path:
        return
    source.set("file", planned.path)
    # The recorded chain is of the old path; libvirt finds out again.
    drop_all(disk, "backingStore")


# ------------------------------------------------------------ iSCSI


def _read_iscsi(source: Element) -> Data | str:
    target, _, lun = (source.get("name") or "").partition("/")
    if not target:
        return "iSCSI without the name of a target"
    hosts = source.findall("host")
    iqn = source.find("initiator/iqn")
    if len(hosts) != 1:
        return f"iSCSI with {len(hosts)} portals"
    if hosts[0].get("transport", "tcp") != "tcp":
        return f"iSCSI over {hosts[0].get('transport')}"
    if lun and not lun.isdigit():
        return f"iSCSI LUN {lun!r}"
    found = IscsiSource(
        target=target,
        lun=int(lun or 0),
        portal_host=hosts[0].get("name", ""),
        portal_port=int(hosts[0].get("port", "3260")),
        initiator=iqn.get("name") if iqn is not None else None,
    )
    return {"iscsi": found}


def _write_iscsi(disk: Element, source: Element, known: Disk, planned: DestinationDisk) -> None:
    if known.iscsi is None or planned.iscsi is None:
        raise Permanent(f"disk {planned.target} is not iSCSI on the source, or the plan has no target for it")
    if known.iscsi != planned.iscsi:
        _set_iscsi(source, known.iscsi, planned.iscsi)
    if planned.login is not None and planned.login not in known.secrets:
        _set_login(disk, source, planned.login)


def _set_iscsi(source: Element, known: IscsiSource, iscsi: IscsiSource) -> None:
    """Another initiator, maybe another portal; <auth> and the rest stay."""
    if (known.target, known.lun) != (iscsi.target, iscsi.lun):
        source.set("name", f"{iscsi.target}/{iscsi.lun}")
    if (known.portal_host, known.portal_port) != (iscsi.portal_host, iscsi.portal_port):
        drop_all(source, "host")
        source.insert(0, etree.Element("host", {"name": iscsi.portal_host, "port": str(iscsi.portal_port)}))
    if known.initiator == iscsi.initiator:
        return
    iqn = source.find("initiator/iqn")
    if iqn is not None and iscsi.initiator:
        iqn.set("name", iscsi.initiator)
        return
    drop_all(source, "initiator")
    if iscsi.initiator:
        initiator = etree.Element("initiator")
        etree.SubElement(initiator, "iqn", {"name": iscsi.initiator})
        source.insert(1, initiator)


def _set_login(disk: Element, source: Element, login: SecretRef) -> None:
    """Another user and secret, wherever libvirt had the old ones: beside <source> or in it."""
    for parent in (disk, source):
        drop_all(parent, "auth")
    auth = etree.SubElement(source, "auth", {"username": login.username or ""})
    etree.SubElement(auth, "secret", {"type": login.kind, "uuid": login.uuid or ""})


# ------------------------------------------------------------ Ceph


def _read_rbd(source: Element) -> Data | str:
    if source.find("snapshot") is not None:
        return f"a snapshot of the Ceph image {source.get('name')}"
    if not source.get("name"):
        return "Ceph without the name of an image"
    hosts = source.findall("host")
    monitors = tuple(f"{host.get('name', '')}:{host.get('port', '6789')}" for host in hosts)
    return {"rbd": RbdSource(name=source.get("name", ""), monitors=monitors)}


def _write_rbd(disk: Element, source: Element, known: Disk, planned: DestinationDisk) -> None:
    if known.rbd is None or planned.rbd is None:
        raise Permanent(f"disk {planned.target} is not RBD on the source, or the plan has no image for it")
    if known.rbd != planned.rbd:
        _set_rbd(source, known.rbd, planned.rbd)


def _set_rbd(source: Element, known: RbdSource, rbd: RbdSource) -> None:
    """Other monitors, maybe; <auth>, <config> and the rest stay."""
    if known.name != rbd.name:
        source.set("name", rbd.name)
    if not rbd.monitors or known.monitors == rbd.monitors:
        return
    drop_all(source, "host")
    for position, monitor in enumerate(rbd.monitors):
        name, _, port = monitor.rpartition(":")
        source.insert(position, etree.Element("host", {"name": name, "port": port}))


FORMS: Final[dict[DiskKind, Form]] = {
    DiskKind.FILE: Form("file", None, lambda source: {"path": source.get("file")}, _write_file),
    DiskKind.ISCSI: Form("network", "iscsi", _read_iscsi, _write_iscsi),
    DiskKind.RBD: Form("network", "rbd", _read_rbd, _write_rbd),
}


def read_way(disk: Element) -> Data:
    """The fields of `Reached` and `Disk.detail`: how a <disk> is reached. What is not supported is OTHER, with the
    XML's own word."""
    type_, source = disk.get("type", "file"), disk.find("source")
    if source is None or not (any_location(source) or source.get("protocol")):
        empty = disk.get("device") in ("cdrom", "floppy")
        return {"kind": DiskKind.EMPTY} if empty else _other(f"{type_} without source")
    protocol = source.get("protocol") if type_ == "network" else None
    for kind, form in FORMS.items():
        if (form.type, form.protocol) == (type_, protocol):
            found = form.read(source)
            return _other(found) if isinstance(found, str) else {"kind": kind, **found}
    if type_ == "network":
        place = " at ".join(filter(None, (source.get("name"), servers(source)))) or "without a server"
        return _other(f"network disk over {protocol}: {place}")
    return _other(f"{type_} disk {any_location(source)}")


def _other(why: str) -> Data:
    return {"kind": DiskKind.OTHER, "detail": why}


def _take_out(disk: Element) -> None:
    """The medium, as an eject does."""
    source = disk.find("source")
    if source is not None and (any_location(source) or source.get("protocol")):
        drop_all(disk, "source")
        drop_all(disk, "backingStore")


def write_way(disk: Element, known: Disk, planned: DestinationDisk) -> None:
    """Let a <disk>, which was read as `known`, name what the destination planned. Raises Permanent where it is
    another kind of disk."""
    if planned.kind is DiskKind.EMPTY:
        _take_out(disk)
        return
    form, source = FORMS.get(planned.kind), disk.find("source")
    if form is None:
        raise Permanent(f"disk {planned.target}: cannot render kind {planned.kind}")
    if source is None:
        raise Permanent(f"disk {planned.target} has no source, and the plan has one for it")
    form.write(disk, source, known, planned)
