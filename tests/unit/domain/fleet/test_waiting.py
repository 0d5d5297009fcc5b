"""Why a move waits: the sentence names what keeps it, and is gone with it."""

from __future__ import annotations

from sterna.domain.fleet.operations import Drain, Rolling
from sterna.domain.fleet.planner import plan
from sterna.domain.fleet.snapshot import FailureDomain, Snapshot
from sterna.domain.fleet.waiting import Progress, Queue
from tests.unit.domain.fleet.fleets import GBIT_S, MIB, fleet, host, vm

A = Drain(hosts=frozenset({"a"}))


def queue(snapshot: Snapshot, operation: Drain | Rolling = A) -> Queue:
    return Queue(snapshot, plan(snapshot, operation))


def number(asked: Queue, name: str) -> int:
    return next(move.number for move in asked.plan.moves if move.name == name)


def many(count: int = 9, dirty: int = 0) -> Snapshot:
    hosts = [host("a", gib=512), *(host(f"t{n}", gib=16) for n in range(count))]
    return fleet(hosts, [vm(f"x{n}", "a", dirty_bytes_s=dirty) for n in range(count)])


def test_a_move_that_nothing_keeps_has_no_reason() -> None:
    asked = queue(many())
    assert asked.why(0, Progress()) == ""


def test_a_move_that_has_begun_has_none_either() -> None:
    asked = queue(many())
    assert asked.why(8, Progress(preparing=frozenset({8}))) == ""


def test_a_host_prepares_so_many() -> None:
    asked = queue(many())
    now = Progress(preparing=frozenset({0, 1, 2, 3}))
    assert asked.why(8, now) == "a is already preparing 4 migrations: x0, x1, x2, x3"
    assert asked.why(8, Progress(preparing=frozenset({0, 1, 2}))) == ""


def test_a_link_carries_so_many() -> None:
    asked = queue(many())
    now = Progress(copying=frozenset({0, 1, 2, 3}))
    assert asked.why(8, now) == "the link out of a already carries 4 copies: x0, x1, x2, x3"
    assert asked.why(8, Progress(copying=frozenset({0, 1, 2}), ended=frozenset({3}))) == ""


def test_copies_that_need_much_leave_too_little_for_another_one() -> None:
    asked = queue(many(dirty=900 * MIB))
    now = Progress(copying=frozenset({0, 1}))
    assert asked.why(8, now) == "the link out of a has too little bandwidth left for x8 beside x0, x1"


def test_an_uplink_carries_so_many() -> None:
    snapshot = many().model_copy(update={"domains": (FailureDomain(name="r1", up_bytes_s=10 * GBIT_S),)})
    first = snapshot.hosts[0].model_copy(update={"domain": "r1"})
    asked = queue(snapshot.model_copy(update={"hosts": (first, *snapshot.hosts[1:])}))
    now = Progress(copying=frozenset({0, 1}))
    assert asked.why(8, now) == "the uplink of r1 already carries 2 copies: x0, x1"


def test_a_vm_waits_for_the_room_that_another_one_leaves() -> None:
    hosts = [host("a"), host("b", gib=20), host("c", gib=12)]
    snapshot = fleet(hosts, [vm("db", "a", gib=16), vm("web", "b", gib=8), vm("big", "b", gib=4)])
    asked = queue(snapshot)
    db, web = number(asked, "db"), number(asked, "web")
    assert asked.why(db, Progress()) == "web must leave b first, because db needs its capacity"
    assert asked.why(db, Progress(ended=frozenset({web}))) == ""


def test_a_wave_waits_for_the_one_before() -> None:
    hosts = [host("a"), host("b"), host("c")]
    snapshot = fleet(hosts, [vm("x", "a"), vm("y", "b")])
    asked = queue(snapshot, Rolling(hosts=frozenset({"a", "b"}), most_closed=1))
    last = asked.plan.moves[-1]
    first = asked.plan.waves[0].hosts[0]
    assert last.wave == 1
    assert asked.why(last.number, Progress()) == (
        f"wave 1 has not ended: its hosts ({first}) must be open again first"
    )
    assert asked.why(last.number, Progress(waves_over=1)) == ""
