"""Parts of the system die at named moments of a real migration; nothing may be lost (SPEC invariants 1-3).

Each moment is an entry in an agent's journal, never a time. Afterwards the hosts are compared with what they
were, and the same VM migrates again.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from sterna.lab import sabotage

pytestmark = pytest.mark.lab

SLOW = 48 << 20  # bytes/s: the copy of 256 MiB lasts some seconds


@pytest.fixture(scope="module")
def empty(fleet):
    """Both hosts without any guest."""
    return fleet.snapshots()


@pytest.fixture
def guest(fleet, empty):
    """A new guest on host1 for each case, as some cases kill it; and the hosts without it."""
    guest = fleet.lab.create_vm("chaos", "host1", memory_mib=256, dirty_mib_s=10, disks=("shared", "iscsi"))
    # the agents have taken the last case's taps away meanwhile
    fleet.eventually(
        lambda: fleet.lab.snapshot("host2") == empty["host2"] and len(fleet.lab.snapshot("host1")["links"]) == 1
    )
    yield guest, empty
    fleet.lab.remove_vm("chaos")


@dataclass(frozen=True)
class Case:
    """Who dies (and is started again), after which journal entry of which host, and how it must end."""

    name: str
    at: tuple[str, str]
    kill: Callable
    heal: Callable
    ends: str


def agent(*hosts):
    def kill(fleet):
        for host in hosts:
            fleet.lab.kill_agent(host, signal.SIGKILL)

    def heal(fleet):
        for host in hosts:
            fleet.lab.start_agent(host)

    return kill, heal


def libvirtd(host):
    def kill(fleet):
        sabotage.kill_libvirtd(fleet.lab, host)

    return kill, lambda fleet: sabotage.start_libvirtd(fleet.lab, host)


def qemu(host):
    return (lambda fleet: sabotage.kill_qemu(fleet.lab, host, "chaos")), (lambda fleet: None)


def nats(fleet):
    sabotage.kill_nats(fleet.lab)


def nats_back(fleet):
    sabotage.start_nats(fleet.lab)


def controller(fleet):
    sabotage.kill_controller(fleet.lab)


def controller_back(fleet):
    fleet.restart_controller()


COPYING = ("host1", "iteration")
PREPARED = ("host2", "plug-vifs")
ARRIVED = ("host1", "copy-succeeded")

CASES = [
    Case("source agent, prepared", PREPARED, *agent("host1"), "completed"),
    Case("destination agent, prepared", PREPARED, *agent("host2"), "completed"),
    Case("destination agent, copying", COPYING, *agent("host2"), "completed"),
    Case("both agents, copying", COPYING, *agent("host1", "host2"), "completed"),
    Case("source agent, arrived", ARRIVED, *agent("host1"), "completed"),
    Case("destination agent, arrived", ARRIVED, *agent("host2"), "completed"),
    Case("bus, prepared", PREPARED, nats, nats_back, "completed"),
    Case("bus, copying", COPYING, nats, nats_back, "completed"),
    Case("controller, copying", COPYING, controller, controller_back, "completed"),
    Case("source libvirtd, copying", COPYING, *libvirtd("host1"), "failed"),
    Case("destination libvirtd, copying", COPYING, *libvirtd("host2"), "failed"),
    Case("destination QEMU, copying", COPYING, *qemu("host2"), "failed"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_something_dies(fleet, guest, case):
    guest, empty = guest
    before, boot = fleet.snapshots(), guest.status().boot_id
    migration = fleet.started(guest.name, "host2", bandwidth_bytes_s=SLOW)
    fleet.wait_for_row(*case.at, migration)
    case.kill(fleet)
    case.heal(fleet)
    fleet.wait_closed(migration)
    assert fleet.wait(migration)["status"] == case.ends
    here = "host2" if case.ends == "completed" else "host1"
    assert fleet.lab.hosts_running(guest.name) == [here]
    if case.ends == "completed":
        assert fleet.lab.snapshot("host1") == empty["host1"]
    else:
        assert fleet.snapshots() == before
    again = fleet.started(guest.name, fleet.other(here))
    assert fleet.wait(again)["status"] == "completed"
    status = guest.status()
    assert status.boot_id == boot
    assert status.clean, status.last_error


def test_the_guests_own_qemu_dies_while_it_is_copied(fleet, guest):
    """It ends on the side where it last ran, recorded as stopped; Sterna never starts it again."""
    guest, empty = guest
    migration = fleet.started(guest.name, "host2", bandwidth_bytes_s=SLOW)
    fleet.wait_for_row(*COPYING, migration)
    sabotage.kill_qemu(fleet.lab, "host1", guest.name)
    fleet.wait_closed(migration)
    assert fleet.wait(migration)["status"] == "failed"
    assert fleet.lab.hosts_running(guest.name) == []
    assert fleet.lab.snapshot("host2") == empty["host2"]
    assert fleet.lab.snapshot("host1")["domains"][guest.name]["state"] == "shut off"
    fleet.lab.hosts["host1"].virsh("start", guest.name)
    guest.status(timeout=60)
    again = fleet.started(guest.name, "host2")
    assert fleet.wait(again)["status"] == "completed"
