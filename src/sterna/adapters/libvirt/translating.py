"""Whether this libvirt could start the guest that is about to come, short of starting it. Blocking."""

from __future__ import annotations

import libvirt

from sterna.adapters.libvirt.connection import Connect, is_gone
from sterna.adapters.libvirt.metadata import Element, parse_xml
from sterna.domain.model import Refusal

_WHOLE_HOST = -1
_KIB = {"": 1, "KiB": 1, "MiB": 1024, "GiB": 1024 * 1024}


def against_definition(conn: Connect, xml: str) -> list[Refusal]:
    """What libvirt has against making a QEMU's command line of it, and huge pages that are not there."""
    found = _without_hugepages(conn, parse_xml(xml))
    try:
        conn.domainXMLToNative("qemu-argv", xml, 0)
    except libvirt.libvirtError as error:
        if is_gone(error, conn):
            raise
        message = f"the destination's libvirt cannot start it: {error.get_error_message()}"
        fix = "install there what its libvirt or QEMU lacks"
        found.append(Refusal(code="definition-refused", message=message, fix=fix))
    return found


def _without_hugepages(conn: Connect, domain: Element) -> list[Refusal]:
    backing = domain.find("memoryBacking/hugepages")
    if backing is None:
        return []
    page = backing.find("page")
    size = int(page.get("size", "0")) * _KIB.get(page.get("unit", "KiB"), 1) if page is not None else _usual_kib()
    needed = -(-int(domain.findtext("memory", "0")) // size)
    free = next(iter(conn.getFreePages([size], _WHOLE_HOST, 1).values()))[size]
    if free >= needed:
        return []
    message = f"the destination has {free} free huge pages of {size} KiB, the guest needs {needed}"
    return [Refusal(code="hugepages-short", message=message, fix="reserve more there (vm.nr_hugepages)")]


def _usual_kib() -> int:
    """The kernel's default size."""
    with open("/proc/meminfo") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Hugepagesize"))
