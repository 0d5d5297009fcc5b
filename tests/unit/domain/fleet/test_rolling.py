"""A rolling operation that is planned again while a wave is under way."""

from __future__ import annotations

import pytest

from sterna.domain.fleet.operations import Rolling
from sterna.domain.fleet.planner import plan
from sterna.domain.fleet.plans import Plan
from sterna.domain.fleet.snapshot import Apart, Host, Rules, Snapshot, functions
from tests.unit.domain.fleet.fleets import GIB, MIB, fleet, host, vm
from tests.unit.domain.fleet.playing import Player

ROLLING = Rolling(hosts=frozenset({"a", "full"}), most_closed=1)
FAST = functions("fast")


def wave(answer: Plan) -> tuple[tuple[str, ...], dict[str, str]]:
    """The first one: its hosts, and VM -> target."""
    return answer.waves[0].hosts, {move.vm: move.target for move in answer.moves if move.wave == 0}


def after_one_step(snapshot: Snapshot, first: Plan) -> Snapshot:
    """The fleet once the plan's first move has begun."""
    player = Player(snapshot, first)
    player.begin(player.may_begin()[0])
    return player.now()


def test_the_wave_under_way_stays_first_while_a_resident_leaves_its_rule() -> None:
    """The resident counts on both hosts until it has left. Who comes to its place waits for that."""
    hosts = [host("a", others={FAST: 1}), host("b", others={FAST: 1}), host("c"), host("full")]
    vms = [vm("guest", "a", others={FAST: 1}), vm("resident", "b"), vm("large", "full", 56)]
    rules = Rules(apart=(Apart(name="apart", vms=frozenset({"guest", "resident"})),))
    snapshot = fleet(hosts, vms, rules=rules)
    first = plan(snapshot, ROLLING)
    assert wave(first) == (("a",), {"guest": "b", "resident": "c"})
    again = plan(after_one_step(snapshot, first), ROLLING, first)
    assert wave(again) == wave(first)


def test_the_wave_under_way_stays_first_while_a_resident_leaves_its_memory() -> None:
    hosts = [host("a", 16), host("b", 16, others={FAST: 1}), host("c", 8), host("full", 16)]
    vms = [vm("guest", "a", 12), vm("resident", "b", 8), vm("large", "full", 14)]
    snapshot = fleet(hosts, vms)
    first = plan(snapshot, ROLLING)
    assert wave(first) == (("a",), {"guest": "b", "resident": "c"})
    again = plan(after_one_step(snapshot, first), ROLLING, first)
    assert wave(again) == wave(first)


def test_the_wave_under_way_stays_first_though_its_vm_writes_faster_now() -> None:
    """What keeps a VM from beginning a move does not end the one it is on."""
    hosts = [host("a"), host("b"), host("full")]
    snapshot = fleet(hosts, [vm("guest", "a"), vm("other", "a", dirty_bytes_s=MIB), vm("large", "full", 40)])
    first = plan(snapshot, ROLLING)
    assert first.waves[0].hosts == ("a",)
    now = after_one_step(snapshot, first)
    (moving,) = (move.vm for move in now.moving)
    busy = [one.model_copy(update={"dirty_bytes_s": 50 * GIB}) if one.uuid == moving else one for one in now.vms]
    again = plan(now.model_copy(update={"vms": tuple(busy)}), ROLLING, first)
    assert wave(again) == wave(first)
    assert "a" not in again.skipped


@pytest.mark.parametrize("number", [24, 25, 26])
def test_one_host_with_many_vms_that_fit_nowhere_keeps_no_other_host_from_being_emptied(number: int) -> None:
    blocked = [vm(f"stuck-{i:02}", "blocked", 1, networks=frozenset({"x"})) for i in range(number)]
    hosts = [host("blocked", networks=frozenset({"x"})), *(host(name) for name in "abc")]
    answer = plan(fleet(hosts, [*blocked, *(vm(f"of-{name}", name, 20) for name in "abc")]), every(hosts))
    assert sorted(name for one in answer.waves for name in one.hosts) == ["a", "b", "c"]
    assert set(answer.skipped) == {"blocked"} and len(answer.left) == number
    assert "network" in answer.skipped["blocked"]


def test_many_hosts_that_cannot_be_emptied_keep_no_other_host_from_being_emptied() -> None:
    names = [f"blocked-{i:02}" for i in range(30)]
    hosts = [*(host(name, networks=frozenset({name})) for name in names), host("good"), host("target")]
    blocked = [vm(f"of-{name}", name, 1, networks=frozenset({name})) for name in names]
    answer = plan(fleet(hosts, [*blocked, vm("guest", "good", 40)]), every(hosts[:-1]))
    assert [one.hosts for one in answer.waves] == [("good",)]
    assert set(answer.skipped) == set(names) and all("network" in why for why in answer.skipped.values())


def every(hosts: list[Host]) -> Rolling:
    return Rolling(hosts=frozenset(one.name for one in hosts), most_closed=1)
