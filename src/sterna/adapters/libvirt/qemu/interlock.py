"""The interlock: once a guest's state has left for the destination, this host's QEMU cannot run it again.

libvirt resumes the source's guest as soon as it believes that a hand-over failed. It also does so if it only lost
the answer of a destination that runs the guest. Then two copies run: libvirt leaves the prevention to "the lock
manager plugins", which do not cover volumes over the network. So before the copy the source's QEMU gets something
that it cannot reopen after a hand-over.

At the hand-over QEMU releases all its block nodes. Before it lets a guest run on, it reopens all of them. The
interlock is one more node that no device uses: an image in anonymous memory, opened for writing. Once it is open,
the descriptor through which it could be written to is taken away from QEMU. Before the hand-over nothing needs it.
After it, the node cannot be reopened. So QEMU refuses `cont`, whoever asks, until the node is deleted. No process
of Sterna has to run for that. Seen with QEMU 10.0 (docs/lab-notebook/field-notes.md, and the real faults "resumed,
no file" of tests/chaos).
"""

from __future__ import annotations

import contextlib
import os
import struct
from typing import Any

from sterna.adapters.libvirt.qemu.monitor import Refused, ask

NODE = "sterna-interlock"
_FDSET = 0x5354
"""libvirt numbers its own sets from 0."""
_CLUSTER_BITS = 16


def engage(domain: Any) -> None:
    """Set it on a running guest, or set it again. Raises Refused, leaving nothing behind; libvirtError."""
    # A try that died half-way may have left descriptors, or the node with the one through which it can be written
    # to: that stops nothing, and no look at it tells.
    release(domain)
    memory = os.memfd_create(NODE)
    try:
        os.write(memory, _empty_image())
        _give(domain, memory, os.O_RDONLY)
        writable = _give(domain, memory, os.O_RDWR)
    finally:
        os.close(memory)
    image = {"driver": "file", "filename": f"/dev/fdset/{_FDSET}", "read-only": False, "locking": "off"}
    image["auto-read-only"] = True  # the file is opened for writing only while something may write
    try:
        ask(domain, "blockdev-add", driver="qcow2", node_name=NODE, read_only=False, file=image)
        ask(domain, "remove-fd", fdset_id=_FDSET, fd=writable)
    except Refused:
        release(domain)
        raise


def engaged(domain: Any) -> bool:
    """Is it set, or half set? Raises Refused, libvirtError."""
    return any(node.get("node-name") == NODE for node in ask(domain, "query-named-block-nodes", flat=True))


def release(domain: Any) -> None:
    """Take it away: QEMU may let the guest run. Missing is not an error. Raises libvirtError."""
    for command, arguments in (("blockdev-del", {"node_name": NODE}), ("remove-fd", {"fdset_id": _FDSET})):
        with contextlib.suppress(Refused):  # it is not there
            ask(domain, command, **arguments)
    if engaged(domain):
        raise Refused("QEMU does not release the interlock")


def _give(domain: Any, memory: int, mode: int) -> int:
    """One more descriptor of that memory in QEMU's set; QEMU's number for it. It looks for one of the same mode."""
    descriptor = os.open(f"/proc/self/fd/{memory}", mode)
    try:
        return int(ask(domain, "add-fd", descriptor=descriptor, fdset_id=_FDSET)["fd"])
    finally:
        os.close(descriptor)


def _empty_image() -> bytes:
    """A qcow2 image of 64 KiB without data: header, refcount table, one refcount block, and the L1 table."""
    cluster = 1 << _CLUSTER_BITS
    header = struct.pack(
        ">4sIQIIQIIQQIIQQQQII",
        b"QFI\xfb", 3, 0, 0,  # magic, version, no backing file
        _CLUSTER_BITS, cluster, 0,  # cluster size, virtual size in bytes, no encryption
        1, 3 * cluster,  # L1 table: entries, offset
        cluster, 1, 0, 0,  # refcount table: offset, clusters; no snapshots
        0, 0, 0,  # features
        4, 104,  # refcounts of 16 bits, header length
    )  # fmt: skip
    table = struct.pack(">Q", 2 * cluster)
    counts = struct.pack(">4H", 1, 1, 1, 1)
    return b"".join(part.ljust(cluster, b"\0") for part in (header, table, counts, b""))
