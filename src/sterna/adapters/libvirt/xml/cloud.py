"""What a domain's definition says of its cloud: Nova's element in the metadata, and disks that are volumes. Pure.

<nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1">
  <nova:name>web1</nova:name>
  <nova:creationTime>2026-11-29 06:43:22</nova:creationTime>
  <nova:flavor name="small" id="UUID"><nova:memory>2048</nova:memory>...</nova:flavor>
  <nova:owner><nova:user uuid="...">mina</nova:user><nova:project uuid="...">web</nova:project></nova:owner>
  <nova:root type="image" uuid="..."/>
</nova:instance>
"""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from lxml import etree

from sterna.adapters.libvirt.xml.metadata import NOVA_NAMESPACE, Element
from sterna.domain.nova import Flavor, NovaFacts


def read_nova(domain: Element) -> NovaFacts | None:
    """What Nova wrote; None where there is nothing of Nova's."""
    for element in domain.iterfind("metadata/*"):
        name = etree.QName(element) if isinstance(element.tag, str) else None
        if name is not None and (name.namespace or "").startswith(NOVA_NAMESPACE) and name.localname == "instance":
            return _facts(element, f"{{{name.namespace}}}")
    return None


def read_volumes(domain: Element) -> tuple[str, ...]:
    """Serials of disks that are UUIDs, in order."""
    serials = (disk.findtext("serial", "").strip() for disk in domain.iterfind("devices/disk"))
    return tuple(dict.fromkeys(serial.lower() for serial in serials if _is_uuid(serial)))


def _facts(instance: Element, ns: str) -> NovaFacts:
    root = instance.find(f"{ns}root")
    return NovaFacts(
        name=instance.findtext(f"{ns}name", ""),
        created_at=_instant(instance.findtext(f"{ns}creationTime", "")),
        user_id=_attribute(instance, f"{ns}owner/{ns}user"),
        project_id=_attribute(instance, f"{ns}owner/{ns}project"),
        image=(root.get("uuid") or "") if root is not None and root.get("type") == "image" else "",
        flavor=_flavor(instance.find(f"{ns}flavor"), ns),
    )


def _flavor(found: Element | None, ns: str) -> Flavor | None:
    if found is None:
        return None
    specs = {s.get("name") or "": s.text or "" for s in found.iterfind(f"{ns}extraSpecs/{ns}extraSpec")}
    sizes = {
        field: _number(found.findtext(f"{ns}{tag}", ""))
        for field, tag in (
            ("memory_mib", "memory"),
            ("disk_gib", "disk"),
            ("ephemeral_gib", "ephemeral"),
            ("swap_mib", "swap"),
            ("vcpus", "vcpus"),
        )
    }
    return Flavor.model_validate(
        {"id": found.get("id") or "", "name": found.get("name") or "", "extra_specs": specs} | sizes
    )


def _attribute(instance: Element, path: str) -> str:
    found = instance.find(path)
    return (found.get("uuid") or "") if found is not None else ""


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else 0


def _instant(text: str) -> str:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).isoformat()
    except ValueError:
        return ""


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False
