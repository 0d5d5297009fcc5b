"""Hypothesis tells stories: three hosts, overlapping migrations, aborts, deaths. The auditor watches.

Each story is a list of acts with pauses between them. At its end everything is mended, and must come to rest with
each guest whole on exactly one side and nothing of it on any other.
"""

from __future__ import annotations

import asyncio
import os
import uuid as uuids
from dataclasses import dataclass

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sterna.adapters.sim import life as fate
from sterna.adapters.sim.things import MIB
from sterna.domain.errors import SternaError
from tests.matrix.auditor import facts
from tests.matrix.stage import Stage

HOSTS = ("host1", "host2", "host3")
GUESTS = {
    "tern": ("shared", "local", "iscsi"),
    "gull": ("shared",),
    "skua": ("iscsi",),
}
EXAMPLES = int(os.environ.get("STERNA_STORIES", "40"))


@dataclass(frozen=True)
class Act:
    """One line of a story."""

    pause_s: float
    what: str
    guest: str
    host: str

    def __repr__(self) -> str:
        return f"after {self.pause_s:g} s {self.what} {self.guest} {self.host}"


ACTS = st.builds(
    Act,
    st.sampled_from([0.0, 0.05, 0.3, 0.8, 1.4, 3.0, 10.0]),
    st.sampled_from(["migrate", "migrate", "migrate", "abort", "kill", "kill", "hang", "libvirtd", "link", "bus"]),
    st.sampled_from(sorted(GUESTS)),
    st.sampled_from(HOSTS),
)


class Fleet:
    """A stage with three hosts and the users' side of it."""

    def __init__(self) -> None:
        self.stage = Stage(HOSTS)
        self.vms: dict[str, str] = {}
        self.asked: list[tuple[str, str]] = []
        """(migration, source) of everything ever asked for."""

    async def tell(self, story: list[Act]) -> None:
        stage = self.stage
        empty = facts(stage.world, "")
        alone: dict[str, frozenset[str]] = {}
        for number, (name, disks) in enumerate(GUESTS.items()):
            host, seen = HOSTS[number % 2], facts(stage.world, "")
            vm = fate.add_vm(stage.world, host, name, disks=disks, dirty_bytes_per_s=40 * MIB, autostart=True)
            self.vms[name] = vm
            stage.auditor.remember(vm, host)
            alone[name] = facts(stage.world, vm)[host] - seen[host]
        for act in story:
            await stage.clock.sleep(act.pause_s)
            stage.tell_story("story", repr(act))
            self._do(act)
        await stage.settled()
        self._all_is_well(empty, alone)

    def _do(self, act: Act) -> None:
        stage, vm = self.stage, self.vms[act.guest]
        match act.what:
            case "migrate":
                stage.spawn(self._migrate(vm, act.host))
            case "abort":
                stage.spawn(self._abort())
            case "kill":
                stage.kill(act.host, 2.0)
            case "hang":
                life = stage.lives[act.host]
                life.freeze()
                stage.later(8.0, life.thaw)
            case "libvirtd":
                if stage.world.hosts[act.host].libvirtd_up:
                    stage.world.hosts[act.host].libvirtd_up = False
                    stage.later(3.0, lambda: setattr(stage.world.hosts[act.host], "libvirtd_up", True))
            case "link":
                other = HOSTS[(HOSTS.index(act.host) + 1) % 3]
                stage.world.cut(act.host, other)
                stage.later(2.0, lambda: stage.world.mend(act.host, other))
            case _:
                stage.broker.stop()
                stage.later(2.0, stage.broker.start)

    async def _migrate(self, vm: str, to: str) -> None:
        source = next(iter(self.stage.auditor.running(vm)), "")
        if not source:
            return
        migration = str(uuids.UUID(int=len(self.asked)))
        self.asked.append((migration, source))
        params = {"id": migration, "vm": vm, "destination": to, "options": {}}
        for _ in range(3):
            try:
                await self.stage.client.call(source, "start_migration", params)
                return
            except SternaError as error:
                self.stage.tell_story("client", f"{migration[-2:]} {error}")
                if error.code not in ("unreachable", "unknown", "temporary"):
                    return
                await self.stage.clock.sleep(1.0)

    async def _abort(self) -> None:
        if self.asked:
            migration, source = self.asked[-1]
            try:
                await self.stage.client.call(source, "abort_migration", {"id": migration})
            except SternaError as error:
                self.stage.tell_story("client", f"abort {migration[-2:]}: {error}")

    def _all_is_well(self, empty: dict[str, frozenset[str]], alone: dict[str, frozenset[str]]) -> None:
        stage = self.stage
        now = facts(stage.world, "")
        for host in HOSTS:
            here = [name for name, vm in self.vms.items() if stage.auditor.running(vm) == [host]]
            expected = empty[host].union(*(alone[name] for name in here))
            folders = {f"directory {stage.world.hosts[host].instances_dir}/{self.vms[name]}" for name in here}
            left = {line for line in now[host] - expected - folders if not line.startswith("file ")}
            assert not left, f"left on {host}: {left}"
            missing = {line for line in expected - now[host] if not line.startswith("file ")}
            assert not missing, f"missing on {host}: {missing}"
        for name, vm in self.vms.items():
            assert len(stage.auditor.running(vm)) == 1, f"{name} runs on {stage.auditor.running(vm)}"
        assert not stage.auditor.findings, stage.auditor.findings


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=not os.environ.get("STERNA_STORIES"),
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    print_blob=True,
)
@given(st.lists(ACTS, min_size=2, max_size=12))
def test_whatever_happens_each_guest_is_whole_on_one_side_and_nothing_is_left(story):
    fleet = Fleet()
    try:
        fleet.stage.run(lambda: fleet.tell(story))
    except (AssertionError, asyncio.CancelledError) as error:
        tale = "\n".join(fleet.stage.story)
        raise AssertionError(f"{error}\n{tale}") from error
