"""The soak itself: that its plan can be replayed, and that each of its checks sees what it is there to see."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import httpx2
import pytest

from sterna.lab.lab import Lab
from tests.lab_state import state
from tests.soak import verdict
from tests.soak.__main__ import main, markdown, replay
from tests.soak.api import Api
from tests.soak.plan import HANG_S, MOST_AT_ONCE, QUIET_S, parts, plan
from tests.soak.run import Report
from tests.soak.stage import Options, Stage
from tests.soak.timeline import Timeline
from tests.soak.traffic import Follower, Mover, Requests
from tests.soak.verdict import Baseline, Owners
from tests.soak.watcher import Watcher

ALL = parts(["a", "b", "c"], 2, "postgresql")

# the plan


def test_the_same_seed_is_the_same_plan() -> None:
    assert plan(7, 600, ALL) == plan(7, 600, ALL)
    assert plan(7, 600, ALL) != plan(8, 600, ALL)


@pytest.mark.parametrize("seed", range(20))
def test_faults_overlap_but_never_on_one_part_and_all_are_healed(seed: int) -> None:
    strikes = plan(seed, 1800, ALL)
    assert [s.at_s for s in strikes] == sorted(s.at_s for s in strikes)
    assert max(s.ends_s for s in strikes) <= 1800
    most = max(sum(o.at_s <= s.at_s < o.ends_s for o in strikes) for s in strikes)
    assert most == MOST_AT_ONCE
    for number, strike in enumerate(strikes):
        later = [other for other in strikes[number + 1 :] if other.part == strike.part]
        assert all(other.at_s >= round(strike.ends_s + QUIET_S, 2) - 0.01 for other in later)


def test_every_part_breaks_in_every_way_some_time() -> None:
    strikes = plan(1, 50_000, ALL)
    assert {(s.part, s.fault) for s in strikes} == {(part.name, fault) for part in ALL for fault in part.faults}
    hangs = [s.for_s for s in strikes if s.fault == "hang"]
    assert min(hangs) < HANG_S[0] + 2
    assert max(hangs) > HANG_S[1] - 2


@pytest.mark.parametrize("seed", range(20))
def test_libvirtd_is_never_killed_while_a_qemu_hangs(seed: int) -> None:
    strikes = plan(seed, 3600, ALL)
    deaths = [s for s in strikes if s.part.startswith("libvirtd") and s.fault == "kill"]
    hangs = [s for s in strikes if s.part.startswith("qemu")]
    assert deaths
    assert hangs
    assert not [(d, h) for d in deaths for h in hangs if d.at_s < h.ends_s and h.at_s < d.ends_s]


def test_storage_falls_silent_but_is_never_cut() -> None:
    assert {part.faults for part in ALL if part.name.startswith("link storage")} == {("drop",)}


def test_a_lab_without_postgresql_has_none_to_break() -> None:
    names = {part.name for part in parts(["a"], 1, "sqlite")}
    assert "postgresql" not in names
    assert "controller 2" not in names
    assert {"controller 2", "postgresql"} < {part.name for part in ALL}


def test_the_plan_can_be_read_without_a_lab(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--plan", "--minutes", "3", "--seed", "1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(
        plan(1, 180, parts([f"soak{n}" for n in range(1, 9)], 1, "sqlite"))
    )


# what a run says


def test_a_report_says_what_was_wrong_and_how_to_replay_it(tmp_path: Path) -> None:
    report = Report(seed=4, minutes=3, guests=6, database="postgresql", controllers=2, wrong=["soak1 runs twice"])
    assert not report.passed
    assert "WRONG: soak1 runs twice" in markdown(report)
    assert "FAILED" in markdown(report)
    assert replay(report) == "make soak MINUTES=3 GUESTS=6 SEED=4 DATABASE=postgresql CONTROLLERS=2"
    assert Report(seed=4, minutes=3, guests=6, database="sqlite", controllers=1).passed


@pytest.fixture
def timeline(tmp_path: Path) -> Iterator[Timeline]:
    timeline = Timeline(tmp_path / "timeline.jsonl")
    yield timeline
    timeline.close()


def test_a_timeline_is_on_disk_at_once_and_counts_a_violation_once(timeline: Timeline, tmp_path: Path) -> None:
    timeline.note("fault", fault="kill", part="agent host1")
    timeline.note("fault", fault="cut", part="link bus host1")
    timeline.violation("this", more=1)
    timeline.violation("this", more=2)
    lines = [json.loads(line) for line in (tmp_path / "timeline.jsonl").read_text().splitlines()]
    assert [line["what"] for line in lines] == ["fault", "fault", "violation", "violation"]
    assert timeline.violations == ["this"]
    assert timeline.faults == {"kill agent": 1, "cut bus": 1}


# what users notice


def served(monkeypatch: pytest.MonkeyPatch, handle: Callable[[httpx2.Request], httpx2.Response]) -> None:
    real = httpx2.Client
    monkeypatch.setattr(httpx2, "Client", lambda **more: real(**more, transport=httpx2.MockTransport(handle)))


def test_an_answer_nobody_expects_is_a_violation_one_that_is_away_is_none(
    timeline: Timeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([200, 503, 504, 500])
    served(monkeypatch, lambda _request: httpx2.Response(next(answers), json={}))
    api = Api(["http://lab"], timeline, random.Random(1))
    for _ in range(3):
        api.get("/v1/vms")
    assert timeline.violations == []
    api.get("/v1/migrations/11111111-1111-4111-8111-111111111111")
    assert timeline.violations == ["GET /v1/migrations/ID answered 500"]


def test_no_answer_is_no_violation(timeline: Timeline, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_request: httpx2.Request) -> NoReturn:
        raise httpx2.ConnectError("refused")

    served(monkeypatch, refuse)
    assert Api(["http://lab"], timeline, random.Random(1)).get("/v1/vms").status == 0
    assert timeline.violations == []


@pytest.mark.parametrize(("held", "seen"), [(True, ["a was accepted twice"]), (False, [])])
def test_a_guest_that_is_held_and_accepted_again_is_a_violation(
    timeline: Timeline, monkeypatch: pytest.MonkeyPatch, held: bool, seen: list[str]
) -> None:
    served(monkeypatch, lambda _request: httpx2.Response(202, json={}))
    guest: Any = SimpleNamespace(name="a", uuid="u", disks=[])
    draw, requests = random.Random(1), Requests()
    mover = Mover(
        guest, Api(["http://lab"], timeline, draw), timeline, draw, requests, lambda *_: held, threading.Event()
    )
    mover._conflict({"id": "first"}, {"id": "second", "destination": "host2"})
    assert timeline.violations == seen
    assert requests.accepted == {"second": "a"}


def test_an_event_stream_that_goes_back_is_a_violation(timeline: Timeline) -> None:
    follower = Follower("http://lab", timeline, threading.Event())
    for line in ("event: status", "id: 3", "", "event: status", "id: 5"):
        follower.take(line)
    assert timeline.violations == []
    assert follower.events == 2
    follower.take("id: 5")
    assert timeline.violations == ["an event stream went back"]


# what the end is compared with


def test_a_migration_must_have_ended_and_have_its_record() -> None:
    ended = {"status": "failed", "reason": "the copy failed", "finished_at": "2026"}
    assert list(verdict.record(ended, "m", "a", accepted=True)) == []
    assert list(verdict.record(None, "m", "a", accepted=False)) == []
    assert list(verdict.record(None, "m", "a", accepted=True)) == [
        "migration m of a was accepted and has no record"
    ]
    for change in ({"status": "migrating"}, {"status": "error"}, {"reason": ""}, {"finished_at": None}):
        assert len(list(verdict.record(ended | change, "m", "a", accepted=True))) == 1, change


def test_records_of_guests_must_be_true() -> None:
    true = {"name": "a", "host": "host1", "state": "running", "task_state": None, "migration_id": None}
    assert list(verdict.inventory([true], {"a": "host1"})) == []
    for change in ({"host": "host2"}, {"state": "shutoff"}, {"task_state": "migrating"}, {"migration_id": "m"}):
        assert len(list(verdict.inventory([true | change], {"a": "host1"}))) == 1, change
    assert list(verdict.inventory([], {"a": "host1"})) != []


def test_an_audit_must_be_clean_and_hear_everybody() -> None:
    clean = {"clean": True, "leftovers": [], "silent_hosts": []}
    assert list(verdict.audit(clean)) == []
    for change in ({"silent_hosts": ["host1"]}, {"leftovers": [{"kind": "tap"}], "clean": False}, {"clean": False}):
        assert len(list(verdict.audit(clean | change))) == 1, change


def test_a_guest_must_be_clean_and_in_the_same_boot() -> None:
    assert list(verdict.guest_itself(SimpleNamespace(boot_id="b", clean=True), "a", "b")) == []
    wrong = SimpleNamespace(boot_id="other", clean=False, last_error="page 3")
    assert list(verdict.guest_itself(wrong, "a", "b")) == ["a was booted again", "a's own checks: page 3"]


def port(name: str, port_id: str) -> dict[str, Any]:
    return {"name": name, "tag": 100, "external_ids": {"iface-id": port_id}}


def host(*guests: str) -> dict[str, Any]:
    """A host's picture with these guests on it: `b` leaves its secret behind when it goes."""
    return {
        "domains": {guest: {"state": "running"} for guest in guests},
        "ports": [port("uplink", ""), *(port(f"tap-{guest}", f"port-{guest}") for guest in guests)],
        "links": [{"name": "uplink"}, *({"name": f"tap-{guest}"} for guest in guests)],
        "instances": [f"uuid-{guest}/disk" for guest in guests],
        "secrets": {f"disk-{guest}": "word" for guest in {*guests, "b"}},
    }


OWNERS = Owners({g: (g, f"uuid-{g}", f"port-{g}", f"disk-{g}", f"tap-{g}") for g in ("a", "b")})
BASE = Baseline(OWNERS, {"host1": host("a", "b")}, {"host1": host()}, [])


@pytest.mark.parametrize("here", [set(), {"a"}, {"b"}, {"a", "b"}])
def test_a_host_must_have_what_belongs_to_its_guests_and_keep_what_others_leave(here: set[str]) -> None:
    assert verdict._in_order(BASE.wanted("host1", here)) == verdict._in_order(host(*sorted(here)))


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    lab = Lab.up(state("soak-check"), owner=True, insecure=True)
    try:
        yield Stage(lab, Options(minutes=1, guests=3, seed=1))
    finally:
        lab.down()


@pytest.mark.lab
def test_whatever_is_left_behind_is_seen(stage: Stage) -> None:
    """One thing of each kind, planted where nothing is moved."""
    lab, host1 = stage.lab, stage.lab.hosts["host1"]
    where, wrong = verdict.places(lab, stage.names)
    assert wrong == []
    assert where == dict.fromkeys(stage.names, "host1")
    assert list(verdict.world(lab, stage.base, where)) == []
    host1.run(["ip", "tuntap", "add", "dev", "tapstray", "mode", "tap"])
    host1.run(["ovs-vsctl", "add-port", "br-int", "tapstray"])
    (lab.state_dir / "shared" / ".token").touch()
    (host1.root / "instances" / "stray").touch()
    lab.iscsi.create("stray", 16)
    lab.iscsi.admit("stray", "iqn.2026-11.lab.sterna:host2")
    seen = "\n".join(verdict.world(lab, stage.base, where))
    for stray in ("links has", "ports has", "shared folder", "instances has stray", "host2: iscsi"):
        assert stray in seen, stray
    host1.run(["ovs-vsctl", "del-port", "tapstray"])
    host1.run(["ip", "link", "del", "tapstray"])
    (lab.state_dir / "shared" / ".token").unlink()
    (host1.root / "instances" / "stray").unlink()
    lab.iscsi.remove("stray")
    assert list(verdict.world(lab, stage.base, where)) == []
    assert len(list(verdict.world(lab, stage.base, where | {"soak2": "host2"}))) > 3


@pytest.mark.lab
def test_both_witnesses_see_two_running_copies_and_so_do_the_places(stage: Stage) -> None:
    lab = stage.lab
    seen: set[str] = set()
    twin = lab.create_vm("twin", "host1", memory_mib=192, dirty_mib_s=5, disks=(), pace="busy")
    with Watcher(lab.hosts, ["twin", "soak1"], seen.add) as watcher:
        twin.status()
        stage.fleet.eventually(lambda: watcher.looks > 20 and watcher.windows > 20)
        assert seen == set()
        assert verdict.places(lab, ["twin"]) == ({"twin": "host1"}, [])
        host2 = lab.hosts["host2"]
        host2.run(["sh", "-c", "cat >/run/twin.xml"], stdin=lab.hosts["host1"].virsh("dumpxml", "twin"))
        host2.virsh("create", "/run/twin.xml")
        stage.fleet.eventually(lambda: len(seen) == 2)
        assert verdict.places(lab, ["twin"])[1] != []
    assert seen == {"libvirt says that twin runs on host1 and host2", "the vCPUs of two QEMUs of twin work at once"}
    lab.remove_vm("twin")
