"""Media that are only on the source (seed and config drives), sent by the agents: libvirt copies nothing read-only.

They go in pieces into files that P8 made, and are undone (R7) and removed at the source (F10) as copied disks are.
"""

from __future__ import annotations

from sterna.domain.model import Disk

LARGEST_MEDIUM = 128 << 20
"""Twice the largest config drive that Nova makes. An installation's CD is larger, and is not needed any more."""
PIECE_BYTES = 256 << 10
"""Half of what one message may carry, in base64."""


def is_plain(disk: Disk) -> bool:
    """Is the medium one file that is sent as it is?"""
    return disk.format == "raw" and not disk.files[1:]


def size_of(disk: Disk) -> int:
    """In bytes, as far as it is known."""
    return disk.length_bytes or disk.capacity_bytes or 0
