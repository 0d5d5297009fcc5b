"""Moves played through: slots, budgets and times, compared with what can be calculated by hand."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from sterna.domain.fleet.budgets import Budgets
from sterna.domain.fleet.operations import Drain
from sterna.domain.fleet.pace import Paces
from sterna.domain.fleet.planner import plan
from sterna.domain.fleet.plans import Plan
from sterna.domain.fleet.simulation import Job, Simulation
from sterna.domain.fleet.snapshot import FailureDomain, Limits, Moving, Snapshot
from sterna.domain.fleet.tables import Tables
from sterna.domain.policies import May
from tests.unit.domain.fleet.fleets import GBIT_S, GIB, MIB, fleet, host, vm

FIXED_S = 1.2
A = Drain(hosts=frozenset({"a"}))


def wide(vms: int = 6, gib: int = 8, targets: int = 6, **more: Any) -> Snapshot:
    hosts = [host("a", gib=1024), *(host(f"t{n}", domain="r2") for n in range(targets))]
    return fleet(hosts, [vm(f"x{n}", "a", gib=gib, dirty_bytes_s=0) for n in range(vms)], **more)


def test_one_copy_takes_its_stream() -> None:
    answer = plan(wide(vms=1), A)
    assert answer.promise.expected_s == pytest.approx(FIXED_S + 8 * GIB / (10 * GBIT_S), abs=0.1)


def test_a_dirtying_guest_takes_longer() -> None:
    snapshot = fleet([host("a"), host("b")], [vm("x", "a", dirty_bytes_s=5 * GBIT_S)])
    assert plan(snapshot, A).promise.expected_s == pytest.approx(FIXED_S + 8 * GIB / (5 * GBIT_S), abs=0.1)


def test_many_copies_fill_the_link() -> None:
    answer = plan(wide(vms=12), A)
    sending = 12 * 8 * GIB / (25 * GBIT_S)
    assert sending < answer.promise.expected_s <= 1.05 * (sending + FIXED_S)
    assert answer.bounds.egress_s == pytest.approx(sending + FIXED_S)


def test_no_more_copies_run_than_the_link_carries() -> None:
    answer = plan(wide(vms=12, targets=12), A)
    events = sorted([(move.start_s, 1) for move in answer.moves] + [(move.end_s, -1) for move in answer.moves])
    running = most = 0
    for _, change in events:
        running += change
        most = max(most, running)
    assert most <= 4 + Limits().preparing + 4  # copying, preparing, finishing


def test_a_target_prepares_no_more_than_it_may_and_all_arrive() -> None:
    hosts = [*(host(f"s{n}") for n in range(9)), host("t", gib=512)]
    snapshot = fleet(hosts, [vm(f"x{n}", f"s{n}", gib=1, dirty_bytes_s=0) for n in range(9)])
    snapshot = snapshot.model_copy(update={"limits": Limits(preparing=2)})
    moves = plan(snapshot, Drain(hosts=frozenset(one.name for one in hosts[:9]))).moves
    assert len(moves) == 9 and all(move.end_s > move.start_s >= 0 for move in moves)
    begins = Counter(move.start_s for move in moves)
    assert max(begins.values()) <= 2 and len(begins) >= 5


@pytest.mark.parametrize(
    "more",
    [
        {"domains": (FailureDomain(name="r1", up_bytes_s=5 * GBIT_S),)},
        {"domains": (FailureDomain(name="r2", down_bytes_s=5 * GBIT_S),)},
        {"limits": Limits(fleet_bytes_s=5 * GBIT_S)},
    ],
    ids=["uplink", "downlink", "fleet"],
)
def test_a_budget_that_is_shared_is_kept(more: dict[str, Any]) -> None:
    snapshot = wide(vms=6, **more)
    first = snapshot.hosts[0].model_copy(update={"domain": "r1"})
    answer = plan(snapshot.model_copy(update={"hosts": (first, *snapshot.hosts[1:])}), A)
    sending = 6 * 8 * GIB / (5 * GBIT_S)
    assert sending < answer.promise.expected_s <= 1.05 * sending + FIXED_S
    assert answer.bounds.uplinks_s == pytest.approx(sending + FIXED_S)


def test_moves_within_a_failure_domain_do_not_use_its_uplink() -> None:
    snapshot = wide(vms=1, domains=(FailureDomain(name="r2", up_bytes_s=GBIT_S, down_bytes_s=GBIT_S),))
    first = snapshot.hosts[0].model_copy(update={"domain": "r2"})
    answer = plan(snapshot.model_copy(update={"hosts": (first, *snapshot.hosts[1:])}), A)
    assert answer.bounds.uplinks_s == 0
    assert answer.promise.expected_s < 10


def test_what_runs_already_has_less_to_send() -> None:
    moving = (Moving(vm="x0", target="t0", left_bytes=GIB),)
    answer = plan(wide(vms=1, moving=moving), A)
    assert [move.begun for move in answer.moves] == [True]
    assert answer.promise.expected_s == pytest.approx(0.6 + GIB / (10 * GBIT_S), abs=0.1)


def test_a_migration_into_a_host_that_is_drained_is_aborted_unless_it_is_past_its_pivot() -> None:
    snapshot = fleet([host("a"), host("b")], [vm("x", "b")], moving=(Moving(vm="x", target="a"),))
    answer = plan(snapshot, A)
    assert (answer.aborts, answer.moves) == (("x",), ())
    late = snapshot.model_copy(update={"moving": (Moving(vm="x", target="a", may_abort=False),)})
    answer = plan(late, A)
    assert answer.aborts == ()
    assert [(move.vm, move.target, move.begun) for move in answer.moves] == [("x", "a", True)]


def test_a_deadline_that_is_missed_is_missed_by_so_much() -> None:
    promised = plan(wide(), A).promise.promised_s
    asked = A.model_copy(update={"finish_within_s": promised - 5})
    assert plan(wide(), asked).late_s == pytest.approx(5)
    assert plan(wide(), asked.model_copy(update={"finish_within_s": promised + 5})).late_s is None


# -------------------------------------------------------------- what decides the promise, and what would help


def test_the_vm_that_decides_the_promise_is_named_and_what_would_help() -> None:
    snapshot = wide(vms=3)
    slow = vm("db7", "a", gib=32, dirty_bytes_s=1000 * MIB)
    answer = plan(snapshot.model_copy(update={"vms": (*snapshot.vms, slow)}), A)
    sentence = "db7 ends last: 32.0 GiB are copied from a, and it writes 1000 MiB/s"
    assert answer.promise.waits_for == sentence
    assert [one.sentence.partition(":")[0] for one in answer.promise.helps] == ["post-copy for db7"]
    permitted = plan(
        snapshot.model_copy(update={"vms": (*snapshot.vms, slow)}),
        A.model_copy(update={"may": frozenset({May.POSTCOPY})}),
    )
    gain = answer.promise.expected_s - permitted.promise.expected_s
    assert answer.promise.helps[0].gain_s == pytest.approx(gain, abs=1)


def test_the_link_that_decides_the_promise_is_named() -> None:
    assert plan(wide(vms=12), A).promise.waits_for.startswith("the link out of a is the bottleneck: 96.0 GiB at")


def test_nothing_to_move_promises_nothing() -> None:
    snapshot = fleet([host("a"), host("b")], [vm("x", "b")])
    assert plan(snapshot, A) == Plan()


# -------------------------------------------------------------- the engine itself


def test_links_never_carry_more_than_they_can() -> None:
    snapshot = fleet(
        [*(host(f"s{n}", gib=256) for n in range(4)), host("t", gib=1024), host("u", gib=1024)],
        [vm(f"x{s}{n}", f"s{s}", gib=2 + n, dirty_bytes_s=30 * MIB) for s in range(4) for n in range(8)],
        limits=Limits(fleet_bytes_s=60 * GBIT_S),
    )
    tables = Tables(snapshot)
    paces = Paces(tables)
    budgets = Budgets(paces)
    jobs = [Job(v, tables.home[v], tables.host_at["t" if v % 3 else "u"]) for v in range(len(tables.vms))]
    watched = _Watched(jobs, budgets, paces)
    assert watched.run() > 0
    assert watched.looks > 50
    assert all(job.end_s > 0 for job in jobs)


class _Watched(Simulation):
    """Adds up what runs after every cut."""

    looks = 0

    def _cut(self, sources: set[int]) -> None:
        super()._cut(sources)
        self.looks += 1
        for budget, whole in enumerate(self.budgets.room):
            rates = [job.rate for job in self.jobs if budget in job.budgets]
            assert sum(rates) <= whole + 1
            assert sum(rate > 0 for rate in rates) <= self.budgets.slots[budget]
