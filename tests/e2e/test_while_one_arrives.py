"""While a guest is on its way to a host, others are planned and moved there, and an audit is clean."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Fleet
from tests.e2e.files import plan

pytestmark = pytest.mark.lab


def test_others_move_to_the_same_host_meanwhile(fleet: Fleet) -> None:
    slow, quick = (
        fleet.lab.create_vm(name, "host1", memory_mib=192, dirty_mib_s=2, disks=("local", "luks"), pace="calm")
        for name in ("slow", "quick")
    )
    try:
        first = fleet.started(slow.name, "host2", bandwidth_bytes_s=1 << 20)
        fleet.wait_for_row("host1", "copy-started", first)
        assert plan(fleet, quick.name) == []
        audit = fleet.api.post("/v1/audit", json={}).json()
        assert audit["clean"] and audit["complete"], audit
        second = fleet.started(quick.name, "host2")
        assert fleet.wait(second)["status"] == "completed", fleet.show(second)
        assert fleet.show(first)["status"] == "migrating"
        assert fleet.lab.hosts_running(quick.name) == ["host2"]
        back = fleet.started(quick.name, "host1")
        assert fleet.wait(back)["status"] == "completed", fleet.show(back)
        assert fleet.show(first)["status"] == "migrating"
        assert fleet.api.post(f"/v1/migrations/{first}/abort").status_code < 300
        assert fleet.wait(first)["status"] == "cancelled"
        fleet.wait_closed(first)
        assert fleet.lab.hosts_running(slow.name) == fleet.lab.hosts_running(quick.name) == ["host1"]
        assert slow.status(timeout=60).clean and quick.status(timeout=60).clean
    finally:
        for guest in (slow, quick):
            fleet.remove(guest)
