"""Proof that a LUN can be reached: QEMU's own initiator logs in and reads its size, as the guest's QEMU will."""

from __future__ import annotations

import json

from sterna.adapters.native.command import run
from sterna.domain.errors import Permanent, Temporary
from sterna.domain.model import Disk, IscsiSource

_PROOF_S = 10.0
"""A login and one READ CAPACITY; libiscsi itself would try for ever."""


async def prove_lun(disk: Disk, source: IscsiSource, *, qemu_img: str) -> None:
    """Log in as `source.initiator`, read-only, and compare the size with the VM's disk.

    Raises Temporary (no answer, not admitted yet) or Permanent (another size, no iSCSI in this qemu-img).
    """
    options = {
        "driver": "iscsi",
        "transport": "tcp",
        "portal": f"{source.portal_host}:{source.portal_port}",
        "target": source.target,
        "lun": str(source.lun),
        "initiator-name": source.initiator or "",
    }
    # A comma ends a value in --image-opts; doubled, it is a comma.
    image = ",".join(f"{key}={value.replace(',', ',,')}" for key, value in options.items())
    done = await run([qemu_img, "info", "--output=json", "--image-opts", image], limit_s=_PROOF_S)
    if done.code != 0:
        if "Unknown driver" in done.words or "Unknown protocol" in done.words:
            raise Permanent(f"qemu-img cannot speak iSCSI: {done.words}", fix="install qemu-block-extra")
        fix = "see that the portal is reachable from this host and that the initiator is admitted"
        raise Temporary(f"disk {disk.target}: {source.target} cannot be opened: {done.words}", fix=fix)
    size = int(json.loads(done.out)["virtual-size"])
    if disk.capacity_bytes is not None and size != disk.capacity_bytes:
        raise Permanent(f"disk {disk.target}: LUN has {size} bytes here, the VM's disk {disk.capacity_bytes}")
