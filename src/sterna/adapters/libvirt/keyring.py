"""`ports.secrets.Keyring`: the secrets of one host's libvirt. A value passes through and is kept nowhere."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import libvirt
from lxml import etree

from sterna.adapters.libvirt.definitions import Patience, definitions
from sterna.adapters.libvirt.session.connection import Connect
from sterna.adapters.libvirt.session.host import LibvirtHost
from sterna.adapters.libvirt.xml.describe import all_secrets
from sterna.adapters.libvirt.xml.metadata import parse_xml, to_text
from sterna.domain.errors import Conflict, NotFound, Permanent
from sterna.domain.model import SecretRef
from sterna.domain.secrets import Secret, refers

_KINDS = {
    libvirt.VIR_SECRET_USAGE_TYPE_NONE: "none",
    libvirt.VIR_SECRET_USAGE_TYPE_VOLUME: "volume",
    libvirt.VIR_SECRET_USAGE_TYPE_CEPH: "ceph",
    libvirt.VIR_SECRET_USAGE_TYPE_ISCSI: "iscsi",
    libvirt.VIR_SECRET_USAGE_TYPE_TLS: "tls",
    libvirt.VIR_SECRET_USAGE_TYPE_VTPM: "vtpm",
}
_MARK = "Made by Sterna for VM {vm}, by {maker}"
_MARKED = re.compile(r"^Made by Sterna for VM (\S+), by (\S+)$")
_NO_DRIVER = "install libvirt's secret driver (Debian: libvirt-daemon-driver-secret), or start virtsecretd"


class LibvirtKeyring(LibvirtHost):
    """What disks and TPMs are opened with."""

    async def secrets_like(self, refs: Sequence[SecretRef]) -> list[Secret]:
        """Those that one of these references names. Raises Unreachable, Permanent."""
        return await self._ask(lambda conn: [_described(s) for s in _all(conn) if _named(s, refs)])

    async def secret_value(self, uuid: str) -> bytes:
        """Its value. Raises NotFound, Permanent, Unreachable."""

        def read(conn: Connect) -> bytes:
            secret = _find(conn, uuid)
            if secret is None:
                raise NotFound(f"there is no secret {uuid} here")
            return bytes(secret.value(0))

        return await self._ask(read)

    async def make_secret(self, secret: Secret, value: bytes) -> None:
        """Define it with its value. Raises Conflict, Permanent, Unreachable."""

        def make(conn: Connect) -> None:
            present = _find(conn, secret.uuid)
            if present is not None:
                found = _described(present)
                if found.has_value is not False:
                    return
                if found.made_for != secret.made_for:
                    raise Conflict(f"secret {secret.uuid} is there without a value, and it is not Sterna's")
            # defined again, an own one gets this migration's mark: whoever gave it its value takes it away again
            conn.secretDefineXML(_render(secret), 0).setValue(value, 0)

        await self._ask(make)

    async def remove_secret(self, uuid: str, vm_uuid: str, migration_id: str | None = None) -> bool:
        """Undefine what is Sterna's, this VM's and used no more. Raises Permanent, Unreachable."""

        def remove(conn: Connect) -> bool:
            present = _find(conn, uuid)
            if present is None:
                return False
            found = _described(present)
            if found.made_for != vm_uuid or migration_id not in (None, found.made_by):
                return False
            if any(refers(ref, found) for ref in _used(conn)):
                return False
            present.undefine()
            return True

        return await self._passes.run(remove)

    async def unused_secrets(self) -> list[Secret]:
        """Those of Sterna's that no domain here refers to. Raises Unreachable."""

        def look(conn: Connect) -> list[Secret]:
            own = [_described(s) for s in _known(conn) or () if _marked(s.XMLDesc(0))]
            used = tuple(_used(conn)) if own else ()
            return [s for s in own if not any(refers(ref, s) for ref in used)]

        return await self._passes.run(look)


def _all(conn: Connect) -> list[Any]:
    found = _known(conn)
    if found is None:
        raise Permanent("libvirt keeps no secrets here", fix=_NO_DRIVER)
    return found


def _known(conn: Connect) -> list[Any] | None:
    """None: without the driver for them."""
    try:
        return list(conn.listAllSecrets(0))
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
            return None
        raise


def _marked(xml: str) -> re.Match[str] | None:
    return _MARKED.match(parse_xml(xml).findtext("description", "").strip())


def _named(secret: Any, refs: Sequence[SecretRef]) -> bool:
    """Without a question to libvirtd: a cloud has one secret per encrypted volume."""
    return any(refers(ref, _bare(secret)) for ref in refs)


def _bare(secret: Any) -> Secret:
    kind = _KINDS.get(secret.usageType(), "other")
    return Secret(uuid=secret.UUIDString(), kind=kind, usage=secret.usageID() or "")


def _find(conn: Connect, uuid: str) -> Any | None:
    try:
        return conn.secretLookupByUUIDString(uuid)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_SECRET:
            return None
        raise


def _described(secret: Any) -> Secret:
    text = secret.XMLDesc(0)
    xml, mark = parse_xml(text), _marked(text)
    private = xml.get("private") == "yes"
    facts = {
        "ephemeral": xml.get("ephemeral") == "yes",
        "private": private,
        "has_value": None if private else _has_value(secret),
        "made_for": mark[1] if mark else "",
        "made_by": mark[2] if mark else "",
    }
    return _bare(secret).model_copy(update=facts)


def _has_value(secret: Any) -> bool:
    try:
        secret.value(0)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_SECRET:
            return False
        raise
    return True


def _render(secret: Secret) -> str:
    """Readable, as the one it is a copy of was: else it could not go on from here."""
    root = etree.Element("secret", {"ephemeral": "yes" if secret.ephemeral else "no", "private": "no"})
    etree.SubElement(root, "uuid").text = secret.uuid
    etree.SubElement(root, "description").text = _MARK.format(vm=secret.made_for, maker=secret.made_by)
    if secret.kind != "none":
        usage = etree.SubElement(root, "usage", {"type": secret.kind})
        etree.SubElement(usage, secret.usage_element).text = secret.usage
    return to_text(root)


def _used(conn: Connect) -> Iterator[SecretRef]:
    """What the domains here refer to, running and off."""
    patience = Patience()
    for domain in conn.listAllDomains():
        try:
            texts = list(definitions(domain, patience))
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                continue  # it ended while we looked
            raise
        for xml in texts:
            yield from all_secrets(parse_xml(xml))
