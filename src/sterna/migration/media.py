"""Media that are only on the source (seed and config drives), sent by the agents: libvirt copies nothing read-only.

They go in pieces into files that P8 made, and are undone (R7) and removed at the source (F10) as copied disks are.
"""

from __future__ import annotations

LARGEST_MEDIUM = 128 << 20
"""Twice the largest config drive that Nova makes. An installation's CD is larger, and is not needed any more."""
PIECE_BYTES = 256 << 10
"""Half of what one message may carry, in base64."""
