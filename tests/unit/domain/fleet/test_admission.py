"""What begins of a plan and what waits, look by look, as a controller asks: the plan is made again at each look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sterna.domain.fleet.admission import Admitted, Situation, admit, ending, waits_for
from sterna.domain.fleet.course import OperationStatus
from sterna.domain.fleet.operations import Drain
from sterna.domain.fleet.planner import plan
from sterna.domain.fleet.plans import Move, Plan
from sterna.domain.fleet.snapshot import Moving, Snapshot, Vm
from tests.unit.domain.fleet.fleets import MIB, fleet, fleets, host, vm
from tests.unit.domain.fleet.usage import Usage

A = Drain(hosts=frozenset({"a"}))
RUNNING = OperationStatus.RUNNING


class Looks:
    """A fleet that an operation works on, by what is admitted at each look."""

    def __init__(self, snapshot: Snapshot, drain: Drain) -> None:
        self.snapshot, self.drain = snapshot, drain
        self.usage = Usage(snapshot)
        self.running: dict[str, Move] = {}
        self.preparing: set[str] = set()
        self.plan: Plan | None = None

    def look(self) -> Admitted:
        self.plan = plan(self.snapshot, self.drain, self.plan)
        found = admit(self.snapshot, self.plan, self.drain.may, preparing=self.preparing)
        for move in found.start:
            assert move.vm not in self.running
            self.running[move.vm] = move
            self.preparing.add(move.vm)
            self.usage.count(self._vm(move), move.target)
            assert self.usage.over(move.target) == []
        assert self.usage.broken_rules() <= self.usage.broken_before
        self._change()
        return found

    def end(self, move: Move) -> None:
        del self.running[move.vm]
        self.preparing.discard(move.vm)
        self.usage.discount(self._vm(move), move.source)
        self._change({move.vm: move.target})

    def _vm(self, move: Move) -> Vm:
        return next(one for one in self.usage.snapshot.vms if one.uuid == move.vm)

    def _change(self, at: dict[str, str] | None = None) -> None:
        arrived = at or {}
        vms = tuple(
            one.model_copy(update={"host": arrived[one.uuid], "on_cells": ()}) if one.uuid in arrived else one
            for one in self.snapshot.vms
        )
        moving = tuple(Moving(vm=move.vm, target=move.target) for move in self.running.values())
        self.snapshot = self.snapshot.model_copy(update={"vms": vms, "moving": moving})


@st.composite
def drains(draw: st.DrawFn) -> Looks:
    snapshot = draw(fleets())
    names = [one.name for one in snapshot.hosts]
    some = draw(st.frozensets(st.sampled_from(names), min_size=1, max_size=max(1, len(names) - 1)))
    return Looks(snapshot, Drain(hosts=some))


@given(drains(), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_an_operation_comes_to_its_end_within_its_slots(looks: Looks, random: Random) -> None:
    hosts = looks.drain.hosts
    for _ in range(200):
        found = looks.look()
        assert looks.plan is not None
        sources = Counter(looks.running[vm].source for vm in looks.preparing)
        targets = Counter(looks.running[vm].target for vm in looks.preparing)
        assert max([0, *sources.values(), *targets.values()]) <= looks.snapshot.limits.preparing
        started, waiting = {move.vm for move in found.start}, {wait.vm for wait in found.waits}
        planned = {move.vm for move in looks.plan.moves}
        assert planned == started | waiting | {move.vm for move in looks.plan.moves if move.begun}
        assert all(wait.reason for wait in found.waits)
        ended = ending(
            RUNNING,
            active=bool(looks.running),
            situation=Situation(hosts=hosts, snapshot=looks.snapshot, plan=looks.plan, admitted=found),
        )
        if ended is not None:
            break
        assert looks.running, "it waits for nothing"
        for name in list(looks.preparing):
            if random.random() < 0.5:
                looks.preparing.discard(name)
        looks.end(random.choice(list(looks.running.values())))
    assert looks.plan is not None
    inside = {one.uuid for one in looks.snapshot.vms if one.host in hosts}
    assert ended is (OperationStatus.INCOMPLETE if inside else OperationStatus.DONE)
    assert inside == {one.vm for one in looks.plan.left if one.host in hosts}


def many() -> Snapshot:
    hosts = [host("a", gib=512), *(host(f"t{n}", gib=16) for n in range(9))]
    return fleet(hosts, [vm(f"x{n}", "a", dirty_bytes_s=0) for n in range(9)])


def test_a_host_prepares_so_many_and_the_rest_says_so() -> None:
    found = admit(many(), plan(many(), A))
    assert [move.name for move in found.start] == ["x0", "x1", "x2", "x3"]
    assert {wait.reason for wait in found.waits} == {"a is already preparing 4 migrations: x0, x1, x2, x3"}


def test_a_host_prepares_so_many_that_come_to_it_from_wherever() -> None:
    sources = [host(f"s{n}") for n in range(7)]
    snapshot = fleet([*sources, host("t", gib=512)], [vm(f"x{n}", f"s{n}", dirty_bytes_s=0) for n in range(7)])
    drain = Drain(hosts=frozenset(one.name for one in sources))
    limits = snapshot.limits.model_copy(update={"preparing": 2})
    snapshot = snapshot.model_copy(update={"limits": limits})
    found = admit(snapshot, plan(snapshot, drain))
    assert len(found.start) == 2 and {move.target for move in found.start} == {"t"}
    names = ", ".join(move.name for move in found.start)
    assert {wait.reason for wait in found.waits} == {f"t is already preparing 2 migrations to it: {names}"}
    begun = tuple(Moving(vm=move.vm, target="t") for move in found.start)
    after = snapshot.model_copy(update={"moving": begun})
    (first, _) = begun
    again = admit(after, plan(after, drain), preparing=[first.vm])
    assert len(again.start) == 1


def test_what_somebody_else_has_started_takes_a_slot() -> None:
    own = tuple(Moving(vm=f"x{n}", target=f"t{n}") for n in range(3))
    snapshot = many().model_copy(update={"moving": own})
    found = admit(snapshot, plan(snapshot, A))
    assert len(found.start) == 1
    four = ", ".join(["x0", "x1", "x2", found.start[0].name])
    assert {wait.reason for wait in found.waits} == {f"the link out of a already carries 4 copies: {four}"}


def test_a_vm_that_rests_is_passed_over_and_its_reason_is_given() -> None:
    found = admit(many(), plan(many(), A), resting={"x0": "x0 has failed"})
    assert [move.name for move in found.start] == ["x1", "x2", "x3", "x4"]
    two = many().model_copy(update={"vms": many().vms[:2]})
    found = admit(two, plan(two, A), resting={"x0": "x0 has failed"})
    assert [(wait.name, wait.reason) for wait in found.waits] == [("x0", "x0 has failed")]


def test_a_vm_on_its_way_into_a_host_that_closes_waits_for_the_abort() -> None:
    hosts = [host("a"), host("b"), host("c")]
    snapshot = fleet(hosts, [vm("x", "b")], moving=(Moving(vm="x", target="a"),))
    both = Drain(hosts=frozenset({"a", "b"}))
    answer = plan(snapshot, both)
    assert answer.aborts == ("x",)
    found = admit(snapshot, answer)
    assert not found.start
    assert [wait.reason for wait in found.waits] == ["x is in a migration that is being aborted"]


def test_a_vm_on_its_way_to_a_host_that_nobody_knows_is_not_said_to_be_aborted() -> None:
    snapshot = fleet([host("a"), host("b")], [vm("x", "a")], moving=(Moving(vm="x", target="z"),))
    found = admit(snapshot, plan(snapshot, A))
    assert not found.start
    assert [wait.reason for wait in found.waits] == ["x is in a migration to z"]


def ends(snapshot: Snapshot, status: OperationStatus = RUNNING, *, active: bool = False) -> OperationStatus | None:
    answer = plan(snapshot, A)
    found = admit(snapshot, answer)
    situation = Situation(hosts=A.hosts, snapshot=snapshot, plan=answer, admitted=found)
    return ending(status, active=active, situation=situation)


def test_it_is_done_when_its_hosts_are_empty_and_nothing_of_it_runs() -> None:
    empty = fleet([host("a"), host("b")], [vm("x", "b")])
    assert ends(empty) is OperationStatus.DONE
    assert ends(empty, active=True) is None
    assert ends(empty, OperationStatus.PAUSED) is None


def test_it_is_not_done_while_anything_is_on_its_way_in() -> None:
    late = Moving(vm="x", target="a", may_abort=False)
    assert ends(fleet([host("a"), host("b")], [vm("x", "b")], moving=(late,))) is None


def test_what_cannot_move_leaves_it_incomplete_unless_its_host_may_come_back() -> None:
    stays = vm("x", "a", pinned="it is off")
    assert ends(fleet([host("a"), host("b")], [stays])) is OperationStatus.INCOMPLETE
    assert ends(fleet([host("a", unreachable="no beacon"), host("b")], [stays])) is None


@pytest.mark.parametrize("active, then", [(True, None), (False, OperationStatus.STOPPED)])
def test_one_that_is_stopped_ends_with_its_last_migration(active: bool, then: OperationStatus | None) -> None:
    assert ending(OperationStatus.STOPPING, active=active) is then


@pytest.mark.parametrize("gone", [False, True])
def test_an_undo_waits_for_the_hosts_that_it_needs_and_that_may_come_back(gone: bool) -> None:
    undoing = OperationStatus.UNDOING
    for silent, why in (("", ""), ("no beacon", "a cannot be reached: no beacon")):
        snapshot = fleet([host("a", unreachable=silent, gone=gone)], [vm("x", "a", dirty_bytes_s=9 * MIB)])
        situation = Situation(hosts=A.hosts, snapshot=snapshot, plan=Plan(), admitted=Admitted())
        expected = "" if gone else why
        assert waits_for(undoing, situation) == expected
        assert ending(undoing, active=False, situation=situation) is (None if expected else OperationStatus.UNDONE)


def test_a_drain_does_not_wait_for_a_host_that_is_gone() -> None:
    hosts = [host("a", unreachable="it was declared dead", gone=True), host("b")]
    assert ends(fleet(hosts, [vm("x", "a")])) is OperationStatus.INCOMPLETE


class Counted(tuple[Vm, ...]):
    """VMs, and how often they are looked through."""

    times = 0

    def __iter__(self) -> Iterator[Vm]:
        Counted.times += 1
        return super().__iter__()


def test_each_of_many_hosts_is_asked_about_without_a_look_at_all_vms() -> None:
    names = [f"h{n}" for n in range(50)]
    vms = Counted(vm(f"x{n}", name) for n, name in enumerate(names))
    coming = tuple(Moving(vm=f"x{n}", target=names[n - 1], may_abort=False) for n in range(1, 50, 7))
    snapshot = fleet([host(name) for name in names], []).model_copy(update={"vms": vms, "moving": coming})
    situation = Situation(hosts=frozenset(names), snapshot=snapshot, plan=Plan(), admitted=Admitted())
    before = Counted.times
    for n, name in enumerate(names):
        one = situation.model_copy(update={"hosts": frozenset({name})})
        busy = n % 7 == 1 or (n % 7 == 0 and n < 49)
        assert bool(waits_for(RUNNING, one)) == busy
        assert ending(RUNNING, active=False, situation=one) is (None if busy else OperationStatus.INCOMPLETE)
    assert Counted.times == before


def test_what_a_drain_waits_for_is_named() -> None:
    late = Moving(vm="x", target="a", may_abort=False)
    snapshot = fleet([host("a"), host("b")], [vm("x", "b")], moving=(late,))
    situation = Situation(hosts=A.hosts, snapshot=snapshot, plan=Plan(), admitted=Admitted())
    assert waits_for(RUNNING, situation) == "the migration of x from b to a"
    unknown = fleet([host("a"), host("b")], [], moving=(late,))
    situation = Situation(hosts=A.hosts, snapshot=unknown, plan=Plan(), admitted=Admitted())
    assert waits_for(RUNNING, situation) == "the migration of x to a"
    names = [f"h{n}" for n in range(5)]
    silent = fleet([host(name, unreachable="no beacon") for name in names], [vm(name, name) for name in names])
    situation = Situation(hosts=frozenset(names), snapshot=silent, plan=Plan(), admitted=Admitted())
    assert waits_for(RUNNING, situation).endswith("h2 cannot be reached: no beacon; and 2 others")
