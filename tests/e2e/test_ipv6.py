"""Migration addresses that are IPv6: control connection, memory, disks, and a stream that is joined again."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from functools import partial

import pytest

from sterna.lab import sabotage
from sterna.lab.guest_view import Guest
from sterna.lab.host import LabHost
from sterna.lab.places import ipv6_address
from tests.e2e.conftest import Fleet
from tests.e2e.files import plan

pytestmark = pytest.mark.lab


def answers(host: LabHost) -> bool:
    """Does its libvirtd?"""
    return host.run(["virsh", "uri"], check=False).returncode == 0


@pytest.fixture(scope="module")
def guest(fleet: Fleet) -> Iterator[Guest]:
    """A guest with a local disk, on hosts that know each other by IPv6 addresses only."""
    for name, host in fleet.lab.hosts.items():
        address = ipv6_address(host.address)
        script = (
            "sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.mgmt0.disable_ipv6=0; "
            f"ip addr add {address}/64 dev mgmt0 nodad; "
            "sed -i 's/^listen_addr = .*/listen_addr = \"::\"/' /etc/libvirt/libvirtd.conf; "
            f'sed -i \'s/^migration_host = .*/migration_host = "{address}"/; '
            's/^migration_address = .*/migration_address = "::"/\' /etc/libvirt/qemu.conf; '
            f'sed -i \'s/^address = .*/address = "[{address}]"/; '
            "s/^more_addresses = .*/more_addresses = []/' /srv/sterna/state/agent.toml"
        )
        host.run(["sh", "-ec", script])
        sabotage.kill_libvirtd(fleet.lab, name)
        sabotage.start_libvirtd(fleet.lab, name)
        fleet.eventually(partial(answers, host))
        fleet.lab.kill_agent(name, signal.SIGTERM)
        fleet.lab.start_agent(name)
    fleet.eventually(lambda: all(h["state"] == "up" for h in fleet.api.get("/v1/hosts").json()["hosts"]))
    guest = fleet.lab.create_vm("six", "host1", memory_mib=192, dirty_mib_s=2, disks=("local",), pace="calm")
    yield guest
    fleet.remove(guest)


def test_there_and_back(fleet: Fleet, guest: Guest) -> None:
    for to in ("host2", "host1"):
        assert plan(fleet, guest.name, to) == []
        migration = fleet.started(guest.name, to)
        ended = fleet.wait(migration)
        assert ended["status"] == "completed", ended
        fleet.wait_closed(migration)
        assert guest.status().clean


def test_a_rehearsal(fleet: Fleet, guest: Guest) -> None:
    answer = fleet.api.post(
        "/v1/plans", json={"vm": guest.name, "destination": "host2", "rehearse": True}, timeout=90
    )
    rehearsal = answer.json()["rehearsal"]
    assert rehearsal["passed"], rehearsal
