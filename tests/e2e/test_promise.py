"""The promise on the real lab: planned before, tuned meanwhile, ended in time or given up without a trace."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.e2e.conftest import Fleet

pytestmark = pytest.mark.lab
MIB = 2**20
LINK = 40 * MIB
FAST = 200 * MIB
"""Well above what QEMU's samples say of a guest that writes 10 MiB/s and may still be booting (field notes)."""


def timed(fleet: Fleet, migration: str, began: float) -> tuple[dict[str, Any], float]:
    """How it ended, and seconds from the request."""
    ended = fleet.wait(migration)
    return ended, time.monotonic() - began


def notes(fleet: Fleet, migration: str, name: str) -> list[dict[str, Any]]:
    return [i for i in fleet.timeline(migration) if i["name"] == name]


def test_a_plan_is_kept_by_the_migration(fleet: Fleet) -> None:
    guest = fleet.lab.create_vm("planned", "host1", memory_mib=256, dirty_mib_s=10)
    before = fleet.snapshots()
    wanted = {"vm": "planned", "destination": "host2", "bandwidth_bytes_s": FAST}
    plan = fleet.api.post("/v1/plans", json=wanted).json()
    assert plan["blockers"] == [], plan
    assert 2 * MIB < plan["load"]["dirty_bytes"] < FAST / 2
    assert fleet.snapshots() == before
    foreseen = plan["forecasts"][0]
    assert foreseen["ends"], plan
    migration = fleet.started("planned", "host2", bandwidth_bytes_s=FAST)
    ended = fleet.wait(migration)
    assert ended["status"] == "completed"
    print(f"forecast {foreseen['total_ms']:.0f} ms, actual {ended['report']['total_ms']:.0f} ms")
    assert guest.status().clean
    fleet.wait_closed(migration)
    fleet.remove(guest)


def test_a_running_copy_is_tuned(fleet: Fleet) -> None:
    guest = fleet.lab.create_vm("tuned", "host1", memory_mib=256, dirty_mib_s=5)
    migration = fleet.started("tuned", "host2", bandwidth_bytes_s=2 * MIB)
    fleet.wait_for_row("host1", "iteration", migration)
    began = time.monotonic()
    answer = fleet.api.post(f"/v1/migrations/{migration}/tune", json={"bandwidth_bytes_s": None})
    assert answer.status_code == 202, answer.text
    ended, seconds = timed(fleet, migration, began)
    assert ended["status"] == "completed"
    assert seconds < 30  # at 2 MiB/s its memory alone takes a minute
    assert guest.status().clean
    fleet.wait_closed(migration)
    fleet.remove(guest)


def test_a_guest_that_writes_faster_than_the_link_ends_in_time_by_post_copy(fleet: Fleet) -> None:
    guest = fleet.lab.create_vm("busy", "host1", memory_mib=384, dirty_mib_s=60)
    boot, began = guest.status().boot_id, time.monotonic()
    migration = fleet.started("busy", "host2", bandwidth_bytes_s=LINK, finish_within_s=60, may=["postcopy"])
    ended, seconds = timed(fleet, migration, began)
    assert ended["status"] == "completed", ended
    print(f"1.5 x link, 60 s: ended after {seconds:.1f} s, downtime {ended['report']['downtime_ms']} ms")
    assert seconds < 60
    assert fleet.lab.hosts_running("busy") == ["host2"]
    after = guest.status()
    assert after.clean and after.boot_id == boot
    assert notes(fleet, migration, "steered")
    fleet.wait_closed(migration)
    fleet.remove(guest)


def test_a_guest_that_may_not_be_touched_is_given_up_at_the_deadline_and_runs_on(fleet: Fleet) -> None:
    guest = fleet.lab.create_vm("proud", "host1", memory_mib=384, dirty_mib_s=60)
    boot, before, began = guest.status().boot_id, fleet.snapshots(), time.monotonic()
    migration = fleet.started("proud", "host2", bandwidth_bytes_s=LINK, finish_within_s=20, may=[])
    ended, seconds = timed(fleet, migration, began)
    assert ended["status"] == "failed"
    assert "given up" in ended["error"]["message"]
    assert seconds < 25
    assert fleet.lab.hosts_running("proud") == ["host1"]
    fleet.wait_closed(migration)
    assert fleet.snapshots() == before
    after = guest.status()
    assert after.clean and after.boot_id == boot
    # and with leave to stand still, it goes
    began = time.monotonic()
    again = fleet.started("proud", "host2", bandwidth_bytes_s=LINK, finish_within_s=25, may=["pause"])
    ended, seconds = timed(fleet, again, began)
    assert ended["status"] == "completed"
    print(f"may pause, 25 s: ended after {seconds:.1f} s, downtime {ended['report']['downtime_ms']} ms")
    assert seconds < 25
    assert guest.status().clean
    fleet.wait_closed(again)
    fleet.remove(guest)


def test_a_guest_that_may_be_slowed_down_converges(fleet: Fleet) -> None:
    guest = fleet.lab.create_vm("slowed", "host1", memory_mib=384, dirty_mib_s=60)
    migration = fleet.started("slowed", "host2", bandwidth_bytes_s=LINK, may=["throttle"])
    ended = fleet.wait(migration)
    assert ended["status"] == "completed"
    assert ended["report"]["downtime_ms"] <= 500
    print(f"throttled: {ended['report']['total_ms']:.0f} ms, downtime {ended['report']['downtime_ms']} ms")
    assert guest.status().clean
    fleet.wait_closed(migration)
    fleet.remove(guest)
