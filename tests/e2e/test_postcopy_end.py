"""A post-copy's stream breaks when all of the memory has been sent, and not yet come.

QEMU 10.0 takes its migration for failed then. It sets the source's old copy running, whatever holds its disks.
Whether the destination has got all of the memory is a matter of luck.
"""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import pytest

from sterna.lab import links, sabotage
from sterna.lab.errors import LabError
from tests.e2e.conftest import FINAL, Fleet

pytestmark = pytest.mark.lab
LIMIT = 10 << 20
LITTLE = 4 << 20
"""Less than the sockets of a stream hold."""


def of_source(fleet: Fleet, vm: str) -> dict[str, Any]:
    """What the source's QEMU says of the migration."""
    said = fleet.lab.hosts["host1"].virsh("qemu-monitor-command", vm, '{"execute":"query-migrate"}')
    return dict(json.loads(said)["return"])


def until_little_remains(fleet: Fleet, vm: str) -> None:
    """Asked without a pause: the moment is short."""
    deadline = time.monotonic() + 60
    while of_source(fleet, vm)["ram"]["remaining"] >= LITTLE:
        assert time.monotonic() < deadline, "it never held"


def help_libvirt(fleet: Fleet, migration: str) -> None:
    """Do what Sterna asks for where libvirt keeps the job of a QEMU that is gone: restart its daemon."""
    asked = "restart libvirtd on this host"

    def over() -> bool:
        return fleet.show(migration)["status"] in FINAL or asked in json.dumps(fleet.timeline(migration))

    fleet.eventually(over, 90)
    if fleet.show(migration)["status"] not in FINAL:
        sabotage.kill_libvirtd(fleet.lab, "host1")
        sabotage.start_libvirtd(fleet.lab, "host1")


@pytest.mark.parametrize("disk", ["iscsi", "shared"])
def test_the_old_copy_is_ended_at_once_and_the_migration_ends(fleet: Fleet, disk: str) -> None:
    """An iSCSI disk has no lock: with a file on shared storage the old copy's QEMU fails by itself."""
    guest = fleet.lab.create_vm(f"end-{disk}", "host1", memory_mib=192, dirty_mib_s=10, disks=(disk,))
    boot = guest.status().boot_id
    migration = fleet.started(guest.name, "host2", may=["postcopy"], bandwidth_bytes_s=LIMIT)
    fleet.wait(migration, until=("migrating",))
    fleet.eventually(lambda: of_source(fleet, guest.name).get("ram", {}).get("dirty-sync-count", 0) >= 1)
    fleet.api.post(f"/v1/migrations/{migration}/post-copy").raise_for_status()
    fleet.wait(migration, until=("post-copy",))
    link = links.stream_link(fleet.lab.hosts["host1"], fleet.lab.hosts["host2"])
    arriving = sabotage.qemu(fleet.lab, "host2", guest.name).pids()
    until_little_remains(fleet, guest.name)
    for pid in arriving:
        os.kill(pid, signal.SIGSTOP)
    fleet.eventually(lambda: of_source(fleet, guest.name)["ram"]["remaining"] == 0)
    links.cut(link)
    for pid in arriving:
        os.kill(pid, signal.SIGCONT)
    try:
        help_libvirt(fleet, migration)
        ended = fleet.wait(migration, timeout=60)
    finally:
        links.mend(link)
    fleet.wait_closed(migration)
    notes = fleet.timeline(migration)
    assert ended["status"] == "completed", ended
    assert any(entry["name"] == "saw-resumed" for entry in notes), "QEMU did not set the old copy running"
    with pytest.raises(LabError):
        fleet.lab.hosts["host1"].virsh("domstate", guest.name)
    if fleet.lab.hosts_running(guest.name):
        after = guest.status()
        assert after.clean and after.boot_id == boot
    else:
        assert "shut off" in fleet.lab.hosts["host2"].virsh("domstate", guest.name)
    fleet.remove(guest)
