"""A VM with a Neutron port and two Cinder volumes, as a cloud has them: everything real but the cloud's size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sterna.lab.guest_view import Guest
from tests.e2e.conftest import Fleet
from tests.openstack.cinder_facts import Volumes
from tests.openstack.neutron_hosts import FIRST_GUEST, NeutronHosts

pytestmark = pytest.mark.lab
STATE = Path(".lab-test/cloud")
ROUNDS = 5


class Scene:
    """The hosts, one guest, its port, its volumes."""

    def __init__(self, hosts: NeutronHosts) -> None:
        self.hosts, self.fleet = hosts, Fleet(hosts.lab)
        self.volumes = Volumes(hosts.lab, hosts.servers, 2)
        self.port = hosts.make_port("host1", *FIRST_GUEST)
        self.guest: Guest = hosts.lab.create_vm(
            "tern", "host1", dirty_mib_s=10, disks=self.volumes.specs, port_id=self.port
        )
        self.volumes.attach(self.guest.uuid, "host1")
        hosts.servers.ask(lambda c: c.network.update_port(self.port, device_id=self.guest.uuid))

    def must_be_on(self, host: str) -> None:
        """Neutron, Cinder, tgt, Open vSwitch and libvirt agree, each asked itself; and the guest is well."""
        assert self.hosts.lab.hosts_running("tern") == [host]
        assert self.hosts.bindings(self.port) == [(host, "ACTIVE", "ovs")]
        assert "migrating_to" not in self.hosts.port(self.port)["binding:profile"]
        self.fleet.eventually(lambda: self.hosts.port(self.port)["status"] == "ACTIVE")
        self.volumes.must_be_only(host)
        assert self.fleet.taps(self.fleet.other(host), self.guest) == []
        status = self.guest.status(timeout=30.0)
        assert status.clean, status.last_error


@pytest.fixture(scope="module", params=["noop", "iptables_hybrid"])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """OVS normal plug, and the firewall driver that asks for hybrid plug."""
    hosts = NeutronHosts.up(STATE, firewall=request.param, cinder=True)
    try:
        yield Scene(hosts)
    finally:
        hosts.down()


def test_five_times_there_and_back(scene: Scene) -> None:
    before = scene.guest.status()
    scene.must_be_on("host1")
    for _ in range(ROUNDS):
        for there in ("host2", "host1"):
            migration = scene.fleet.started("tern", there)
            assert scene.fleet.wait(migration)["status"] == "completed"
            scene.fleet.wait_closed(migration)
            scene.must_be_on(there)
    after = scene.guest.status()
    assert after.boot_id == before.boot_id
    assert after.blocks_verified > before.blocks_verified


@pytest.mark.parametrize(("host", "step"), [("host2", "P4"), ("host2", "P9"), ("host2", "P10"), ("host1", "P12")])
def test_a_failure_leaves_port_and_volumes_alone(scene: Scene, host: str, step: str) -> None:
    before = scene.volumes.attachments()
    scene.fleet.fault(host, [{"step": step, "moment": "after", "action": "permanent"}])
    try:
        migration = scene.fleet.started("tern", "host2")
        assert scene.fleet.wait(migration)["status"] == "failed"
        scene.fleet.wait_closed(migration)
    finally:
        scene.fleet.fault(host, None)
    assert scene.volumes.attachments() == before
    scene.must_be_on("host1")
