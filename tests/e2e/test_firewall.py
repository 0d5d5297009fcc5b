"""The stream's ports, closed by a firewall."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from sterna.lab.guest_view import Guest
from sterna.lab.links import drop, mend, stream_link
from tests.e2e.conftest import Fleet
from tests.e2e.files import plan, refused

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def guest(fleet: Fleet) -> Iterator[Guest]:
    guest = fleet.lab.create_vm("wall", "host1", memory_mib=192, dirty_mib_s=2, disks=("shared",), pace="calm")
    yield guest
    fleet.remove(guest)


def test_a_firewall_that_drops_the_stream_is_found_in_seconds(fleet: Fleet, guest: Guest) -> None:
    link = stream_link(fleet.lab.hosts["host1"], fleet.lab.hosts["host2"])
    drop(link)
    try:
        began = time.monotonic()
        (said,) = refused(fleet, guest.name)
        assert time.monotonic() - began < 12
        assert said["code"] == "stream-blocked"
        assert "49152-49215" in said["fix"]
    finally:
        mend(link)
    assert plan(fleet, guest.name) == []


def test_a_firewall_that_is_closed_while_the_destination_prepares(
    fleet: Fleet, guest: Guest, no_faults: None
) -> None:
    fleet.fault("host2", [{"step": "P10", "moment": "before", "action": "temporary"}])
    migration = fleet.started(guest.name, "host2")
    fleet.wait_for_row("host2", "connect-volumes", migration)
    link = stream_link(fleet.lab.hosts["host1"], fleet.lab.hosts["host2"])
    drop(link)
    try:
        fleet.fault("host2", None)
        ended = fleet.wait(migration, timeout=40)
        assert ended["status"] == "failed"
        assert "no memory stream reaches" in ended["reason"]
        fleet.wait_closed(migration)
    finally:
        mend(link)
