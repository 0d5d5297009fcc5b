"""The fleet of `make fleet`, its scenarios and its pictures."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest
from bench.fleetsim.audit import audit
from bench.fleetsim.driver import Seen
from bench.fleetsim.made import Made, Size, make, rack_of
from bench.fleetsim.pictures import gantt, lanes, rates
from bench.fleetsim.report import moves_of
from bench.fleetsim.scenarios import SCENARIOS, one_never_converges
from bench.fleetsim.truth import Truth

from tests.unit.fleetsim.small import Watch, moved
from tests.unit.fleetsim.small import made as small

SIZE = Size(hosts=12, vms=80)


@pytest.fixture(scope="module")
def fleet() -> Made:
    return make(SIZE, 3)


def test_it_is_the_same_for_the_same_seed(fleet: Made) -> None:
    assert make(SIZE, 3) == fleet and make(SIZE, 4) != fleet


def test_it_is_within_its_own_rules(fleet: Made) -> None:
    assert audit(fleet, Truth(fleet, Watch()).facts).violations == []
    assert len(fleet.hosts) == 12 and len(fleet.vms) == 80 and fleet.apart
    assert all(len(hosts) == rack_of(12) == 3 for hosts in fleet.racks().values())


def test_compressed_hosts_and_vms_are_smaller_alike(fleet: Made) -> None:
    whole = make(replace(SIZE, compress=1.0), 3)
    for before, after in ((whole.vms, fleet.vms), (whole.hosts, fleet.hosts)):
        for name, one in before.items():
            assert after[name].memory_bytes == pytest.approx(one.memory_bytes / 20, abs=1024)
    assert {vm.uuid: vm.host for vm in whole.vms.values()} == {vm.uuid: vm.host for vm in fleet.vms.values()}


def test_vms_of_newer_cpus_are_on_newer_hosts() -> None:
    fleet = make(replace(SIZE, generations=2), 3)
    newer = [vm for vm in fleet.vms.values() if vm.newer]
    assert newer and all(fleet.hosts[vm.host].newer for vm in newer)
    assert not any(vm.newer for vm in make(SIZE, 3).vms.values())


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_leaves_hosts_to_move_to(fleet: Made, name: str) -> None:
    scenario = SCENARIOS[name]
    hosts = scenario.hosts(fleet, 1)
    assert 0 < len(hosts) < len(fleet.hosts) and hosts == scenario.hosts(fleet, 1)
    body = scenario.body(hosts, "http://127.0.0.1:1/reboot")
    assert (body["kind"], body["hosts"]) == (scenario.kind, hosts)
    assert scenario.prepare(fleet, hosts).hosts == fleet.hosts


def test_one_vm_never_converges(fleet: Made) -> None:
    hosts = SCENARIOS["never-converges"].hosts(fleet, 1)
    stubborn = [vm for vm in one_never_converges(fleet, hosts).vms.values() if vm.stubborn]
    assert [vm.host for vm in stubborn] == hosts


def test_spans_that_overlap_have_lanes_of_their_own() -> None:
    assert lanes([(0, 2), (1, 3), (2, 4), (3, 5)]) == [0, 1, 0, 1]
    assert lanes([]) == []


def test_a_move_is_drawn_at_both_of_its_hosts() -> None:
    truth = Truth(small(), Watch())
    seen = Seen(begun_s=100.0, ended_s=120.0, events=[(101.0, "drain of 1 <hosts>")])
    moved(truth, "1", "a", "c")
    drawn = gantt(moves_of(truth.facts), truth.made, ["a"], seen)
    ElementTree.fromstring(drawn)
    assert drawn.count("<title>vm-1: a to c, ") == 2
    assert drawn.index(">a</text>") < drawn.index(">c</text>") and "drain of 1 &lt;hosts&gt;" in drawn


def test_the_use_of_links_is_what_they_carried_between_two_looks() -> None:
    looks = [
        (10.0, {"out of a": 0}),
        (12.0, {"out of a": 250_000_000, "out of b": 9}),
        (13.0, {"out of a": 250_000_000}),
    ]
    assert rates(Seen(begun_s=10.0, carried=looks), ["out of a"]) == [(2.0, 1.0), (3.0, 0.0)]
