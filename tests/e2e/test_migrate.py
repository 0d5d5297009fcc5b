"""The main job on real parts, compared in the world: both hypervisors, br-int, the target, the files."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sterna.lab.guest_view import Guest
from sterna.migration.flow import DESTINATION, SOURCE
from tests.e2e.conftest import Fleet

pytestmark = pytest.mark.lab

ROUNDS = 20
WRITTEN_BYTES = 4 << 20


GuestAndEmpty = tuple[Guest, dict[str, dict[str, Any]]]
"""A guest, and both hosts without it."""


@pytest.fixture(scope="module")
def guest_and_empty(fleet: Fleet) -> Iterator[GuestAndEmpty]:
    """One guest with a shared, a local and an iSCSI disk, writing memory and disks; and host1 without it."""
    empty = fleet.snapshots()
    guest = fleet.lab.create_vm("tern", "host1", memory_mib=256, dirty_mib_s=20, disks=("shared", "local", "iscsi"))
    yield guest, empty
    fleet.remove(guest)


def where(fleet: Fleet, guest: Guest) -> str:
    running = fleet.lab.hosts_running(guest.name)
    assert len(running) == 1, f"{guest.name} runs on {running}"
    return running[0]


def test_twenty_times_back_and_forth(fleet: Fleet, guest_and_empty: GuestAndEmpty) -> None:
    guest, empty = guest_and_empty
    before = guest.status()
    with fleet.lab.ping(guest) as ping:
        for _ in range(ROUNDS):
            here = where(fleet, guest)
            there = fleet.other(here)
            migration = fleet.started(guest.name, there)
            assert fleet.wait(migration)["status"] == "completed"
            assert where(fleet, guest) == there
            assert fleet.lab.snapshot(here) == empty[here]
    after = guest.status()
    assert after.boot_id == before.boot_id
    assert after.clean, after.last_error
    assert after.pages_verified > before.pages_verified
    assert after.blocks_verified > before.blocks_verified
    assert ping.longest_gap_ms < 1000
    # thin stays thin: the guest writes 4 MiB of its 1 GiB disk, and twenty copies have not filled the rest
    files = fleet.lab.allocated_bytes(where(fleet, guest))
    assert 0 < sum(files.values()) < 3 * WRITTEN_BYTES, files


@contextmanager
def slow_link(fleet: Fleet, mib_s: int) -> Iterator[None]:
    """Its last pass takes the guest a while."""
    inside = [host.inside for host in fleet.lab.hosts.values()]
    shaped = ("rate", f"{mib_s * 8 << 20}bit", "burst", "256kb", "latency", "50ms")
    for host in inside:
        host.run(["tc", "qdisc", "add", "dev", "mgmt0", "root", "tbf", *shaped])
    try:
        yield
    finally:
        for host in inside:
            host.run(["tc", "qdisc", "del", "dev", "mgmt0", "root"])


def test_what_is_sent_to_it_during_its_pause_waits_for_it_on_the_new_host(
    fleet: Fleet, guest_and_empty: GuestAndEmpty
) -> None:
    """By libvirt alone it is lost: as many pings as are sent during the pause."""
    guest, _ = guest_and_empty
    with slow_link(fleet, 60), fleet.lab.ping(guest) as ping:
        migration = fleet.started(guest.name, fleet.other(where(fleet, guest)))
        assert fleet.wait(migration)["status"] == "completed"
    downtime_ms = fleet.show(migration)["report"]["downtime_ms"]
    print(f"\n{ping.lost} pings lost, 5 ms apart, in {downtime_ms} ms")
    assert ping.lost * 5 < downtime_ms / 2


def rows_of(fleet: Fleet, migration: str) -> set[str]:
    """The protocol's rows on the arrows of a migration's diagram."""
    diagram = fleet.api.get(f"/v1/migrations/{migration}/diagram").text
    assert diagram.startswith("@startuml")
    return set(re.findall(r"^\w+ -+>+ \w+ : (?:<[^>]*>)?([PMFR]\d+)", diagram, re.MULTILINE))


def test_the_diagram_of_a_run_names_every_row_that_applies(fleet: Fleet, guest_and_empty: GuestAndEmpty) -> None:
    guest, _ = guest_and_empty
    here = where(fleet, guest)
    migration = fleet.started(guest.name, fleet.other(here))
    fleet.wait(migration)
    whole = {f"P{n}" for n in range(1, 13)} | {f"M{n}" for n in range(1, 6)} | {f"F{n}" for n in range(1, 12)}
    assert rows_of(fleet, migration) == whole


def test_the_diagram_of_a_failed_run_shows_the_rollback_that_happened(
    fleet: Fleet, guest_and_empty: GuestAndEmpty, no_faults: None
) -> None:
    guest, _ = guest_and_empty
    here = where(fleet, guest)
    fleet.fault(here, [{"step": "M4", "moment": "before", "action": "permanent"}])
    migration = fleet.started(guest.name, fleet.other(here))
    assert fleet.wait(migration)["status"] == "failed"
    rows = rows_of(fleet, migration)
    assert {f"R{n}" for n in range(9)} <= rows
    assert not rows & {"M5", "F1", "F5", "F9", "F11"}


def forced() -> list[tuple[str, str, str]]:
    """Every step before the pivot, both sides, failing before and after it acted; the copy's end IS the pivot."""
    cases = []
    for side, flow in (("source", SOURCE), ("destination", DESTINATION)):
        for step in flow.until_pivot:
            moments = ("before",) if step.name == "copy" else ("before", "after")
            cases += [(side, step.name, moment) for moment in moments]
    return cases


@pytest.mark.parametrize(("side", "step", "moment"), forced())
def test_a_failure_forced_at_a_step_leaves_everything_as_it_was(
    fleet: Fleet, guest_and_empty: GuestAndEmpty, no_faults: None, side: str, step: str, moment: str
) -> None:
    guest, _ = guest_and_empty
    here = where(fleet, guest)
    there = fleet.other(here)
    before, boot = fleet.snapshots(), guest.status().boot_id
    struck = here if side == "source" else there
    fleet.fault(struck, [{"step": step, "moment": moment, "action": "permanent"}])
    with fleet.lab.ping(guest) as ping:
        migration = fleet.started(guest.name, there)
        ended = fleet.wait(migration)
    assert ended["status"] == "failed"
    assert "forced at" in str(ended["reason"])
    assert fleet.snapshots() == before
    assert ping.longest_gap_ms < 1000
    status = guest.status()
    assert status.boot_id == boot
    assert status.clean


def test_the_source_agent_is_killed_while_memory_is_copied(fleet: Fleet, guest_and_empty: GuestAndEmpty) -> None:
    guest, empty = guest_and_empty
    here = where(fleet, guest)
    there = fleet.other(here)
    boot = guest.status().boot_id
    with fleet.lab.ping(guest) as ping:
        migration = fleet.started(guest.name, there)
        fleet.wait_for_row(here, "iteration", migration)
        fleet.lab.kill_agent(here, signal.SIGKILL)
        assert fleet.lab.agent_pid(here) is None
        fleet.lab.start_agent(here)
        assert fleet.wait(migration)["status"] == "completed"
    assert where(fleet, guest) == there
    assert fleet.lab.snapshot(here) == empty[here]
    assert guest.status().boot_id == boot
    assert guest.status().clean
    assert ping.longest_gap_ms < 1000


def test_an_abort_while_memory_is_copied(fleet: Fleet, guest_and_empty: GuestAndEmpty) -> None:
    guest, _ = guest_and_empty
    here = where(fleet, guest)
    there = fleet.other(here)
    before = fleet.snapshots()
    migration = fleet.started(guest.name, there, bandwidth_bytes_s=4 << 20)
    fleet.wait_for_row(here, "copy-started", migration)
    answer = fleet.api.post(f"/v1/migrations/{migration}/abort")
    assert answer.status_code == 202, answer.text
    ended = fleet.wait(migration)
    assert ended["status"] == "cancelled"
    assert fleet.snapshots() == before
    assert guest.status().clean
    late = fleet.api.post(f"/v1/migrations/{migration}/abort")
    assert late.status_code == 409


def test_three_vms_at_once_two_there_and_one_back(fleet: Fleet) -> None:
    empty = fleet.snapshots()
    starts = {"one": "host1", "two": "host1", "three": "host2"}
    guests = {
        name: fleet.lab.create_vm(name, host, memory_mib=192, dirty_mib_s=5, disks=("local", "iscsi"))
        for name, host in starts.items()
    }
    try:
        migrations = {name: fleet.started(name, fleet.other(host)) for name, host in starts.items()}
        for name, migration in migrations.items():
            assert fleet.wait(migration)["status"] == "completed"
            assert fleet.lab.hosts_running(name) == [fleet.other(starts[name])]
            assert guests[name].status().clean
    finally:
        for name in guests:
            fleet.lab.remove_vm(name)
    fleet.eventually(lambda: fleet.snapshots() == empty)


def test_a_guest_that_moved_stops_and_starts_again_with_one_tap_on_the_bridge(fleet: Fleet) -> None:
    """PERSIST_XML boots from cold, and the tap made ahead does not stay behind."""
    guest = fleet.lab.create_vm("cold", "host1", memory_mib=192, dirty_mib_s=5, disks=("shared",))
    host2 = fleet.lab.hosts["host2"]
    try:
        assert fleet.wait(fleet.started("cold", "host2"))["status"] == "completed"
        host2.virsh("destroy", "cold")
        fleet.eventually(lambda: not fleet.taps("host2", guest))
        host2.virsh("start", "cold")
        guest.status(timeout=60)
        (port,) = fleet.taps("host2", guest)
        assert port["tag"] == 100
        assert port["external_ids"]["iface-id"] == guest.port_id
        assert fleet.wait(fleet.started("cold", "host1"))["status"] == "completed"
        assert not fleet.taps("host2", guest)
    finally:
        fleet.remove(guest)
