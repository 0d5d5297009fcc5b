"""Whether this libvirt could start the guest that is about to come, short of starting it. Blocking."""

from __future__ import annotations

import libvirt

from sterna.adapters.libvirt.session.connection import Connect, is_gone
from sterna.adapters.libvirt.xml.metadata import parse_xml, to_text
from sterna.domain.model import Refusal

_OF_THE_HOST = ("disk", "interface", "hostdev")
"""Devices that the destination is prepared for first, and that have checks of their own."""


def against_definition(conn: Connect, xml: str) -> list[Refusal]:
    """Why libvirt cannot make a QEMU command line of it."""
    try:
        conn.domainXMLToNative("qemu-argv", xml, 0)
    except libvirt.libvirtError as error:
        if is_gone(error, conn):
            raise
        message = f"the destination's libvirt cannot start it: {error.get_error_message()}"
        fix = "install there what its libvirt or QEMU lacks"
        return [Refusal(code="definition-refused", message=message, fix=fix)]
    return []


def without_devices(xml: str) -> str:
    """A definition without what another host must first be prepared for."""
    domain = parse_xml(xml)
    for devices in domain.iterfind("devices"):
        for name in _OF_THE_HOST:
            for device in devices.findall(name):
                devices.remove(device)
    return to_text(domain)
