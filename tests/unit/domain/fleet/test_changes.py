"""A promise that moves names the VM, host or link that moved it."""

from __future__ import annotations

from typing import Any

import pytest

from sterna.domain.fleet.changes import Then, why_moved
from sterna.domain.fleet.operations import Drain
from sterna.domain.fleet.planner import plan
from sterna.domain.fleet.snapshot import Snapshot
from tests.unit.domain.fleet.fleets import GBIT_S, MIB, fleet, host, vm

A = Drain(hosts=frozenset({"a"}))


def calm() -> Snapshot:
    hosts = [host("a", gib=512), *(host(f"t{n}") for n in range(5))]
    return fleet(hosts, [vm(f"x{n}", "a", gib=16) for n in range(5)])


def changed(snapshot: Snapshot, name: str, **fields: Any) -> Snapshot:
    hosts = tuple(one.model_copy(update=fields) if one.name == name else one for one in snapshot.hosts)
    vms = tuple(one.model_copy(update=fields) if one.name == name else one for one in snapshot.vms)
    return snapshot.model_copy(update={"hosts": hosts, "vms": vms})


def moved(before: Snapshot, after: Snapshot, ended_s: dict[int, float] | None = None, elapsed_s: float = 0) -> Any:
    first = plan(before, A)
    then = Then(snapshot=before, plan=first, elapsed_s=elapsed_s)
    return why_moved(then, after, A, plan(after, A, first), ended_s)


@pytest.mark.parametrize(
    "name, fields, reason",
    [
        ("x3", {"dirty_bytes_s": 1000 * MIB}, "x3 writes 1000 MiB/s instead of 20 MiB/s"),
        ("a", {"out_bytes_s": 5 * GBIT_S}, "the link out of a carries 596 MiB/s instead of 2980 MiB/s"),
        ("a", {"stream_bytes_s": GBIT_S}, "a copy on a reaches 119 MiB/s instead of 1192 MiB/s"),
        ("x2", {"memory_bytes": 60 << 30}, "x2 has 61440 MiB to copy instead of 16384 MiB"),
    ],
)
def test_what_moved_the_promise_is_named(name: str, fields: dict[str, Any], reason: str) -> None:
    change = moved(calm(), changed(calm(), name, **fields))
    assert change.reason == reason
    assert change.by_s > 5
    back = moved(changed(calm(), name, **fields), calm())
    assert back.by_s == -change.by_s


def test_of_two_changes_the_one_that_matters_is_named() -> None:
    after = changed(changed(calm(), "x1", dirty_bytes_s=25 * MIB), "x4", dirty_bytes_s=1000 * MIB)
    assert moved(calm(), after).reason == "x4 writes 1000 MiB/s instead of 20 MiB/s"


def test_a_new_vm_is_named() -> None:
    after = calm().model_copy(update={"vms": (*calm().vms, vm("late", "a", gib=48))})
    assert moved(calm(), after).reason == "late is new on a"


def test_small_changes_do_not_move_a_promise() -> None:
    assert moved(calm(), changed(calm(), "x1", dirty_bytes_s=21 * MIB)) is None


def test_a_copy_that_took_longer_is_named_where_nothing_else_changed() -> None:
    change = moved(calm(), calm(), {0: 10.0, 1: 500.0}, elapsed_s=100)
    assert change.reason.startswith("x1 left a ")
    assert change.reason.endswith(" s later than expected")
    assert moved(calm(), calm(), elapsed_s=100).reason == "running migrations are slower than expected"
