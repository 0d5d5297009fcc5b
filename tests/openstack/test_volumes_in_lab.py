"""A lab VM on two of Cinder's volumes, and a NIC that is nobody's port: Cinder without Neutron.

Failures and deaths at each step are in test_both_in_lab.py.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from sterna.lab.guest_view import Guest
from sterna.lab.lab import Lab
from tests.lab_state import state
from tests.openstack.cinder_facts import Volumes
from tests.openstack.servers import Servers
from tests.openstack.texts import AUTH_URL, PASSWORD

pytestmark = pytest.mark.lab
STATE = state("openstack")
FINAL = {"completed", "failed", "cancelled"}
CLOUD = f"""
[openstack]
auth_url = "{AUTH_URL}"
username = "sterna"
password = "{PASSWORD}"
"""


class Scene:
    """One lab with agents that ask the cloud, and a guest on two of its volumes."""

    def __init__(self, lab: Lab, servers: Servers) -> None:
        self.lab, self.servers = lab, servers
        self.api = httpx2.Client(base_url=lab.controller_url or "", timeout=30, **lab.api_access)
        self.volumes = Volumes(lab, servers, 2)
        self.guest: Guest = lab.create_vm("c1", "host1", memory_mib=128, dirty_mib_s=5, disks=self.volumes.specs)
        self.volumes.attach(self.guest.uuid, "host1")

    def migrate(self, to: str) -> dict[str, Any]:
        """Start one and wait for its end; the record."""
        return self.wait(self.start(to))

    def start(self, to: str) -> str:
        """Start one that must be accepted; its id."""
        answer = self.api.post("/v1/migrations", json={"vm": "c1", "destination": to, "id": str(uuid.uuid4())})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def wait(self, migration: str) -> dict[str, Any]:
        """Until it has ended, and neither agent has anything left to do for it."""
        deadline = time.monotonic() + 150
        while True:
            seen = self.api.get(f"/v1/migrations/{migration}").json()
            if seen["status"] in FINAL:
                return dict(seen)
            assert time.monotonic() < deadline, seen
            time.sleep(0.1)

    def only(self, host: str) -> None:
        """Cinder, tgt and libvirt agree: this host, and nobody else; and the guest is well."""
        self.volumes.must_be_only(host)
        assert self.lab.hosts_running("c1") == [host]
        self.guest.status(timeout=30.0)


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    lab = Lab.up(STATE, agents=False, owner=True)
    try:
        servers = Servers.up(lab.outer, lab.state_dir / "openstack")
        for host in lab.hosts.values():
            file = host.root / "state/agent.toml"
            text = file.read_text().replace("[volumes]", '[volumes]\nprovider = "cinder"')
            file.write_text(text + CLOUD)
        lab.start_controller()
        for name in lab.hosts:
            lab.start_agent(name)
        lab.wait_ready()
        yield Scene(lab, servers)
        servers.close()
    finally:
        lab.down()


def test_there_and_back(scene: Scene) -> None:
    scene.only("host1")
    for _ in range(int(os.environ.get("STERNA_ROUNDS", "1"))):
        for host in ("host2", "host1"):
            before = scene.volumes.attachments()
            done = scene.migrate(host)
            assert done["status"] == "completed", done
            scene.only(host)
            assert not {a[0][0] for a in before} & {a[0][0] for a in scene.volumes.attachments()}
