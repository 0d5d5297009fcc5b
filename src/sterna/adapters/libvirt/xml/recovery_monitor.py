"""The second monitor of a guest that may be switched to post-copy, in libvirt's XML (`qemu/recovery.py`). Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from lxml import etree

from sterna.adapters.libvirt.xml.metadata import Element

FOLDER = Path("/var/lib/libvirt/qemu")
_QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"
_ID = "sterna-recovery"


def monitor_socket(uuid: str) -> Path:
    """The second monitor's socket."""
    return FOLDER / f"sterna-{uuid}.sock"


def add_recovery_monitor(domain: Element, uuid: str) -> None:
    """Give the incoming QEMU a second monitor. A user's own QEMU arguments stay."""
    remove_recovery_monitor(domain)
    line = domain.find(f"{{{_QEMU}}}commandline")
    if line is None:
        line = etree.SubElement(domain, f"{{{_QEMU}}}commandline", nsmap={"qemu": _QEMU})
    for value in _arguments(uuid):
        etree.SubElement(line, f"{{{_QEMU}}}arg", {"value": value})


def remove_recovery_monitor(domain: Element) -> None:
    """Take out what an earlier migration put in: on this host the guest has none."""
    line = domain.find(f"{{{_QEMU}}}commandline")
    if line is None:
        return
    arguments = list(line)
    for option, value in pairwise(arguments):
        if _ID in (value.get("value") or "").replace("=", ",").split(","):
            line.remove(option)
            line.remove(value)
    if len(line) == 0:
        domain.remove(line)


def _arguments(uuid: str) -> Iterator[str]:
    yield from ("-chardev", f"socket,id={_ID},path={monitor_socket(uuid)},server=on,wait=off")
    yield from ("-mon", f"chardev={_ID},mode=control")
