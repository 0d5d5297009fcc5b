"""Which files a libvirt's domains name, anywhere in a definition. Such a file must not be removed.

`claims_of` is pure. It takes every absolute path in any attribute or text, because an element that a later libvirt
adds may name a file as well. Of disks it also knows the format, so that their backing files can be found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import libvirt

from sterna.adapters.libvirt.definitions import Patience, definitions
from sterna.adapters.libvirt.observe import state_of
from sterna.adapters.libvirt.session.connection import Connect
from sterna.adapters.libvirt.xml.metadata import Element, parse_xml
from sterna.adapters.libvirt.xml.paths import all_paths
from sterna.domain.claims import Claim, VolumeClaim, lun_name
from sterna.domain.errors import Permanent
from sterna.domain.state_files import TPM_FOLDER

_LUNS = (re.compile(r"-iscsi-([^/,\s]+?)-lun-(\d+)"), re.compile(r"iscsi://[^/,\s]+/([^/,\s]+)/(\d+)"))
"""As udev names the device of a host that has logged in, and as QEMU's initiator takes one in its arguments."""
_IMAGES = ("disk", "backingStore", "mirror", "dataStore", "hostdev")
"""Elements whose <source> is an image, which may stand on others."""


def claims_of(domain: Element, owner: str, vm_uuid: str) -> list[Claim]:
    """Every file that this XML (a domain's, a snapshot's) names, each once."""
    found: dict[str, Claim] = {}
    for image in _images(domain):
        found.setdefault(image[0], Claim(path=image[0], owner=owner, vm_uuid=vm_uuid, image=True, format=image[1]))
    for path in _paths(domain):
        found.setdefault(path, Claim(path=path, owner=owner, vm_uuid=vm_uuid))
    if domain.find("devices/tpm/backend[@type='emulator']") is not None:
        path = f"{TPM_FOLDER}/{vm_uuid}"
        found.setdefault(path, Claim(path=path, owner=owner, vm_uuid=vm_uuid))
    return list(found.values())


def read_claims(conn: Connect, besides: str) -> tuple[Claim, ...]:
    """What all domains of this libvirt name, running or off, live and inactive definition, snapshots and saved
    state included; not those of the domain `besides`. Blocking. Raises libvirtError."""
    found: list[Claim] = []
    for uuid, owner, xml in _all(conn, besides):
        found += claims_of(xml, owner, uuid)
        found += [
            Claim(path=path, owner=owner, vm_uuid=uuid, image=True, format=form)
            for path, form in _volumes(conn, xml)
            if path.startswith("/")
        ]
    return tuple(dict.fromkeys(found))


def read_volume_claims(conn: Connect, besides: str) -> tuple[VolumeClaim, ...]:
    """The LUNs that they name, by the same rule. Blocking. Raises libvirtError."""
    found: list[VolumeClaim] = []
    for _, owner, xml in _all(conn, besides):
        pooled = [lun for path, _ in _volumes(conn, xml) for lun in _luns_in(path)]
        found += [VolumeClaim(volume=lun, owner=owner) for lun in (*luns_of(xml), *pooled)]
    return tuple(dict.fromkeys(found))


def luns_of(domain: Element) -> Iterator[str]:
    """Every LUN that this XML names: QEMU's own initiator's, one that the host has logged in to, and in QEMU's
    arguments. Pure."""
    for source in domain.iter("source"):
        if source.get("protocol") == "iscsi" and source.get("name"):
            target, _, lun = source.get("name", "").partition("/")
            yield lun_name(target, int(lun) if lun.isdigit() else 0)
    for element in domain.iter():
        if isinstance(element.tag, str):
            for value in (*element.attrib.values(), element.text or ""):
                yield from _luns_in(str(value))


def _luns_in(text: str) -> Iterator[str]:
    for pattern in _LUNS:
        yield from (lun_name(target, int(lun)) for target, lun in pattern.findall(text))


def _all(conn: Connect, besides: str) -> Iterator[tuple[str, str, Element]]:
    """UUID, name in words, and definition, of every definition of every domain but one. Raises libvirtError."""
    patience = Patience()
    for domain in conn.listAllDomains():
        try:
            uuid = domain.UUIDString()
            if uuid != besides:
                owner = f"VM {domain.name()} ({state_of(domain)[0]})"
                yield from [(uuid, owner, parse_xml(text)) for text in _definitions(domain, patience)]
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise  # else it ended while we looked


def _definitions(domain: Any, patience: Patience) -> Iterator[str]:
    """Everything libvirt could start it from."""
    yield from definitions(domain, patience)
    for snapshot in _unless_unsupported(domain.listAllSnapshots):
        yield snapshot.getXMLDesc()
    if _unless_unsupported(domain.hasManagedSaveImage):
        yield from _managed_save(domain)


def _managed_save(domain: Any) -> Iterator[str]:
    try:
        yield domain.managedSaveGetXMLDesc()
    except libvirt.libvirtError:
        return  # an image that nothing can be started from


def _unless_unsupported(ask: Any) -> Any:
    try:
        return ask()
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
            return ()
        raise


def _images(domain: Element) -> Iterator[tuple[str, str | None]]:
    """Path and format of what a <source> in a disk, its chain, mirror or data file names."""
    for source in domain.iter("source"):
        parent = source.getparent()
        if parent is None or parent.tag not in _IMAGES:
            continue
        path = source.get("file") or source.get("dev") or ""
        if path.startswith("/"):
            yield path, _format(parent)


def _format(parent: Element) -> str | None:
    named = parent.find("driver" if parent.tag == "disk" else "format")
    return named.get("type") if named is not None else None


def _paths(domain: Element) -> Iterator[str]:
    for element in domain.iter():
        if not isinstance(element.tag, str) or any(a.tag == "metadata" for a in element.iterancestors()):
            continue
        for value in (*element.attrib.values(), (element.text or "").strip()):
            if "/" in value:
                yield from all_paths(str(value))


def _volumes(conn: Connect, domain: Element) -> Iterator[tuple[str, str | None]]:
    """Path (of a network pool: its name) and format of the volumes behind `<source pool='...' volume='...'/>`."""
    for source in domain.iter("source"):
        pool, volume, parent = source.get("pool"), source.get("volume"), source.getparent()
        if not pool or not volume or parent is None:
            continue
        if path := _volume_path(conn, pool, volume):
            yield path, _format(parent)


def _volume_path(conn: Connect, pool: str, volume: str) -> str:
    """Where a pool keeps a volume; '' where it is not known."""
    try:
        found = conn.storagePoolLookupByName(pool)
    except libvirt.libvirtError:
        return ""
    try:
        return str(found.storageVolLookupByName(volume).path())
    except libvirt.libvirtError:  # the pool is not started, or the file not made yet
        try:
            folder = parse_xml(found.XMLDesc()).findtext("target/path", "")
        except (libvirt.libvirtError, Permanent):
            return ""
        return f"{folder}/{volume}" if folder else ""
