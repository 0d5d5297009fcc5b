"""The fault suite itself: that it sees what it is there to see."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection

import pytest

from sterna.lab import sabotage
from tests.chaos.__main__ import choose
from tests.chaos.case import VOLUMES, Case
from tests.chaos.cases import CASES
from tests.chaos.faults import Fault
from tests.chaos.moments import COPYING
from tests.chaos.play import Outcome, play
from tests.chaos.scene import Scene
from tests.chaos.stage import Stage
from tests.chaos.verdict import differences
from tests.chaos.watcher import TwoCopies
from tests.chaos.workers import next_case, play_all


def test_names_are_there_once_and_a_case_can_be_asked_for_by_name() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert choose([names[3]]) == ([CASES[3]], [])
    assert choose(["no such thing"]) == ([], ["no such thing"])


def test_every_difference_is_named() -> None:
    wanted = {"domains": {"a": {"state": "running"}}, "links": [{"name": "tap1"}], "qemu": ["a"]}
    seen = {"domains": {"a": {"state": "paused"}}, "links": [], "qemu": ["a", "a"], "instances": ["a/disk"]}
    assert list(differences(wanted, wanted)) == []
    assert list(differences(seen, wanted)) == [
        "domains a state paused, not running",
        "instances ['a/disk'], not None",
        "links lacks {'name': 'tap1'}",
        "qemu ['a', 'a'], not ['a']",
    ]


SHARED, LOCAL_ONLY = ("shared",), ("local",)


def case(name: str, disks: tuple[str, ...] = SHARED) -> Case:
    return Case(name, Fault(), COPYING, disks=disks)


def test_a_worker_keeps_its_guest_and_then_helps_where_the_most_is_left() -> None:
    waiting = [case("a"), case("b", LOCAL_ONLY), case("c"), case("d", VOLUMES), case("e", VOLUMES)]
    assert next_case(waiting, LOCAL_ONLY, [SHARED]).name == "b"
    assert next_case(waiting, None, []).name == "a"
    assert next_case(waiting, None, [SHARED]).name == "d"
    assert next_case(waiting, ("overlay",), [SHARED, VOLUMES]).name == "b"
    assert next_case(waiting[3:], SHARED, [VOLUMES]).name == "d"


def pretend(cases: Connection, number: int) -> None:
    """A worker that says where a case was played, and dies in the middle of some."""
    with suppress(EOFError):
        while True:
            if (name := cases.recv().name).startswith("deadly"):
                os.kill(os.getpid(), signal.SIGKILL)
            cases.send(Outcome(name, ends=f"by {number}"))


def test_every_case_has_an_outcome_whatever_becomes_of_its_worker() -> None:
    cases = [case(name) for name in ("one", "deadly two", "three", "deadly four", "five")]
    reported: list[Outcome] = []
    outcomes = play_all(cases, 2, reported.append, pretend)
    assert [outcome.case for outcome in outcomes] == [case.name for case in cases]
    assert sorted(o.case for o in reported) == sorted(o.case for o in outcomes)
    assert [outcome.passed for outcome in outcomes] == [True, False, True, False, True]
    assert outcomes[1].why == ["its worker ended in the middle of it, exit code -9"]


def test_two_workers_play_side_by_side() -> None:
    assert {outcome.ends for outcome in play_all([case("one"), case("two")], 2, lambda _: None, pretend)} == {
        "by 1",
        "by 2",
    }
    assert [outcome.ends for outcome in play_all([case("one"), case("two")], 1, lambda _: None, pretend)] == [
        "by 1",
        "by 1",
    ]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.close()


@dataclass(frozen=True)
class Litter(Fault):
    """Leaves one thing of each kind behind."""

    def strike(self, scene: Scene) -> None:
        host = scene.lab.hosts[scene.source]
        host.run(["ip", "tuntap", "add", "dev", "tapstray", "mode", "tap"])
        host.run(["ovs-vsctl", "add-port", "br-int", "tapstray"])
        (scene.lab.state_dir / "shared" / ".token").touch()
        (host.root / "instances" / "stray").touch()
        (volume,) = (disk.id for disk in scene.guest.disks if disk.kind == "iscsi")
        scene.lab.iscsi.admit(volume, "iqn.2026-11.lab.sterna:stray")
        scene.lab.iscsi.create("stray", 16)
        scene.lab.iscsi.admit("stray", f"iqn.2026-11.lab.sterna:{scene.source}")


@pytest.mark.lab
def test_whatever_is_left_behind_is_a_leak(stage: Stage) -> None:
    outcome = play(stage, Case("litter", Litter(), COPYING, disks=VOLUMES))
    assert not outcome.passed
    for stray in ("links has", "ports has", "shared folder", "instances has stray", "iscsi iqn"):
        assert any(stray in leak for leak in outcome.leaks), (stray, outcome.leaks)


@pytest.mark.lab
def test_both_witnesses_see_two_running_copies(stage: Stage) -> None:
    lab = stage.fleet.lab
    twin = lab.create_vm("twin", "host1", memory_mib=192, dirty_mib_s=5, disks=(), pace="busy")
    with TwoCopies(lab.hosts, twin.name, twin.uuid) as watcher:
        twin.status()
        stage.fleet.eventually(lambda: watcher.looks > 20)
        assert watcher.violations == []
        host2 = lab.hosts["host2"]
        host2.run(["sh", "-c", "cat >/run/twin.xml"], stdin=lab.hosts["host1"].virsh("dumpxml", "twin"))
        host2.virsh("create", "/run/twin.xml")
        stage.fleet.eventually(lambda: len(watcher.violations) == 2)
    assert sorted(line.split(" ")[0] for line in watcher.violations) == ["libvirt", "the"]
    with TwoCopies(lab.hosts, twin.name, twin.uuid) as watcher:
        stage.fleet.eventually(lambda: watcher.looks > 0)
        sabotage.freeze(sabotage.libvirtd(lab, "host2"))
        watcher.violations.clear()
        stage.fleet.eventually(lambda: any(line.startswith("the") for line in watcher.violations))
        sabotage.thaw(sabotage.libvirtd(lab, "host2"))
