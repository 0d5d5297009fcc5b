"""A lab VM with a port of a real Neutron, wired by real Open vSwitch agents, moves; Neutron's word is compared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from openstack.connection import Connection

from sterna.lab.guest_view import Guest
from tests.e2e.conftest import Fleet
from tests.lab_state import state
from tests.openstack.neutron_hosts import FIRST_GUEST, NeutronHosts
from tests.scripted_cloud import Asked
from tests.unit.adapters.neutron.scripted_neutron import PORT, ScriptedNeutron

pytestmark = pytest.mark.lab
STATE = state("neutron")
ROUNDS = 5


class Scene:
    """The hosts, one guest, its port."""

    def __init__(self, hosts: NeutronHosts) -> None:
        self.hosts, self.fleet = hosts, Fleet(hosts.lab)
        self.port_id = hosts.make_port("host1", *FIRST_GUEST)
        self.guest: Guest = hosts.lab.create_vm("tern", "host1", dirty_mib_s=20, port_id=self.port_id)
        hosts.servers.ask(lambda c: c.network.update_port(self.port_id, device_id=self.guest.uuid))
        self.fleet.eventually(lambda: hosts.port(self.port_id)["status"] == "ACTIVE")

    def here(self) -> str:
        (host,) = self.hosts.lab.hosts_running("tern")
        return host

    def must_be_bound_to(self, host: str) -> None:
        """Exactly one binding, ACTIVE, there; nothing says that it migrates."""
        assert self.hosts.bindings(self.port_id) == [(host, "ACTIVE", "ovs")]
        assert "migrating_to" not in self.hosts.port(self.port_id)["binding:profile"]
        self.fleet.eventually(lambda: self.hosts.port(self.port_id)["status"] == "ACTIVE")


@pytest.fixture(scope="module", params=["noop", "iptables_hybrid"])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """The agents' firewall driver decides how Neutron says to plug: OVS normal plug, or hybrid plug."""
    hosts = NeutronHosts.up(STATE, firewall=request.param)
    try:
        yield Scene(hosts)
    finally:
        hosts.down()


def test_there_and_back(scene: Scene) -> None:
    """Five times; the agents wire ahead of the guest, so that its silence is its downtime and little more."""
    moved = move(scene, 2 * ROUNDS)
    print("ahead: blackout, downtime (ms):", moved)
    excess = sorted(blackout - downtime for blackout, downtime in moved)
    assert excess[len(excess) // 2] < 150, f"on an idle machine it is below 50 ms: {moved}"
    assert excess[-1] < 1000, f"an agent's look would be missing: {moved}"


def test_the_scripted_neutron_answers_as_the_real_one(scene: Scene) -> None:
    """What `make test` runs the provider against, request by request; the port here is nobody's."""
    port = scene.hosts.make_port("host1", "10.74.0.99", "52:54:00:74:00:63")

    def real(method: str, path: str, body: dict[str, Any] | None) -> tuple[int, dict[str, Any]]:
        def act(cloud: Connection) -> tuple[int, dict[str, Any]]:
            more = {} if body is None else {"json": body}
            answer = getattr(cloud.network, method.lower())(f"/ports/{port}{path}", **more)
            return answer.status_code, answer.json() if answer.content else {}

        return scene.hosts.servers.ask(act)

    neutron = ScriptedNeutron()
    neutron.dead_hosts.add("nowhere")

    def scripted(method: str, path: str, body: dict[str, Any] | None) -> tuple[int, dict[str, Any]]:
        answer = neutron(Asked(method, f"/v2.0/ports/{PORT}{path}", body, {}))
        assert answer is not None
        return answer.status, answer.body or {}

    try:
        for number, (method, path, body) in enumerate(CONVERSATION):
            told = told_by(real(method, path, body))
            assert told_by(scripted(method, path, body)) == told, (number, method, path)
    finally:
        scene.hosts.servers.ask(lambda c: c.network.delete_port(port))


MARKED = {"binding": {"profile": {"migrating_to": "host2"}}}
CONVERSATION: list[tuple[str, str, dict[str, Any] | None]] = [
    ("GET", "/bindings", None),
    ("POST", "/bindings", {"binding": {"host": "host2", "profile": {"migrating_to": "host2"}}}),
    ("POST", "/bindings", {"binding": {"host": "host2"}}),
    ("PUT", "/bindings/host1", MARKED),
    ("GET", "/bindings", None),
    ("PUT", "/bindings/host2/activate", None),
    ("PUT", "/bindings/host2/activate", None),
    ("GET", "/bindings", None),
    ("PUT", "/bindings/host1", {"binding": {"profile": {"migrating_to": "host1"}}}),
    ("DELETE", "/bindings/host1", None),
    ("POST", "/bindings", {"binding": {"host": "host1", "profile": {"migrating_to": "host1"}}}),
    ("GET", "/bindings", None),
    ("PUT", "/bindings/host1/activate", None),
    ("DELETE", "/bindings/host2", None),
    ("DELETE", "/bindings/host2", None),
    ("PUT", "/bindings/host1", {"binding": {"profile": {}}}),
    ("PUT", "/bindings/host2/activate", None),
    ("POST", "/bindings", {"binding": {"host": "nowhere"}}),
    ("GET", "/bindings", None),
]


def told_by(answer: tuple[int, dict[str, Any]]) -> object:
    """Status, and of an error its type, of bindings what the provider reads."""
    status, body = answer
    if "NeutronError" in body:
        return status, body["NeutronError"]["type"]
    wrapped = sorted(body.keys() & {"binding", "bindings"})
    found = body.get("bindings") or [body.get("binding", body)]
    keys = ("host", "status", "vif_type", "profile")
    return status, wrapped, sorted([b.get(k) for k in keys] for b in found) if body else []


def test_what_it_costs_not_to_wait_for_the_agent(scene: Scene) -> None:
    """The order of events without P12: the agent may come after the guest."""
    scene.hosts.restart_agents(vif_plugging_timeout_s=0)
    moved = move(scene, ROUNDS + 1)
    print("not waited: blackout, downtime (ms):", moved)
    scene.hosts.restart_agents(vif_plugging_timeout_s=10)
    print("ahead again: blackout, downtime (ms):", move(scene, 2))


def move(scene: Scene, times: int) -> list[tuple[int, int]]:
    """There and back so often; longest silence and downtime of each, in ms."""
    fleet, numbers = scene.fleet, []
    for _ in range(times):
        here = scene.here()
        there = fleet.other(here)
        scene.must_be_bound_to(here)
        with fleet.lab.ping(scene.guest) as ping:
            migration = fleet.started("tern", there)
            seen = fleet.wait(migration)
            assert seen["status"] == "completed", seen
            fleet.eventually(lambda: scene.hosts.port(scene.port_id)["status"] == "ACTIVE")
        fleet.wait_closed(migration)
        assert scene.here() == there
        scene.must_be_bound_to(there)
        assert fleet.taps(here, scene.guest) == [], "the source's port is gone"
        assert fleet.taps(there, scene.guest)[0]["name"].startswith("qvo" if scene.hosts.hybrid else "tap")
        numbers.append((round(ping.longest_gap_ms), round(fleet.show(migration)["report"]["downtime_ms"])))
    status = scene.guest.status()
    assert status.clean, status.last_error
    return numbers


def test_an_early_activation_that_came_to_nothing_is_given_back(scene: Scene) -> None:
    """The source's agent has taken the port off its switch by then: R6 puts it back, and Neutron is as before."""
    fleet, hosts = scene.fleet, scene.hosts
    here = scene.here()
    there = fleet.other(here)
    (before,) = fleet.taps(here, scene.guest)
    migration = fleet.started("tern", there, bandwidth_bytes_s=2 << 20)
    fleet.wait_for_row(here, "copy-started", migration)
    answer = hosts.servers.ask(lambda c: c.network.put(f"/ports/{scene.port_id}/bindings/{there}/activate"))
    assert answer.status_code == 200
    fleet.eventually(lambda: fleet.taps(here, scene.guest) == [])
    assert fleet.api.post(f"/v1/migrations/{migration}/abort").status_code == 202
    assert fleet.wait(migration)["status"] == "cancelled"
    fleet.wait_closed(migration)
    assert scene.here() == here
    scene.must_be_bound_to(here)
    (after,) = fleet.taps(here, scene.guest)
    assert (after["name"], after["external_ids"]) == (before["name"], before["external_ids"])
    assert fleet.taps(there, scene.guest) == []
    assert scene.guest.status(timeout=10.0).clean, "it is reached again"


def test_a_trunks_parent_is_on_a_bridge_of_its_own(scene: Scene) -> None:
    """Which nobody makes on the destination: such a VM is refused (docs/reference/support-matrix.md)."""

    def act(cloud: Connection) -> str:
        port = cloud.network.create_port(network_id=scene.hosts.network_id, port_security_enabled=False)
        trunk = cloud.network.create_trunk(port_id=port.id, sub_ports=[])  # refused for a port in use
        cloud.network.update_port(port, binding_host_id="host1", device_owner="compute:nova")
        there = cloud.network.post(f"/ports/{port.id}/bindings", json={"binding": {"host": "host2"}})
        cloud.network.update_port(port, binding_host_id="")
        cloud.network.delete_trunk(trunk)
        cloud.network.delete_port(port)
        return str(there.json()["binding"]["vif_details"]["bridge_name"])

    assert scene.hosts.servers.ask(act).startswith("tbr-")
