"""Sterna's own element in a domain's <metadata>: the epoch, and what a definition does not say of its NICs.

    <sterna:domain xmlns:sterna="https://sterna.dev/xmlns/domain/1">
      <sterna:epoch>3</sterna:epoch>
      <sterna:migration>UUID</sterna:migration>
      <sterna:nic mac="52:54:00:.." port="UUID" bridge="br-int" vlan="100" plug="ovs-hybrid"/>
      <sterna:image uuid="..."><sterna:property name="hw_disk_bus">virtio</sterna:property></sterna:image>
    </sterna:domain>

A tap that an earlier version made ahead of the guest is an `<interface type='ethernet'>`. Plug type (where it is
not `ovs`), bridge, VLAN and port id are not in that form, so they are here. Children this version does not know are
carried along untouched.
"""

from __future__ import annotations

from collections.abc import Iterable

from lxml import etree

from sterna.domain.errors import Permanent
from sterna.domain.journal import LARGEST_EPOCH
from sterna.domain.model import DEFAULT_PLUG, Data, Value

NAMESPACE = "https://sterna.dev/xmlns/domain/1"
PREFIX = "sterna"
NOVA_NAMESPACE = "http://openstack.org/xmlns/libvirt/nova/1."

Element = etree._Element


class NicFacts(Value):
    """What Sterna remembers of one NIC beside the XML."""

    mac: str
    port_id: str | None = None
    bridge: str | None = None
    vlan: int | None = None
    plug: str | None = None
    """None: `ovs`, as the versions wrote it that knew nothing else."""


def parse_xml(text: str) -> Element:
    """The root element. No entity is expanded, no DTD loaded, nothing fetched.

    Raises Permanent if it is not XML, or carries a DOCTYPE (libvirt never writes one).
    """
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, remove_blank_text=False
    )
    try:
        root = etree.fromstring(text.encode(), parser)
    except etree.XMLSyntaxError as error:
        raise Permanent(f"the domain's definition is not well-formed XML: {error}") from error
    if root.getroottree().docinfo.internalDTD is not None:
        raise Permanent("the domain's definition carries a DOCTYPE, which libvirt never writes")
    return root


def to_text(root: Element) -> str:
    """XML as text."""
    return etree.tostring(root, encoding="unicode")


def find_own(domain: Element) -> Element | None:
    """Sterna's element of a whole <domain>, if it has one."""
    return domain.find(f"metadata/{{{NAMESPACE}}}domain")


def read_epoch(own: Element | None) -> int | None:
    """The epoch; None where there is none (never migrated by Sterna), or what is there is none of Sterna's."""
    text = own.findtext(f"{{{NAMESPACE}}}epoch") if own is not None else None
    if text is None and own is not None:
        text = own.findtext("epoch")  # as virDomainGetMetadata gives it: without the namespace
    try:
        epoch = int(text) if text is not None else 0
    except ValueError:
        return None
    return epoch if 0 < epoch < LARGEST_EPOCH else None


def read_nics(own: Element | None) -> dict[str, NicFacts]:
    """Remembered facts by MAC (lower case)."""
    if own is None:
        return {}
    facts = {}
    for nic in own.iterfind(f"{{{NAMESPACE}}}nic"):
        mac = (nic.get("mac") or "").lower()
        vlan = nic.get("vlan")
        facts[mac] = NicFacts(
            mac=mac,
            port_id=nic.get("port"),
            bridge=nic.get("bridge"),
            vlan=int(vlan) if vlan and vlan.isdigit() else None,
            plug=nic.get("plug"),
        )
    return facts


def read_image(domain: Element) -> Data:
    """P7: image metadata: Nova's element, overlaid with Sterna's own. `{'uuid': …, 'properties': {…}}` or {}."""
    image: Data = {}
    properties: dict[str, str] = {}
    for element in domain.iterfind("metadata/*"):
        if not isinstance(element.tag, str):
            continue
        namespace = etree.QName(element).namespace or ""
        if namespace != NAMESPACE and not namespace.startswith(NOVA_NAMESPACE):
            continue
        for found in element.iterfind(f"{{{namespace}}}image"):
            if found.get("uuid"):
                image["uuid"] = found.get("uuid")
            for prop in found.iter(f"{{{namespace}}}property"):
                properties[prop.get("name") or ""] = prop.text or ""
        root = element.find(f"{{{namespace}}}root")
        if root is not None and root.get("type") == "image" and root.get("uuid"):
            image.setdefault("uuid", root.get("uuid"))
    if properties:
        image["properties"] = properties
    return image


def build_own(old: Element | None, *, epoch: int, migration_id: str, nics: Iterable[NicFacts]) -> Element:
    """A new element: epoch, migration and NICs replaced, every other child of `old` kept."""
    own = etree.Element(f"{{{NAMESPACE}}}domain", nsmap={PREFIX: NAMESPACE})
    etree.SubElement(own, f"{{{NAMESPACE}}}epoch").text = str(epoch)
    etree.SubElement(own, f"{{{NAMESPACE}}}migration").text = migration_id
    for nic in nics:
        values = {"mac": nic.mac, "port": nic.port_id, "bridge": nic.bridge}
        values["plug"] = nic.plug if nic.plug != DEFAULT_PLUG else None
        values["vlan"] = str(nic.vlan) if nic.vlan is not None else None
        etree.SubElement(own, f"{{{NAMESPACE}}}nic", {k: v for k, v in values.items() if v})
    replaced = {f"{{{NAMESPACE}}}{name}" for name in ("epoch", "migration", "nic")}
    for child in [] if old is None else list(old):
        if child.tag not in replaced:
            own.append(child)
    return own


def bare_text(own: Element) -> str:
    """The element as virDomainSetMetadata wants it: without a namespace, which libvirt then adds itself."""
    bare = etree.fromstring(etree.tostring(own))
    for element in bare.iter():
        if isinstance(element.tag, str) and etree.QName(element).namespace == NAMESPACE:
            element.tag = etree.QName(element).localname
    etree.cleanup_namespaces(bare)
    return to_text(bare)


def put_own(domain: Element, own: Element) -> None:
    """Replace Sterna's element in a <domain>, making <metadata> where there is none."""
    metadata = domain.find("metadata")
    if metadata is None:
        metadata = etree.Element("metadata")
        domain.append(metadata)
    for old in metadata.findall(f"{{{NAMESPACE}}}domain"):
        metadata.remove(old)
    metadata.append(own)
