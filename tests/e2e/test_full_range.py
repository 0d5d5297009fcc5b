"""Every port of libvirt's range is taken by another migration: the next one waits for it, and then goes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sterna.lab import sabotage
from tests.e2e.conftest import Fleet

pytestmark = pytest.mark.lab

CONF = "/etc/libvirt/qemu.conf"


@pytest.fixture
def two_ports(fleet: Fleet) -> Iterator[None]:
    """host2's libvirt has two ports for streams (it refuses to have one)."""
    host = fleet.lab.hosts["host2"]
    original = host.run(["cat", CONF]).stdout

    def set_to(text: str) -> None:
        host.run(["sh", "-c", f"cat >{CONF}"], stdin=text)
        sabotage.kill_libvirtd(fleet.lab, "host2")
        sabotage.start_libvirtd(fleet.lab, "host2")
        fleet.eventually(lambda: host.virsh("uri", check=False) != "")
        fleet.lab.wait_ready()

    set_to(f"{original}migration_port_min = 49300\nmigration_port_max = 49301\n")
    yield
    set_to(original)


def test_the_second_migration_waits(fleet: Fleet, two_ports: None) -> None:
    first, second = (
        fleet.lab.create_vm(name, "host1", memory_mib=192, dirty_mib_s=2, disks=(disk,), pace="calm")
        for name, disk in (("one", "local"), ("two", "shared"))  # a local disk has a stream of its own
    )
    try:
        slow = fleet.started(first.name, "host2", bandwidth_bytes_s=4 << 20)
        fleet.wait_for_row("host1", "probe-stream", slow)
        waiting = fleet.started(second.name, "host2")
        fleet.eventually(
            lambda: "49300-49301, is taken" in str(fleet.timeline(waiting)) + str(fleet.show(waiting)), 20
        )
        fleet.wait_for_row("host1", "copy-started", slow)
        assert fleet.show(slow)["status"] == "migrating"
        faster = f"/v1/migrations/{slow}/tune"
        fleet.eventually(lambda: fleet.api.post(faster, json={"bandwidth_bytes_s": None}).status_code < 300)
        for migration, guest in ((slow, first), (waiting, second)):
            assert fleet.wait(migration)["status"] == "completed", fleet.show(migration)
            fleet.wait_closed(migration)
            assert fleet.lab.hosts_running(guest.name) == ["host2"]
            assert guest.status(timeout=60).clean
    finally:
        for guest in (first, second):
            fleet.remove(guest)
