"""Where a disk's bytes are, in a <disk> of libvirt's XML: changed where the destination reaches them differently.

Pure. Called by `render.py`. What the guest sees (bus, address, serial, format) stays, and so does whatever already
says what the destination needs: an element is touched only if its meaning changes.
"""

from __future__ import annotations

from lxml import etree

from sterna.adapters.libvirt.xml.describe import read_disk
from sterna.adapters.libvirt.xml.metadata import Element
from sterna.domain.copying import DestinationDisk
from sterna.domain.errors import Permanent
from sterna.domain.model import Disk, DiskKind, IscsiSource, RbdSource, SecretRef


def same_place(one: Disk, other: Disk) -> bool:
    """Do two definitions of a disk name the same bytes? By what way they are reached is not compared."""
    return _place(one) == _place(other)


def _place(disk: Disk) -> tuple[object, ...]:
    lun = (disk.iscsi.target, disk.iscsi.lun) if disk.iscsi else None
    return disk.kind, disk.path, lun, disk.rbd.name if disk.rbd else None


def replace_disk(disk: Element, planned: DestinationDisk) -> None:
    """Let a <disk> name what the destination planned. Raises Permanent where it is another kind of disk."""
    source, known = disk.find("source"), read_disk(disk)
    if planned.kind is DiskKind.FILE:
        if disk.get("type") != "file" or source is None or not planned.path:
            raise Permanent(f"disk {planned.target} is not a file on the source, or the plan has no path for it")
        _set_file(disk, source, planned.path)
    elif planned.kind is DiskKind.ISCSI:
        if source is None or known.iscsi is None or planned.iscsi is None:
            raise Permanent(f"disk {planned.target} is not iSCSI on the source, or the plan has no target for it")
        if known.iscsi != planned.iscsi:
            _set_iscsi(source, known.iscsi, planned.iscsi)
        if planned.login is not None and planned.login not in known.secrets:
            _set_login(disk, source, planned.login)
    elif planned.kind is DiskKind.RBD:
        if source is None or known.rbd is None or planned.rbd is None:
            raise Permanent(f"disk {planned.target} is not RBD on the source, or the plan has no image for it")
        if known.rbd != planned.rbd:
            _set_rbd(source, known.rbd, planned.rbd)
    elif planned.kind is not DiskKind.EMPTY:
        raise Permanent(f"disk {planned.target}: cannot render kind {planned.kind}")


def _set_file(disk: Element, source: Element, path: str) -> None:
    if source.get("file") == path:
        return
    source.set("file", path)
    # The recorded chain is of the old path; libvirt finds out again.
    _drop_all(disk, "backingStore")


def _set_iscsi(source: Element, known: IscsiSource, iscsi: IscsiSource) -> None:
    """Another initiator, maybe another portal; <auth> and the rest stay."""
    if (known.target, known.lun) != (iscsi.target, iscsi.lun):
        source.set("name", f"{iscsi.target}/{iscsi.lun}")
    if (known.portal_host, known.portal_port) != (iscsi.portal_host, iscsi.portal_port):
        _drop_all(source, "host")
        source.insert(0, etree.Element("host", {"name": iscsi.portal_host, "port": str(iscsi.portal_port)}))
    if known.initiator == iscsi.initiator:
        return
    iqn = source.find("initiator/iqn")
    if iqn is not None and iscsi.initiator:
        iqn.set("name", iscsi.initiator)
        return
    _drop_all(source, "initiator")
    if iscsi.initiator:
        initiator = etree.Element("initiator")
        etree.SubElement(initiator, "iqn", {"name": iscsi.initiator})
        source.insert(1, initiator)


def _set_login(disk: Element, source: Element, login: SecretRef) -> None:
    """Another user and secret, wherever libvirt had the old ones: beside <source> or in it."""
    for parent in (disk, source):
        _drop_all(parent, "auth")
    auth = etree.SubElement(source, "auth", {"username": login.username or ""})
    etree.SubElement(auth, "secret", {"type": login.kind, "uuid": login.uuid or ""})


def _set_rbd(source: Element, known: RbdSource, rbd: RbdSource) -> None:
    """Other monitors, maybe; <auth>, <config> and the rest stay."""
    if known.name != rbd.name:
        source.set("name", rbd.name)
    if not rbd.monitors or known.monitors == rbd.monitors:
        return
    _drop_all(source, "host")
    for position, monitor in enumerate(rbd.monitors):
        name, _, port = monitor.rpartition(":")
        source.insert(position, etree.Element("host", {"name": name, "port": port}))


def _drop_all(parent: Element, name: str) -> None:
    for child in parent.findall(name):
        parent.remove(child)
