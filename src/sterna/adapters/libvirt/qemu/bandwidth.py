"""The bandwidth limit shared by the disks of one copy: libvirt gives all of it to each of them. Blocking."""

from __future__ import annotations

from typing import Any

from sterna.adapters.libvirt.qemu.monitor import ask


def share(domain: Any, limit_bytes_s: int) -> None:
    """Give each mirror that is not yet whole its part of the limit; the last one gets all.

    Raises libvirtError, Refused.

    A mirror that is whole only follows the guest's writes and keeps what it had. To be called again as they end.
    """
    behind = [job for job in ask(domain, "query-block-jobs") if job["type"] == "mirror" and not job.get("ready")]
    for job in behind:
        part = max(1, limit_bytes_s // len(behind))
        if job["speed"] != part:
            ask(domain, "block-job-set-speed", device=job["device"], speed=part)
