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
from sterna.adapters.libvirt.xml.describe import TPM_FOLDER
from sterna.adapters.libvirt.xml.metadata import Element, parse_xml
from sterna.domain.claims import Claim
from sterna.domain.errors import Permanent

_PATH = re.compile(r'(?:^|[=:,])\s*"?(/[^,"]*)')
"""An absolute path: all of a value, or a part of one: `<qemu:arg value='if=none,file=/srv/a.img'/>`, or in JSON
`{"filename": "/srv/a.img"}`."""
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
    patience = Patience()
    for domain in conn.listAllDomains():
        try:
            if domain.UUIDString() != besides:
                found += _of_domain(conn, domain, patience)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise  # else it ended while we looked
    return tuple(dict.fromkeys(found))


def read_targets(conn: Connect, besides: str) -> dict[str, str]:
    """Target -> whose disks name it, of all domains but `besides`. Blocking. Raises libvirtError."""
    found: dict[str, str] = {}
    patience = Patience()
    for domain in conn.listAllDomains():
        try:
            if domain.UUIDString() != besides:
                for text in _definitions(domain, patience):
                    found |= dict.fromkeys(targets_of(parse_xml(text)), _owner(domain))
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise  # else it ended while we looked
    return found


def targets_of(domain: Element) -> list[str]:
    """The iSCSI targets that this XML names: `<source protocol='iscsi' name='TARGET/LUN'>`."""
    names = (source.get("name") or "" for source in domain.iter("source") if source.get("protocol") == "iscsi")
    return list(dict.fromkeys(name.partition("/")[0] for name in names if name))


def _owner(domain: Any) -> str:
    return f"VM {domain.name()} ({state_of(domain)[0]})"


def _of_domain(conn: Connect, domain: Any, patience: Patience) -> list[Claim]:
    uuid, owner = domain.UUIDString(), _owner(domain)
    found: list[Claim] = []
    for text in _definitions(domain, patience):
        xml = parse_xml(text)
        found += claims_of(xml, owner, uuid)
        found += [
            Claim(path=path, owner=owner, vm_uuid=uuid, image=True, format=form)
            for path, form in _volumes(conn, xml)
        ]
    return found


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
                yield from (path.rstrip() for path in _PATH.findall(str(value)))


def _volumes(conn: Connect, domain: Element) -> Iterator[tuple[str, str | None]]:
    """The files behind `<source pool='...' volume='...'/>`."""
    for source in domain.iter("source"):
        pool, volume, parent = source.get("pool"), source.get("volume"), source.getparent()
        if not pool or not volume or parent is None:
            continue
        path = _volume_path(conn, pool, volume)
        if path.startswith("/"):
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
