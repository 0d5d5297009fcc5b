"""Every hard constraint of a placement, one by one: what keeps a VM from a host, and the sentence that says so."""

from __future__ import annotations

from typing import Any

import pytest

from sterna.domain.fleet.operations import BringBack, Drain, Return
from sterna.domain.fleet.planner import plan
from sterna.domain.fleet.plans import Plan, Purpose
from sterna.domain.fleet.ranking import rank
from sterna.domain.fleet.reasons import retry_after_s
from sterna.domain.fleet.snapshot import (
    Apart,
    Cell,
    Host,
    HostGroup,
    Limits,
    Rules,
    Scope,
    Snapshot,
    Together,
    Vm,
    disk,
    functions,
    huge,
)
from sterna.domain.policies import May
from tests.unit.domain.fleet.fleets import GBIT_S, GIB, MIB, NEW, OLD, PAGE, fleet, host, vm

A = Drain(hosts=frozenset({"a"}))


def drained(hosts: list[Host], vms: list[Vm], **more: Any) -> Plan:
    return plan(fleet(hosts, vms, **more), A)


def target(answer: Plan, name: str = "db") -> str | None:
    return next((move.target for move in answer.moves if move.name == name), None)


HALF = Cell(memory_bytes=32 * GIB, cpus=16)
REFUSED: dict[str, tuple[Host, Vm]] = {
    "closed": (host("b", closed="new disk"), vm("db", "a")),
    "unreachable": (host("b", unreachable="no answer for 90 s"), vm("db", "a")),
    "without enough memory": (host("b", gib=7), vm("db", "a", gib=8)),
    "without enough vCPUs": (host("b", cpus=2, overcommit=1.5), vm("db", "a", vcpus=4)),
    "without enough huge pages of 2048 KiB": (
        host("b", others={huge(PAGE): 4 * GIB}),
        vm("db", "a", huge_page_bytes=PAGE),
    ),
    "without enough space in pool local": (
        host("b", others={disk("local"): 10 * GIB}),
        vm("db", "a", others={disk("local"): 20 * GIB}),
    ),
    "without enough functions on fast": (host("b"), vm("db", "a", others={functions("fast"): 1})),
    "without enough capacity on a NUMA node": (
        host("b", cells=(HALF, HALF)),
        vm("db", "a", gib=40, numa_nodes=1),
    ),
    "without the VM's CPU features": (host("b", cpu=OLD), vm("db", "a", cpu=NEW)),
    "without the VM's network": (
        host("b", networks=frozenset({"x"})),
        vm("db", "a", networks=frozenset({"x", "y"})),
    ),
    "without access to the VM's storage": (host("b"), vm("db", "a", storage=frozenset({"ceph"}))),
    "without the VM's machine type": (host("b"), vm("db", "a", machines=frozenset({"pc-q35-10.0"}))),
    "where the VM failed before": (host("b"), vm("db", "a", avoid={"b": "TLS handshake"}, tries=1)),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_host_that_lacks_something_is_not_taken_and_the_reason_names_it(what: str) -> None:
    other, mine = REFUSED[what]
    answer = drained([host("a"), other], [mine])
    assert answer.moves == ()
    assert [one.reason.partition(";")[0] for one in answer.left] == [f"db fits none of 1 other hosts: 1 {what}"]


FITTING: dict[str, tuple[Host, Vm]] = {
    "memory": (host("b", gib=8), vm("db", "a", gib=8)),
    "vCPUs by overcommit": (host("b", cpus=2, overcommit=2.0), vm("db", "a", vcpus=4)),
    "huge pages beside full memory": (
        host("b", gib=0, others={huge(PAGE): 8 * GIB}),
        vm("db", "a", huge_page_bytes=PAGE),
    ),
    "two nodes of half its size": (host("b", cells=(HALF, HALF)), vm("db", "a", gib=40, numa_nodes=2)),
    "a newer CPU": (host("b", cpu=NEW), vm("db", "a", cpu=OLD)),
    "more networks": (host("b", networks=frozenset({"x", "y"})), vm("db", "a", networks=frozenset({"x"}))),
}


@pytest.mark.parametrize("what", FITTING)
def test_a_host_that_has_just_enough_is_taken(what: str) -> None:
    other, mine = FITTING[what]
    answer = drained([host("a", cells=(HALF, HALF)), other], [mine])
    assert target(answer) == "b"
    assert answer.left == ()


# -------------------------------------------------------------- rules


def test_vms_of_an_anti_affinity_rule_never_meet_even_while_one_of_them_moves() -> None:
    rules = Rules(apart=(Apart(name="pair", vms=frozenset({"db", "db2"})),))
    hosts = [host("a"), host("b"), host("c", gib=200)]
    assert target(drained(hosts, [vm("db", "a"), vm("db2", "b")], rules=rules)) == "c"
    answer = drained(hosts[:2], [vm("db", "a"), vm("db2", "b")], rules=rules)
    assert [one.reason for one in answer.left] == [
        "db fits none of 1 other hosts: 1 where the rule pair keeps the VM away"
    ]


def test_anti_affinity_of_failure_domains_lets_a_vm_move_within_its_own() -> None:
    rules = Rules(apart=(Apart(name="racks", vms=frozenset({"db", "db2"}), scope=Scope.DOMAIN),))
    hosts = [host("a", domain="r1"), host("b", domain="r2"), host("c", domain="r2"), host("d", domain="r1")]
    assert target(drained(hosts, [vm("db", "a"), vm("db2", "b")], rules=rules)) == "d"


def test_planned_places_count_for_anti_affinity() -> None:
    rules = Rules(apart=(Apart(name="three", vms=frozenset({"x", "y", "z"})),))
    vms = [vm(name, "a") for name in ("x", "y", "z")]
    answer = drained([host("a"), host("b"), host("c")], vms, rules=rules)
    assert sorted(move.target for move in answer.moves) == ["b", "c"]
    assert len(answer.left) == 1


def test_vms_that_are_to_be_together_go_as_one() -> None:
    rules = Rules(together=(Together(name="app", vms=frozenset({"x", "y"})),))
    vms = [vm("x", "a", gib=30), vm("y", "a", gib=30)]
    hosts = [host("a"), host("b", gib=40), host("c", gib=60), host("d", gib=40)]
    answer = drained(hosts, vms, rules=rules)
    assert {move.target for move in answer.moves} == {"c"}
    assert len(drained([*hosts[:2], hosts[3]], vms, rules=rules).left) == 2


def test_a_vm_goes_where_the_others_are_that_it_must_be_with() -> None:
    rules = Rules(together=(Together(name="app", vms=frozenset({"x", "y"})),))
    hosts = [host("a"), host("b"), host("c")]
    assert target(drained(hosts, [vm("x", "a"), vm("y", "c")], rules=rules), "x") == "c"


@pytest.mark.parametrize("never, expected", [(False, "b"), (True, "c")])
def test_a_host_group_keeps_vms_on_its_hosts_or_off_them(never: bool, expected: str) -> None:
    group = HostGroup(name="licensed", vms=frozenset({"db"}), hosts=frozenset({"b"}), never=never)
    hosts = [host("a"), host("b"), host("c")]
    assert target(drained(hosts, [vm("db", "a")], rules=Rules(groups=(group,)))) == expected


@pytest.mark.parametrize(
    "mine, rules, reason",
    [
        (vm("db", "a", pinned="it has a PCI device"), Rules(), "db cannot be migrated: it has a PCI device"),
        (vm("db", "a"), Rules(never_move={"db": "licence"}), "a rule keeps db on a: licence"),
        (vm("db", "a", tries=3, failed="on b: TLS"), Rules(), "db has failed 3 times; last error: on b: TLS"),
        (
            vm("db", "a", dirty_bytes_s=2000 * MIB),
            Rules(),
            "db writes 2000 MiB/s of memory, but a copy from a sends only 1192 MiB/s: "
            "allow throttle, pause or postcopy",
        ),
    ],
)
def test_a_vm_that_cannot_move_anywhere_says_why(mine: Vm, rules: Rules, reason: str) -> None:
    answer = drained([host("a"), host("b"), host("c")], [mine], rules=rules)
    assert [one.reason for one in answer.left] == [reason]
    assert answer.moves == ()


def test_a_permission_moves_a_vm_that_does_not_converge() -> None:
    snapshot = fleet([host("a"), host("b")], [vm("db", "a", dirty_bytes_s=2000 * MIB)])
    answer = plan(snapshot, A.model_copy(update={"may": frozenset({May.POSTCOPY})}))
    assert target(answer) == "b"


def test_a_host_that_cannot_be_reached_keeps_its_vms() -> None:
    answer = drained([host("a", unreachable="no answer for 90 s"), host("b")], [vm("db", "a")])
    assert [one.reason for one in answer.left] == ["db cannot leave a: no answer for 90 s"]


def test_the_host_that_lacks_the_least_memory_is_named() -> None:
    answer = drained([host("a"), host("b", gib=10), host("c", gib=14)], [vm("db", "a", gib=16)])
    assert [one.reason for one in answer.left] == [
        "db fits none of 2 other hosts: 2 without enough memory; c lacks the least memory, 2.0 GiB"
    ]


# -------------------------------------------------------------- N+1, making room, priorities


def spare(vms: list[Vm], spare_hosts: int) -> Plan:
    hosts = [host(name, gib=16) for name in ("a", "b", "c")]
    return drained(hosts, vms, limits=Limits(spare_hosts=spare_hosts))


def test_room_for_the_largest_host_is_kept() -> None:
    """b and c have 16 GiB each: one of them may fail."""
    vms = [vm("db", "a", gib=8), vm("web", "b", gib=8)]
    assert target(spare(vms, 0)) is not None
    assert target(spare(vms, 1)) is not None
    vms.append(vm("more", "c", gib=4))
    assert target(spare(vms, 0)) is not None
    assert [one.reason for one in spare(vms, 1).left] == [
        "db fits none of 2 other hosts: 2 where the reserve for failing hosts would be used up"
    ]


def crowded() -> Snapshot:
    """db fits nowhere until web has gone from b to c."""
    hosts = [host("a"), host("b", gib=20), host("c", gib=12)]
    return fleet(hosts, [vm("db", "a", gib=16), vm("web", "b", gib=8), vm("big", "b", gib=4)])


def test_a_resident_moves_on_to_make_room() -> None:
    answer = plan(crowded(), A)
    room, db = sorted(answer.moves, key=lambda move: move.purpose is Purpose.EMPTY)
    assert (room.purpose, room.source, room.target) == (Purpose.ROOM, "b", "c")
    assert (db.name, db.target, db.after) == ("db", "b", (room.number,))
    assert db.start_s >= room.end_s
    assert answer.left == ()


def test_nothing_moves_on_where_there_is_room() -> None:
    snapshot = crowded()
    wide = snapshot.model_copy(update={"hosts": (*snapshot.hosts, host("d", gib=16))})
    assert [move.name for move in plan(wide, A).moves] == ["db"]


PAIR = Rules(together=(Together(name="pair", vms=frozenset({"db", "web"})),))


def test_no_room_is_made_where_a_vm_must_not_go() -> None:
    hosts = [host("a"), host("b", gib=8), host("c", gib=16), host("d", gib=16)]
    vms = [vm("db", "a"), vm("web", "b"), vm("x", "c", gib=4)]
    answer = drained(hosts, vms, rules=PAIR)
    assert answer.moves == () and [one.name for one in answer.left] == ["db"]


def test_a_vm_follows_those_it_has_to_be_with_although_it_was_to_go_elsewhere() -> None:
    hosts = [host("a"), host("b", gib=16), host("c", gib=16)]
    here = fleet(hosts, [vm("db", "a"), vm("web", "a")])
    apart = Rules(apart=(Apart(name="away", vms=frozenset({"db", "web"})),))
    before = plan(here.model_copy(update={"rules": apart}), A)
    assert {target(before), target(before, "web")} == {"b", "c"}
    after = plan(here.model_copy(update={"rules": PAIR}), A, before)
    assert target(after) == target(after, "web")
    moved = fleet(hosts, [vm("db", "a"), vm("web", str(target(before, "web")))], rules=PAIR)
    assert target(plan(moved, A, before)) == target(before, "web")


def test_a_vm_is_not_brought_back_without_those_it_has_to_be_with() -> None:
    returns = tuple(Return(vm=name, origin="a", put_on="b") for name in ("db", "web"))
    here = fleet([host("a"), host("b")], [vm("db", "b"), vm("web", "b"), vm("app", "b")], rules=PAIR)
    assert target(plan(here, BringBack(returns=returns))) == "a"
    alone = plan(here, BringBack(returns=returns[:1]))
    assert [one.reason for one in alone.left] == ["db cannot go back: the rule pair keeps it with web, which stays"]
    three = Rules(together=(Together(name="all", vms=frozenset({"db", "web", "app"})),))
    stay = plan(here.model_copy(update={"rules": three}), BringBack(returns=returns))
    assert stay.moves == () and {one.name for one in stay.left} == {"db", "web"}


def test_who_has_priority_gets_the_place() -> None:
    hosts = [host("a"), host("b", gib=8)]
    vms = [vm("db", "a", gib=8), vm("web", "a", gib=4, priority=1)]
    answer = drained(hosts, vms)
    assert [move.name for move in answer.moves] == ["web"]
    assert [one.name for one in answer.left] == ["db"]


def test_a_host_that_few_can_use_is_left_to_them() -> None:
    hosts = [host("a", cpu=NEW), host("b", cpu=NEW), host("c", cpu=OLD)]
    vms = [vm("db", "a", cpu=OLD), *(vm(f"new{n}", "a", cpu=NEW, gib=4) for n in range(3))]
    assert target(drained(hosts, vms)) == "c"


# -------------------------------------------------------------- the ranking


def test_every_host_is_ranked_or_refused() -> None:
    snapshot = fleet([host("a"), host("b", gib=9), host("c"), host("d", closed="fan")], [vm("db", "a")])
    ranking = rank(snapshot, "db")
    ranked = ranking.choices
    assert ranking.stays == "" and {one.host for one in ranked[:2]} == {"b", "c"}
    assert ranked[2].host == "d"
    assert ranked[2].refusals == ("the host is closed: fan",)
    assert next(one.words for one in ranked if one.host == "b") == "leaves 1.0 GiB and 30 vCPUs"


def test_everything_that_keeps_a_vm_from_a_host_is_said() -> None:
    rules = Rules(
        apart=(Apart(name="web", vms=frozenset({"db", "web"})),),
        together=(Together(name="pair", vms=frozenset({"db", "app"})),),
        groups=(HostGroup(name="licence", vms=frozenset({"db"}), hosts=frozenset({"b"}), never=True),),
        never_move={"db": "dongle"},
    )
    vms = [vm("db", "a"), vm("web", "b"), vm("app", "c", gib=1)]
    hosts = [host("a"), host("b", gib=10), host("c"), host("d", unreachable="no answer")]
    ranking = rank(fleet(hosts, vms, rules=rules), "db")
    assert ranking.stays == "a rule keeps db on a: dongle"
    assert {one.host: one.refusals for one in ranking.choices} == {
        "b": (
            "it is forbidden by the rule licence",
            "it has 2.0 GiB of memory left, but 8.0 GiB are needed",
            "the rule web keeps the VM away",
        ),
        "c": (),
        "d": (
            "it cannot be reached: no answer",
            "it does not have the VMs that the rule pair keeps together with it",
        ),
    }


def test_who_failed_waits_twice_as_long_each_time() -> None:
    assert [retry_after_s(tries) for tries in (1, 2, 3)] == [20, 40, 80]


def test_an_unknown_link_is_taken_for_a_slow_one() -> None:
    slow = host("a", out_bytes_s=None, in_bytes_s=None, stream_bytes_s=None)
    answer = drained([slow, host("b")], [vm("db", "a", gib=8, dirty_bytes_s=0)])
    assert answer.promise.expected_s > 8 * GIB / GBIT_S


def test_a_plan_that_is_made_again_at_once_is_the_same_although_a_better_one_is_found() -> None:
    sizes = {"h0": [1, 1, 1, 1, 2, 2], "h1": [1] * 5, "h2": [1, 1, 5], "h3": [1, 5]}
    vms = [vm(f"{on}-{n}", on, gib=gib, vcpus=1) for on, found in sizes.items() for n, gib in enumerate(found)]
    snapshot = fleet([host(name, gib=8) for name in sizes], vms)
    drain = Drain(hosts=frozenset({"h0"}))
    first = plan(snapshot, drain)
    assert Purpose.ROOM in {move.purpose for move in first.moves}
    again = plan(snapshot, drain, first)
    assert {move.vm: move.target for move in again.moves} == {move.vm: move.target for move in first.moves}
