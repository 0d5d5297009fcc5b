"""The fault suite itself: that it sees what it is there to see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.chaos.__main__ import choose
from tests.chaos.cases import CASES, VOLUMES, Case
from tests.chaos.faults import Fault
from tests.chaos.moments import COPYING
from tests.chaos.play import play
from tests.chaos.scene import Scene
from tests.chaos.stage import Stage
from tests.chaos.verdict import differences
from tests.chaos.watcher import TwoCopies


def test_names_are_there_once_and_a_case_can_be_asked_for_by_name():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert choose([names[3]]) == ([CASES[3]], [])
    assert choose(["no such thing"]) == ([], ["no such thing"])


def test_every_difference_is_named():
    wanted = {"domains": {"a": {"state": "running"}}, "links": [{"name": "tap1"}], "qemu": ["a"]}
    seen = {"domains": {"a": {"state": "paused"}}, "links": [], "qemu": ["a", "a"], "instances": ["a/disk"]}
    assert list(differences(wanted, wanted)) == []
    assert list(differences(seen, wanted)) == [
        "domains a state paused, not running",
        "instances ['a/disk'], not None",
        "links lacks {'name': 'tap1'}",
        "qemu ['a', 'a'], not ['a']",
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
def test_whatever_is_left_behind_is_a_leak(stage):
    outcome = play(stage, Case("litter", Litter(), COPYING, disks=VOLUMES))
    assert not outcome.passed
    for stray in ("links has", "ports has", "shared folder", "instances has stray", "iscsi iqn"):
        assert any(stray in leak for leak in outcome.leaks), (stray, outcome.leaks)


@pytest.mark.lab
def test_both_witnesses_see_two_running_copies(stage):
    lab = stage.fleet.lab
    twin = lab.create_vm("twin", "host1", memory_mib=192, dirty_mib_s=5, disks=())
    with TwoCopies(lab.hosts, twin.name, twin.uuid) as watcher:
        twin.status()
        stage.fleet.eventually(lambda: watcher.looks > 20)
        assert watcher.violations == []
        host2 = lab.hosts["host2"]
        host2.run(["sh", "-c", "cat >/run/twin.xml"], stdin=lab.hosts["host1"].virsh("dumpxml", "twin"))
        host2.virsh("create", "/run/twin.xml")
        stage.fleet.eventually(lambda: len(watcher.violations) == 2)
    assert sorted(line.split(" ")[0] for line in watcher.violations) == ["libvirt", "the"]
