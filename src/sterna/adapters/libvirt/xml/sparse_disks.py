"""Which disks of a definition may have holes, and how the destination makes them. Pure. See `zeros.py`."""

from __future__ import annotations

from sterna.adapters.libvirt.xml.metadata import Element


def refuse_holes(domain: Element) -> set[str]:
    """The target names of disks that their definition forbids to discard."""
    solid = [disk for disk in domain.iterfind("devices/disk") if disk.find("driver[@discard='ignore']") is not None]
    return {str(target.get("dev")) for disk in solid for target in disk.iterfind("target")}


def let_zeros_be_holes(disk: Element) -> None:
    """In the <disk> of the running guest: QEMU makes holes in a raw image only where it may discard. The persistent
    definition keeps what it says."""
    driver = disk.find("driver")
    if driver is not None and driver.get("type", "raw") == "raw" and driver.get("discard") is None:
        driver.set("discard", "unmap")
