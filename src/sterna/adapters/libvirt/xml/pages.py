"""How many huge pages a domain needs, of which size and on which NUMA nodes. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sterna.adapters.libvirt.xml.metadata import Element
from sterna.adapters.libvirt.xml.sizes import size_of
from sterna.domain.references import numbers

_ORDINARY_KIB = 4


def pages(domain: Element) -> Iterator[tuple[int, int, str]]:
    """(pages, KiB each, host nodes or ''), one for each size and place."""
    found: dict[tuple[int, str], int] = {}
    for cell, size_bytes in _cells(domain):
        page_kib = _page_of(domain, cell)
        if page_kib is not None:
            key = page_kib, _host_nodes(domain, cell)
            found[key] = found.get(key, 0) + -(-size_bytes // (page_kib * 1024))
    for device in domain.iterfind("devices/memory"):
        page = size_of(device.find("source/pagesize"))
        page_kib = page // 1024 if page else _page_of(domain, int(device.findtext("target/node", "0")))
        size = size_of(device.find("target/size"))
        if page_kib is not None and page_kib > _ORDINARY_KIB and size:
            key = page_kib, device.findtext("source/nodemask", "")
            found[key] = found.get(key, 0) + -(-size // (page_kib * 1024))
    for (page_kib, nodes), count in found.items():
        yield count, page_kib, nodes


def _cells(domain: Element) -> Iterator[tuple[int, int]]:
    """The guest's NUMA cells with their bytes; one of all its memory where it has none."""
    cells = domain.findall("cpu/numa/cell")
    for position, cell in enumerate(cells):
        unit = {"unit": cell.get("unit", "KiB")}
        yield int(cell.get("id", position)), size_of(cell.get("memory"), **unit) or 0
    if not cells:
        devices = sum(size_of(d.find("target/size")) or 0 for d in domain.iterfind("devices/memory"))
        yield 0, (size_of(domain.find("memory")) or 0) - devices


def _page_of(domain: Element, cell: int) -> int | None:
    """KiB of the huge pages that a cell is in; None for ordinary ones."""
    backing = domain.find("memoryBacking/hugepages")
    if backing is None:
        return None
    named = backing.findall("page")
    if not named:
        return usual_kib()
    for page in named:
        if page.get("nodeset") and cell in numbers(page.get("nodeset", "")):
            return _huge(page)
    return next((_huge(page) for page in named if not page.get("nodeset")), None)


def _huge(page: Element) -> int | None:
    size = size_of(page.get("size"), unit=page.get("unit", "KiB")) or 0
    return size // 1024 if size // 1024 > _ORDINARY_KIB else None


def _host_nodes(domain: Element, cell: int) -> str:
    """Where its memory must be: only a strict binding keeps it from being anywhere."""
    for node in domain.iterfind("numatune/memnode"):
        if node.get("cellid") == str(cell):
            return node.get("nodeset", "") if node.get("mode", "strict") == "strict" else ""
    memory = domain.find("numatune/memory")
    if memory is None or memory.get("mode", "strict") != "strict":
        return ""
    return memory.get("nodeset", "")


def usual_kib() -> int:
    """This kernel's default size of huge pages."""
    with Path("/proc/meminfo").open() as lines:
        return next((int(line.split()[1]) for line in lines if line.startswith("Hugepagesize")), 2048)
