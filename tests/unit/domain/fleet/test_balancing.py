"""A rebalance of fleets that are easy to compute by hand."""

from __future__ import annotations

from collections import Counter

from sterna.domain.fleet.operations import Rebalance
from sterna.domain.fleet.planner import plan
from tests.unit.domain.fleet.fleets import fleet, host, vm


def test_equal_vms_of_one_host_are_spread_over_all_hosts() -> None:
    vms = [vm(f"x{n}", "a") for n in range(6)]
    found = plan(fleet([host("a"), host("b"), host("c")], vms), Rebalance(threshold=0.1))
    assert Counter(move.target for move in found.moves) == {"b": 2, "c": 2}


def test_the_move_that_evens_out_most_is_the_first() -> None:
    """A fuller host goes first, even if a larger VM of another host takes longer."""
    vms = [vm(f"x{n}", "a", gib=10) for n in range(6)] + [vm("y", "b", gib=30), vm("z", "b", gib=1)]
    found = plan(fleet([host("a"), host("b"), host("c")], vms), Rebalance(threshold=0.1))
    assert found.moves[0].source == "a" and {move.target for move in found.moves} == {"c"}
