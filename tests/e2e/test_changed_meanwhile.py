"""Somebody changes a running VM by libvirt's own tools while its destination prepares: it is not copied."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sterna.lab.guest_view import Guest
from sterna.lab.places import SHARED
from tests.e2e.conftest import Fleet
from tests.e2e.files import plan

pytestmark = pytest.mark.lab

OVERLAY = f"{SHARED}/t-overlay.qcow2"


@pytest.fixture
def guest(fleet: Fleet) -> Iterator[Guest]:
    guest = fleet.lab.create_vm("edited", "host1", memory_mib=192, dirty_mib_s=2, disks=("shared",), pace="busy")
    yield guest
    fleet.remove(guest)


def test_a_snapshot_without_metadata(fleet: Fleet, guest: Guest, no_faults: None) -> None:
    """libvirt has no record of it, and its base would be the guest's disk on the destination."""
    host1 = fleet.lab.hosts["host1"]
    fleet.fault("host2", [{"step": "P10", "moment": "before", "action": "temporary"}])  # until it is taken away
    migration = fleet.started(guest.name, "host2")
    fleet.wait_for_row("host2", "connect-volumes", migration)
    where = ("--diskspec", f"vda,file={OVERLAY}")
    host1.virsh("snapshot-create-as", guest.name, "s1", "--disk-only", "--no-metadata", *where)
    fleet.fault("host2", None)
    ended = fleet.wait(migration)
    fleet.wait_closed(migration)
    assert ended["status"] == "failed"
    assert f"vda is {OVERLAY}" in ended["reason"]
    assert fleet.lab.hosts_running(guest.name) == ["host1"]
    assert OVERLAY in host1.virsh("domblklist", guest.name)
    assert guest.status().clean
    host1.virsh("blockcommit", guest.name, "vda", "--active", "--pivot", "--wait")
    host1.run(["rm", OVERLAY])
    assert plan(fleet, guest.name) == []
    migration = fleet.started(guest.name, "host2")
    assert fleet.wait(migration)["status"] == "completed"
    fleet.wait_closed(migration)
    assert guest.status().clean
