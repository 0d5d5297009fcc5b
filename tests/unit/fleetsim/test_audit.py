"""The auditor of `make fleet` finds each violation that is planted, and nothing in a run without one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from bench.fleetsim.audit import MAINTENANCE, Closed, audit, least_s, left_on
from bench.fleetsim.report import moves_of
from bench.fleetsim.truth import Truth

from tests.unit.fleetsim.small import GIB, Watch, made, moved

Plant = Callable[[Truth], None]


def played(plant: Plant) -> Truth:
    truth = Truth(made(), Watch())
    plant(truth)
    return truth


def test_nothing_is_wrong_with_a_fleet_at_rest_and_with_good_moves() -> None:
    def well(truth: Truth) -> None:
        moved(truth, "1", "a", "c")
        moved(truth, "2", "a", "b")

    truth = played(well)
    found = audit(truth.made, truth.facts, [Closed("a", truth.facts[6].at_s, float("inf"))])
    assert found.violations == [] and found.lost == set()
    assert found.moved == {"1": 1, "2": 1}
    assert found.fullest == 0.8
    assert left_on(truth.made, truth.facts, ["a"]) == [] and left_on(truth.made, truth.facts, ["b"]) == [
        "vm-2",
        "vm-3",
    ]


def runs_twice(truth: Truth) -> None:
    truth.receive("c", "1", "m")
    truth.runs_on.pop("1")  # the world forgets to stop it
    truth.hand_over("1", "a", "c")


def against_the_rule(truth: Truth) -> None:
    moved(truth, "1", "a", "b")


def too_full(truth: Truth) -> None:
    moved(truth, "2", "a", "b")
    truth.made.vms["4"] = truth.made.vms["1"].__class__("4", "vm-4", "c", 4 * GIB, 1, 1e6)
    truth.receive("b", "4", "m")


def ends(truth: Truth) -> None:
    truth.release("a", "1", "killed")


def left_over(truth: Truth) -> None:
    truth.receive("c", "1", "m")


def restarted(truth: Truth) -> None:
    truth.power_off("a", MAINTENANCE)
    truth.power_on("a")


@pytest.mark.parametrize(
    "plant, says",
    [
        (runs_twice, "vm-1 runs on c and a"),
        (against_the_rule, "vm-1 is on b with vm-3, against g"),
        (too_full, "b is over its memory with vm-4"),
        (ends, "at the end vm-1 runs on: nowhere"),
        (left_over, "at the end c has a QEMU of vm-1 left over"),
        (restarted, "a was restarted with vm-1 on it"),
    ],
)
def test_a_violation_is_found(plant: Plant, says: str) -> None:
    truth = played(plant)
    found = audit(truth.made, truth.facts)
    assert any(says in one for one in found.violations), found.violations


def test_what_comes_to_a_closed_host_is_found_and_what_comes_before_and_after_is_not() -> None:
    truth = played(lambda truth: moved(truth, "1", "a", "c"))
    (came,) = [fact.at_s for fact in truth.facts if (fact.host, fact.what) == ("c", "holds")]
    assert audit(truth.made, truth.facts, [Closed("c", came, came + 1)]).violations == [
        f"at {came - truth.facts[0].at_s:.1f} s: vm-1 came to c, which is closed"
    ]
    for closed in (Closed("c", 0.0, came), Closed("c", came + 0.5, float("inf")), Closed("b", came, float("inf"))):
        assert audit(truth.made, truth.facts, [closed]).violations == []


def test_vms_of_a_host_that_lost_power_are_lost_and_nothing_else_is_excused() -> None:
    def cut(truth: Truth) -> None:
        truth.receive("b", "2", "m")
        truth.power_off("a", "power lost")

    truth = played(cut)
    found = audit(truth.made, truth.facts)
    assert found.lost == {"1", "2"}
    assert found.violations == ["at the end b has a QEMU of vm-2 left over"]


def test_moves_are_read_from_the_facts() -> None:
    def some(truth: Truth) -> None:
        moved(truth, "1", "a", "c")
        truth.receive("c", "2", "m")
        truth.forget("c", "2")

    truth = played(some)
    first, second = moves_of(truth.facts)
    assert (first.vm, first.source, first.target, first.arrived) == ("1", "a", "c", True)
    assert (second.vm, second.source, second.target, second.arrived) == ("2", "a", "c", False)
    assert first.from_s < first.to_s <= second.from_s < second.to_s


def test_no_drain_is_faster_than_its_links() -> None:
    assert least_s(made(), ["a"]) == 8 * GIB / 1e9
    assert least_s(made(), ["a", "b"]) == 12 * GIB / 1e9  # all of it into c
