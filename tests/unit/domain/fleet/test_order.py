"""Bringing back and rebalancing: moves in each other's way are ordered, and parked where they form a circle."""

from __future__ import annotations

from sterna.domain.fleet.operations import BringBack, Drain, Rebalance, Return
from sterna.domain.fleet.planner import plan
from sterna.domain.fleet.plans import Plan, Purpose
from sterna.domain.fleet.snapshot import Apart, Moving, Rules, Snapshot
from tests.unit.domain.fleet.fleets import fleet, host, vm


def back(snapshot: Snapshot, *origins: tuple[str, str]) -> Plan:
    at = {one.uuid: one.host for one in snapshot.vms}
    returns = tuple(Return(vm=name, origin=origin, put_on=at[name]) for name, origin in origins)
    return plan(snapshot, BringBack(returns=returns))


def shown(answer: Plan) -> list[tuple[str, str, str]]:
    """In an order that the dependencies allow."""
    done: set[int] = set()
    order = []
    while len(done) < len(answer.moves):
        move = next(move for move in answer.moves if move.number not in done and set(move.after) <= done)
        done.add(move.number)
        order.append((move.name, move.target, move.purpose.value))
    return order


def test_a_vm_waits_for_the_one_that_has_its_place() -> None:
    snapshot = fleet([host("a", gib=10), host("b", gib=10), host("c", gib=10)], [vm("x", "b"), vm("y", "a")])
    answer = back(snapshot, ("x", "a"), ("y", "c"))
    assert shown(answer) == [("y", "c", "bring back"), ("x", "a", "bring back")]


def test_a_circle_is_broken_by_parking_the_smaller_one() -> None:
    snapshot = fleet([host("a", gib=10), host("b", gib=10), host("c", gib=10)], [vm("x", "b"), vm("y", "a", gib=6)])
    answer = back(snapshot, ("x", "a"), ("y", "b"))
    assert shown(answer) == [("y", "c", "park"), ("x", "a", "bring back"), ("y", "b", "bring back")]
    assert answer.left == ()


def test_a_circle_without_a_place_to_park_stays_and_says_so() -> None:
    snapshot = fleet([host("a", gib=10), host("b", gib=10)], [vm("x", "b"), vm("y", "a", gib=6)])
    answer = back(snapshot, ("x", "a"), ("y", "b"))
    assert answer.moves == ()
    assert [one.reason for one in answer.left] == [
        "y cannot go back: b: it does not have enough memory",
        "x cannot go back: a: it does not have enough memory",
    ]


def test_a_vm_waits_until_the_one_it_must_not_meet_has_gone() -> None:
    rules = Rules(apart=(Apart(name="pair", vms=frozenset({"x", "y"})),))
    snapshot = fleet([host("a"), host("b"), host("c")], [vm("x", "b"), vm("y", "a")], rules=rules)
    answer = back(snapshot, ("x", "a"), ("y", "c"))
    assert shown(answer) == [("y", "c", "bring back"), ("x", "a", "bring back")]


def test_a_vm_that_somebody_has_moved_since_stays() -> None:
    snapshot = fleet([host("a"), host("b"), host("c")], [vm("x", "c"), vm("y", "b")])
    returns = (Return(vm="x", origin="a", put_on="b"), Return(vm="y", origin="a", put_on="b"))
    answer = plan(snapshot, BringBack(returns=returns))
    assert [move.name for move in answer.moves] == ["y"]
    assert [one.reason for one in answer.left] == ["x has since been migrated from b to c"]


def test_a_vm_that_is_back_already_is_left_alone() -> None:
    snapshot = fleet([host("a"), host("b")], [vm("x", "a")])
    assert plan(snapshot, BringBack(returns=(Return(vm="x", origin="a", put_on="b"),))) == Plan()


def test_a_vm_keeps_its_target_while_the_resident_that_makes_room_there_is_on_its_way() -> None:
    hosts = [host("a", 8), host("b", 8), host("c", 8)]
    full = [vm("x", "a", 2), vm("b1", "b", 1), vm("b6", "b", 6), vm("c1", "c", 7)]
    drain = Drain(hosts=frozenset({"a"}))
    first = plan(fleet(hosts, full), drain)
    assert shown(first) == [("b1", "c", "make room"), ("x", "b", "empty")]
    second = plan(fleet(hosts, full, moving=(Moving(vm="b1", target="c"),)), drain, first)
    assert second.left == ()
    assert [(move.name, move.target, move.begun) for move in second.moves] == [("b1", "c", True), ("x", "b", False)]
    assert second.moves[1].after == (0,)


def test_an_origin_that_is_closed_or_gone_is_named() -> None:
    snapshot = fleet([host("a", closed="fan"), host("b")], [vm("x", "b"), vm("y", "b")])
    answer = back(snapshot, ("x", "a"), ("y", "z"))
    assert [one.reason for one in answer.left] == [
        "x cannot go back: a is closed: fan",
        "y cannot go back: there is no host z",
    ]


def test_a_move_into_room_that_a_running_migration_leaves_waits_for_it() -> None:
    snapshot = fleet(
        [host("a", gib=10), host("b", gib=10), host("c", gib=10)],
        [vm("x", "b"), vm("y", "a")],
        moving=(Moving(vm="y", target="c"),),
    )
    answer = back(snapshot, ("x", "a"))
    by_name = {move.name: move for move in answer.moves}
    assert by_name["y"].begun
    assert by_name["x"].after == (by_name["y"].number,)


# -------------------------------------------------------------- rebalance


def uneven() -> Snapshot:
    return fleet([host("a", gib=32), host("b", gib=32)], [vm(f"x{n}", "a", gib=7) for n in range(4)])


def test_vms_go_from_the_fullest_host_to_the_emptiest() -> None:
    answer = plan(uneven(), Rebalance(threshold=0.3))
    assert [(move.target, move.purpose) for move in answer.moves] == [("b", Purpose.BALANCE)] * 2


def test_hosts_that_differ_less_than_the_threshold_are_left_alone() -> None:
    assert plan(uneven(), Rebalance(threshold=0.9)).moves == ()


def test_a_move_that_evens_out_too_little_is_not_made() -> None:
    snapshot = fleet([host("a", gib=32), host("b", gib=32)], [vm("x", "a", gib=30)])
    assert plan(snapshot, Rebalance(threshold=0.3)).moves == ()


def test_a_vm_that_moves_already_counts_as_arrived() -> None:
    snapshot = uneven().model_copy(update={"moving": (Moving(vm="x0", target="b"),)})
    moves = plan(snapshot, Rebalance(threshold=0.3)).moves
    assert [(move.begun, move.target) for move in moves] == [(True, "b"), (False, "b")]


def test_a_small_host_is_not_made_fuller_than_the_full_one_was() -> None:
    snapshot = fleet([host("a", gib=100), host("b", gib=10)], [vm("x", "a", gib=9), vm("y", "a", gib=71)])
    assert plan(snapshot, Rebalance(threshold=0.3)).moves == ()


def test_where_the_fullest_host_can_give_nothing_the_next_one_does() -> None:
    snapshot = fleet(
        [host("a", gib=32), host("b", gib=32), host("c", gib=32)],
        [vm("x", "a", gib=31, pinned="it is paused"), *(vm(f"y{n}", "b", gib=7) for n in range(4))],
    )
    assert {(move.source, move.target) for move in plan(snapshot, Rebalance(threshold=0.3)).moves} == {("b", "c")}


def test_only_the_named_hosts_give_and_take() -> None:
    snapshot = fleet([host(name, gib=32) for name in "abc"], [vm(f"x{n}", "a", gib=7) for n in range(4)])
    moves = plan(snapshot, Rebalance(threshold=0.3, hosts=frozenset("ac"))).moves
    assert {move.target for move in moves} == {"c"}


def test_the_spread_is_how_full_the_fullest_and_the_emptiest_host_are() -> None:
    spread = plan(uneven(), Rebalance(threshold=0.3)).spread
    assert spread is not None
    shares = [spread.fullest, spread.emptiest, spread.fullest_after, spread.emptiest_after]
    assert [round(share, 3) for share in shares] == [0.875, 0.0, 0.438, 0.438]


def test_vms_that_moved_a_while_ago_rest_and_busier_hosts_take_nothing() -> None:
    resting = frozenset({"x0", "x1"})
    moves = plan(uneven(), Rebalance(threshold=0.3, resting=resting)).moves
    assert {move.vm for move in moves} == {"x2", "x3"}
    assert plan(uneven(), Rebalance(threshold=0.3, load={"a": 0.2, "b": 0.9})).moves == ()
