"""A real host loses its agent, its libvirtd and its guests at once, is declared dead, and comes back."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from sterna.lab import sabotage
from sterna.lab.guest_view import Guest
from tests.e2e.conftest import Fleet

pytestmark = pytest.mark.lab

SLOW = 48 << 20  # bytes/s: the copy of 256 MiB lasts some seconds


@pytest.fixture(scope="module")
def empty(fleet: Fleet) -> dict[str, dict[str, Any]]:
    """Both hosts without any guest."""
    return fleet.snapshots()


@pytest.fixture
def guest(fleet: Fleet, empty: dict[str, dict[str, Any]]) -> Iterator[Guest]:
    """A new guest on host1."""
    guest = fleet.lab.create_vm(
        "widow", "host1", memory_mib=256, dirty_mib_s=10, disks=("shared", "local", "iscsi")
    )
    yield guest
    fleet.remove(guest)


def power_cut(fleet: Fleet, host: str) -> None:
    fleet.lab.kill_agent(host, signal.SIGKILL)
    sabotage.kill_libvirtd(fleet.lab, host)
    sabotage.kill_all(fleet.lab.hosts[host].inside, lambda argv: "qemu-system" in argv[0])


def power_back(fleet: Fleet, host: str) -> None:
    sabotage.start_libvirtd(fleet.lab, host)
    fleet.lab.start_agent(host)
    fleet.eventually(lambda: fleet.api.get(f"/v1/hosts/{host}").json()["state"] == "up")


def declare(fleet: Fleet, host: str, **body: object) -> httpx2.Response:
    return fleet.api.post(f"/v1/hosts/{host}/declare-dead", json={"fenced": True, **body})


def until_down(fleet: Fleet, host: str) -> None:
    refused = declare(fleet, host)
    assert refused.status_code == 422, refused.text
    assert [r["code"] for r in refused.json()["reasons"]] == ["host-answers"]  # its last beacon is fresh
    fleet.eventually(lambda: fleet.api.get(f"/v1/hosts/{host}").json()["state"] == "down")
    unsure = declare(fleet, host, fenced=False)
    assert [r["code"] for r in unsure.json()["reasons"]] == ["fencing-not-confirmed"]


def declared(fleet: Fleet, host: str, will: str) -> None:
    (planned,) = fleet.api.get(f"/v1/hosts/{host}/declare-dead").json()["migrations"]
    assert planned["will"].startswith(will), planned
    answer = declare(fleet, host)
    assert answer.status_code == 200, answer.text
    assert fleet.api.get(f"/v1/hosts/{host}").json()["state"] == "dead"


def test_the_source_dies_while_it_copies(fleet: Fleet, guest: Guest, empty: dict[str, dict[str, Any]]) -> None:
    migration = fleet.started(guest.name, "host2", bandwidth_bytes_s=SLOW)
    fleet.wait_for_row("host1", "iteration", migration)
    power_cut(fleet, "host1")
    until_down(fleet, "host1")
    declared(fleet, "host1", "remove all that was prepared here")
    ended = fleet.wait(migration)
    assert ended["status"] == "failed" and "host1 was declared dead" in ended["reason"]
    fleet.eventually(lambda: fleet.lab.snapshot("host2") == empty["host2"])
    power_back(fleet, "host1")
    fleet.wait_closed(migration)
    assert fleet.wait(migration)["status"] == "failed"
    assert fleet.lab.hosts_running(guest.name) == []
    snapshot: dict[str, Any] = fleet.lab.snapshot("host1")
    assert snapshot["domains"][guest.name]["state"] == "shut off"
    back = fleet.api.get("/v1/hosts/host1").json()
    assert back["declared_dead_at"] and back["back_at"]
    assert fleet.api.post("/v1/hosts/host1/declare-alive").json()["declared_dead_at"] is None


def test_the_source_dies_when_the_guest_has_arrived(
    fleet: Fleet, guest: Guest, empty: dict[str, dict[str, Any]]
) -> None:
    boot = guest.status().boot_id
    fleet.fault("host1", [{"step": "F1", "moment": "before", "action": "hang"}])
    migration = fleet.started(guest.name, "host2")
    fleet.wait_for_row("host1", "copy-succeeded", migration)
    power_cut(fleet, "host1")
    fleet.fault("host1", None)
    until_down(fleet, "host1")
    declared(fleet, "host1", "take the guest over")
    assert fleet.wait(migration)["status"] == "completed"
    power_back(fleet, "host1")
    fleet.wait_closed(migration)
    assert fleet.lab.snapshot("host1") == empty["host1"]
    assert fleet.lab.hosts_running(guest.name) == ["host2"]
    again = fleet.started(guest.name, "host1")
    assert fleet.wait(again)["status"] == "completed"
    status = guest.status()
    assert status.boot_id == boot
    assert status.clean, status.last_error
    fleet.wait_closed(again)
    assert fleet.api.post("/v1/audit", json={}, timeout=60).json()["clean"]


def test_the_destination_dies_while_it_is_copied_to(
    fleet: Fleet, guest: Guest, empty: dict[str, dict[str, Any]]
) -> None:
    before = fleet.snapshots()
    migration = fleet.started(guest.name, "host2", bandwidth_bytes_s=SLOW)
    fleet.wait_for_row("host1", "iteration", migration)
    power_cut(fleet, "host2")
    until_down(fleet, "host2")
    fleet.wait(migration, until={"rolling-back"})
    fleet.eventually(lambda: "waiting for host2" in fleet.show(migration)["reason"], 60)
    declared(fleet, "host2", "roll back")
    ended = fleet.wait(migration)
    assert ended["status"] == "failed" and "host2 was declared dead" in ended["reason"]
    assert guest.status().clean
    power_back(fleet, "host2")
    fleet.wait_closed(migration)
    fleet.eventually(lambda: fleet.snapshots() == before)
    again = fleet.started(guest.name, "host2")
    assert fleet.wait(again)["status"] == "completed"
    assert guest.status().clean
    fleet.wait_closed(again)
