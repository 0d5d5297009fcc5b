"""A guest with a NIC of every plug type that native networks have: one piece, there and back, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from sterna.lab.guest_view import Guest
from tests.e2e.conftest import Fleet

pytestmark = pytest.mark.lab

KINDS = ("ovs-hybrid", "bridge", "macvtap", "macvtap-passthrough")
GAP_MS = 1500
GUESTS = {"tun tap", "tun vne", "macvtap mac", "bridge qbr", "veth qvb", "veth qvo"}
"""`names` of devices that only a guest has."""


GuestAndEmpty = tuple[Guest, dict[str, dict[str, Any]]]
"""A guest, and both hosts without it."""


@pytest.fixture(scope="module")
def guest_and_empty(fleet: Fleet) -> Iterator[GuestAndEmpty]:
    """Five NICs on host1; and both hosts without it."""
    empty = fleet.snapshots()
    guest = fleet.lab.create_vm("mixed", "host1", memory_mib=192, dirty_mib_s=5, disks=("iscsi",), nics=KINDS)
    yield guest, empty
    fleet.remove(guest)
    fleet.eventually(lambda: not any(names(seen) & GUESTS for seen in fleet.snapshots().values()))
    assert fleet.snapshots() == empty


def pings(fleet: Fleet, guest: Guest, stack: ExitStack) -> dict[str, Any]:
    """One ping per NIC, running until the stack is closed."""
    addresses = {"ovs": guest.address} | {nic.kind: nic.address for nic in guest.nics}
    return {kind: stack.enter_context(fleet.lab.ping(guest, 20.0, address)) for kind, address in addresses.items()}


def names(snapshot: dict[str, Any]) -> set[str]:
    """Kinds and first letters of the devices a guest may have on a host."""
    return {f"{link['kind']} {link['name'][:3]}" for link in snapshot["links"]}


def test_there_and_back_with_five_nics_of_five_kinds(fleet: Fleet, guest_and_empty: GuestAndEmpty) -> None:
    guest, empty = guest_and_empty
    before = guest.status()
    for here, there in (("host1", "host2"), ("host2", "host1")):
        with ExitStack() as stack:
            running = pings(fleet, guest, stack)
            migration = fleet.started(guest.name, there)
            assert fleet.wait(migration)["status"] == "completed"
        assert fleet.lab.hosts_running(guest.name) == [there]
        assert fleet.lab.snapshot(here) == empty[here]
        arrived = fleet.lab.snapshot(there)
        assert {"tun tap", "bridge qbr", "veth qvb", "veth qvo", "macvtap mac"} <= names(arrived)
        gaps = {kind: ping.longest_gap_ms for kind, ping in running.items()}
        print(f"\nlongest gap to {there}, ms: {gaps}")
        assert max(gaps.values()) < GAP_MS, gaps
    after = guest.status()
    assert after.boot_id == before.boot_id
    assert after.clean, after.last_error


def test_a_failure_before_the_pivot_leaves_every_nic_as_it_was(
    fleet: Fleet, guest_and_empty: GuestAndEmpty, no_faults: None
) -> None:
    guest, _ = guest_and_empty
    (here,) = fleet.lab.hosts_running(guest.name)
    before, boot = fleet.snapshots(), guest.status().boot_id
    fleet.fault(here, [{"step": "M4", "moment": "before", "action": "permanent"}])
    with ExitStack() as stack:
        running = pings(fleet, guest, stack)
        migration = fleet.started(guest.name, fleet.other(here))
        assert fleet.wait(migration)["status"] == "failed"
    assert fleet.snapshots() == before
    assert max(ping.longest_gap_ms for ping in running.values()) < GAP_MS
    status = guest.status()
    assert status.boot_id == boot
    assert status.clean


def test_it_stops_and_starts_where_it_has_arrived(fleet: Fleet, guest_and_empty: GuestAndEmpty) -> None:
    """PERSIST_XML boots from cold with every plug type, though the taps made ahead are gone."""
    guest, empty = guest_and_empty
    (here,) = fleet.lab.hosts_running(guest.name)
    there, host = fleet.other(here), fleet.lab.hosts[fleet.other(here)]
    assert fleet.wait(fleet.started(guest.name, there))["status"] == "completed"
    host.virsh("destroy", guest.name)
    fleet.eventually(
        lambda: not any(kind.startswith(("tun", "macvtap")) for kind in names(fleet.lab.snapshot(there)))
    )
    host.virsh("start", guest.name)
    guest.status(timeout=60)
    with ExitStack() as stack:
        pings(fleet, guest, stack)  # each has had its first reply when this is left
    assert fleet.wait(fleet.started(guest.name, here))["status"] == "completed"
    assert fleet.lab.snapshot(there) == empty[there]


def test_what_a_host_lacks_for_its_nics_is_said_at_once(fleet: Fleet, guest_and_empty: GuestAndEmpty) -> None:
    guest, _ = guest_and_empty
    (here,) = fleet.lab.hosts_running(guest.name)
    there = fleet.lab.hosts[fleet.other(here)]
    there.run(["ip", "link", "set", "br-lan", "name", "br-gone"])
    there.run(["ip", "link", "set", "phys1", "master", "br-gone"])
    try:
        answer = fleet.start(guest.name, there.name)
        assert answer.status_code == 422, answer.text
        reasons = answer.json()["reasons"]
        assert [r["code"] for r in reasons] == ["bridge-missing", "parent-busy"]
        assert all(r["fix"] for r in reasons)
    finally:
        there.run(["ip", "link", "set", "phys1", "nomaster"])
        there.run(["ip", "link", "set", "br-gone", "name", "br-lan"])
