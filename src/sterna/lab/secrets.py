"""Secrets in a lab host's libvirt, as an operator would define them: what LUKS and CHAP disks are opened with."""

import base64

from lxml import etree

from sterna.lab.host import LabHost

WORD = "open-sesame-12"
"""The value of each."""
_ELEMENTS = {"volume": "volume", "iscsi": "target"}


def define(
    host: LabHost, uuid: str, kind: str, usage: str, value: str | None = WORD, *, private: bool = False
) -> None:
    """Define one on `host`, with its value where there is one; what is there already is defined again."""
    root = etree.Element("secret", ephemeral="no", private="yes" if private else "no")
    etree.SubElement(root, "uuid").text = uuid
    etree.SubElement(etree.SubElement(root, "usage", type=kind), _ELEMENTS[kind]).text = usage
    host.run(["sh", "-c", "cat >/run/secret.xml"], stdin=etree.tostring(root, encoding="unicode"))
    host.virsh("secret-define", "/run/secret.xml")
    if value is not None:
        host.virsh("secret-set-value", uuid, base64.b64encode(value.encode()).decode())


def undefine(host: LabHost, uuid: str) -> None:
    """Take it away; none is not an error."""
    host.virsh("secret-undefine", uuid, check=False)


def values(host: LabHost) -> dict[str, str]:
    """UUID -> value of those that may be read."""
    rows = [line.split() for line in host.virsh("secret-list", "--no-private").splitlines() if line.strip()]
    encoded = {row[0]: host.virsh("secret-get-value", row[0], check=False) for row in rows}
    return {uuid: base64.b64decode(text).decode() for uuid, text in encoded.items()}
