"""A VM with a Neutron port and two Cinder volumes, as a cloud has them: everything real but the cloud's size.

There and back; turned back at each step; each agent killed at each step. Whatever happens: one binding per port,
one attachment per volume, one initiator, by the word of those who keep them.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.openstack.cloud_scene import NEUTRONS, SLOW, STATE, At, Scene, failures, kills, kills_in_rollback
from tests.openstack.neutron_hosts import NeutronHosts

pytestmark = pytest.mark.lab
ROUNDS, OUT = 5, Path("out")
NORMAL, HYBRID = "noop", "iptables_hybrid"
"""Firewall drivers of the network agents: Neutron wants OVS normal plug for the one, hybrid plug for the other."""
LIVING = ("source", "iteration"), ("source", "saw-suspended-migrated"), ("destination", "guest-ran-here")
"""Moments while libvirt copies and hands over, by the journal of that agent."""


@pytest.fixture(scope="module")
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    hosts = NeutronHosts.up(STATE, firewall=request.param, cinder=True)
    try:
        yield Scene(hosts)
    finally:
        hosts.down()


def each_plug(cases: list[At]) -> pytest.MarkDecorator:
    """All of them with normal plug; with hybrid plug those that it is any different for."""
    found = [(NORMAL, case) for case in cases]
    found += [(HYBRID, case) for case in cases if case.step in NEUTRONS and case.moment == "after"]
    found += [(HYBRID, case) for case in cases if case == At("source", "copy", "before")]
    ids = [f"{firewall} {case}" for firewall, case in found]
    return pytest.mark.parametrize(("scene", "at"), found, ids=ids, indirect=["scene"], scope="module")


both_plugs = pytest.mark.parametrize("scene", [NORMAL, HYBRID], indirect=True, scope="module")


@both_plugs
def test_five_times_there_and_back(scene: Scene) -> None:
    before = scene.guest.status()
    scene.must_be_on(scene.here)
    for _ in range(2 * ROUNDS):
        there = scene.host("destination")
        scene.must_complete(scene.start())
        scene.must_be_on(there)
    assert scene.guest.status().blocks_verified > before.blocks_verified


@both_plugs
def test_the_hand_over_as_a_diagram(scene: Scene) -> None:
    """Neutron's documents draw one picture for each plug; ours come from real runs (docs/how-to/openstack.md)."""
    migration = scene.start()
    scene.must_complete(migration)
    drawn = scene.fleet.api.get(f"/v1/migrations/{migration}/diagram").text
    OUT.mkdir(exist_ok=True)
    (OUT / f"hand-over-{'hybrid' if scene.hosts.hybrid else 'normal'}.puml").write_text(drawn)
    lines = drawn.splitlines()
    assert 'participant "Neutron" as network' in lines
    asked = [line.replace(" -> network : ", ": ") for line in lines if " -> network : " in line]
    assert asked[:2] == [
        "shost: bind the ports to the destination (INACTIVE)",
        "dhost: read the destination's bindings",
    ]
    activations = [f"{who}: activate the destination's bindings" for who in ("dhost", "shost")]
    confirmed = "dhost: confirm, delete the source's bindings"
    assert sorted(asked[2:]) == sorted([*activations, confirmed])
    assert asked.index(activations[1]) < asked.index(confirmed)  # dhost asks for the same, beside its other steps


@each_plug(kills())
def test_an_agent_killed_at_a_step_goes_on_from_there(scene: Scene, at: At) -> None:
    victim, there = scene.host(at.role), scene.host("destination")
    with scene.forced(at.rules(scene, "kill")):
        migration = scene.await_death(victim, scene.start)
    scene.lab.start_agent(victim)
    scene.must_complete(migration)
    scene.must_be_on(there)


@pytest.mark.parametrize(("role", "moment"), LIVING)
@both_plugs
def test_an_agent_killed_while_libvirt_copies_and_hands_over(scene: Scene, role: str, moment: str) -> None:
    victim, there = scene.host(role), scene.host("destination")
    migration = scene.start(bandwidth_bytes_s=SLOW)
    scene.fleet.wait_for_row(victim, moment, migration)
    scene.lab.kill_agent(victim, signal.SIGKILL)
    scene.lab.start_agent(victim)
    scene.must_complete(migration)
    scene.must_be_on(there)


@both_plugs
def test_both_agents_killed_while_libvirt_copies(scene: Scene) -> None:
    here, there = scene.here, scene.host("destination")
    migration = scene.start(bandwidth_bytes_s=SLOW)
    scene.fleet.wait_for_row(here, "iteration", migration)  # "copy-started" comes before libvirt is asked
    for host in (here, there):
        scene.lab.kill_agent(host, signal.SIGKILL)
    for host in (here, there):
        scene.lab.start_agent(host)
    scene.must_complete(migration)
    scene.must_be_on(there)


@each_plug(failures())
def test_a_failure_leaves_port_and_volumes_as_they_were(scene: Scene, at: At) -> None:
    here, before = scene.here, scene.volumes.attachments()
    taps = scene.fleet.taps(here, scene.guest)
    with scene.forced(at.rules(scene, "permanent")):
        seen = scene.move()
    assert seen["status"] == "failed", seen
    assert scene.volumes.attachments() == before
    scene.must_be_on(here)
    assert scene.fleet.taps(here, scene.guest) == taps


@each_plug(kills_in_rollback())
def test_an_agent_killed_in_a_rollback_goes_on_with_it(scene: Scene, at: At) -> None:
    here, before, victim = scene.here, scene.volumes.attachments(), scene.host(at.role)
    rules = {here: [{"step": "copy", "moment": "before", "action": "permanent"}]}
    for host, each in at.rules(scene, "kill").items():
        rules.setdefault(host, []).extend(each)
    with scene.forced(rules):
        migration = scene.await_death(victim, scene.start)
    scene.lab.start_agent(victim)
    seen = scene.end(migration)
    assert seen["status"] == "failed", seen
    assert scene.volumes.attachments() == before
    scene.must_be_on(here)
