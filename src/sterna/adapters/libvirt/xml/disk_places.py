"""Where a disk's bytes are, in a <disk> of libvirt's XML: compared, and changed where the destination reaches them
differently. Pure. Called by `render.py`; the form of each kind of disk is in `disk_forms.py`.
"""

from __future__ import annotations

from sterna.adapters.libvirt.xml.describe import read_disk
from sterna.adapters.libvirt.xml.disk_forms import write_way
from sterna.adapters.libvirt.xml.metadata import Element
from sterna.domain.copying import DestinationDisk
from sterna.domain.model import Disk


def same_place(one: Disk, other: Disk) -> bool:
    """Do two definitions of a disk name the same bytes? By what way they are reached is not compared."""
    return one.place == other.place


def replace_disk(disk: Element, planned: DestinationDisk) -> None:
    """Let a <disk> name what the destination planned. Raises Permanent where it is another kind of disk."""
    write_way(disk, read_disk(disk), planned)
