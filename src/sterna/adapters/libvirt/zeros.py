"""Zeros of a disk that is copied: looked for by the source, left out by the destination (`xml/sparse_disks.py`).

Measured with libvirt 11.3 and QEMU 10.0, 8 of 96 MiB written: without this a raw image and a qcow2 with
`preallocation=metadata` arrive with 96 MiB allocated; with it with 8. A raw image needs `discard='unmap'` as well.
"""

from __future__ import annotations

import libvirt

from sterna.adapters.libvirt.session.connection import Connect

_SINCE = 10_009_000
"""libvirt 10.9.0: `migrate_disks_detect_zeroes`."""


def finds_zeros(conn: Connect) -> bool:
    """Can this host's libvirt look for zeros in the disks it copies? Raises libvirtError."""
    known = hasattr(libvirt, "VIR_MIGRATE_PARAM_MIGRATE_DISKS_DETECT_ZEROES")
    return known and conn.getLibVersion() >= _SINCE
