"""Hypothesis tells stories: a fleet, overlapping migrations, aborts, deaths, clocks that jump. The auditors watch.

A fleet is drawn, then a list of acts with pauses between them. At its end everything is mended, and must come to
rest with each guest whole on exactly one side (ended, where an act ended it) and nothing of it on any other.
"""

from __future__ import annotations

import asyncio
import os
import uuid as uuids
from dataclasses import dataclass
from datetime import timedelta

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sterna.domain.errors import SternaError
from sterna.sim.libvirt import guests as fate
from sterna.sim.world.things import MIB
from tests.asking import to_start, wish
from tests.matrix.auditor import facts
from tests.matrix.scripts import WISHES
from tests.matrix.stage import Stage

HOSTS = ("host1", "host2", "host3", "host4")
NAMES = ("tern", "gull", "skua", "auk")
EXAMPLES = int(os.environ.get("STERNA_STORIES", "40"))


@dataclass(frozen=True)
class Guest:
    """One VM of a fleet."""

    disks: tuple[str, ...]
    persistent: bool
    host: int
    wish: str
    """What its migrations are asked for with: a kind of `scripts.WISHES`."""
    dirty_mib_s: int

    def __repr__(self) -> str:
        what = f"{'+'.join(self.disks)}{'' if self.persistent else ', transient'}, {self.dirty_mib_s} MiB/s"
        return f"{what} on host {self.host}, asked for as {self.wish}"


@dataclass(frozen=True)
class Act:
    """One line of a story. Guest and host are numbers, taken modulo the fleet's."""

    pause_s: float
    what: str
    guest: int
    host: int

    def __repr__(self) -> str:
        return f"after {self.pause_s:g} s {self.what} guest {self.guest} host {self.host}"


GUESTS = st.lists(
    st.builds(
        Guest,
        st.lists(st.sampled_from(["shared", "local", "iscsi", "block"]), min_size=1, max_size=3).map(tuple),
        st.booleans(),
        st.integers(0, 3),
        st.sampled_from(list(WISHES)),
        st.sampled_from([0, 40, 400]),
    ),
    min_size=1,
    max_size=4,
)
ACTS = st.builds(
    Act,
    st.sampled_from([0.0, 0.05, 0.3, 0.8, 1.4, 3.0, 10.0]),
    st.sampled_from(
        [
            *("migrate", "migrate", "migrate", "migrate", "abort", "kill", "kill", "hang"),
            *("libvirtd", "link", "bus", "clock", "clock", "qemu"),
        ]
    ),
    st.integers(0, 3),
    st.integers(0, 3),
)


class Fleet:
    """A stage with its hosts and guests, and the users' side of it."""

    def __init__(self, hosts: int, guests: list[Guest]) -> None:
        self.hosts = HOSTS[:hosts]
        self.stage = Stage(self.hosts)
        self.guests = guests
        self.vms: list[str] = []
        self.asked: list[tuple[str, str]] = []
        """(migration, source) of everything ever asked for."""

    async def tell(self, story: list[Act]) -> None:
        stage = self.stage
        empty = facts(stage.world, "")
        alone: list[frozenset[str]] = []
        for number, guest in enumerate(self.guests):
            host, seen = self.hosts[guest.host % len(self.hosts)], facts(stage.world, "")
            vm = fate.add_vm(
                stage.world, host, NAMES[number], disks=guest.disks, persistent=guest.persistent,
                dirty_bytes_per_s=guest.dirty_mib_s * MIB, autostart=True,
            )  # fmt: skip
            self.vms.append(vm)
            stage.auditor.remember(vm, host)
            alone.append(facts(stage.world, vm)[host] - seen[host])
        for act in story:
            await stage.clock.sleep(act.pause_s)
            stage.tell_story("story", repr(act))
            self._do(act)
        await stage.settled()
        self._all_is_well(empty, alone)

    def _do(self, act: Act) -> None:
        stage, vm = self.stage, self.vms[act.guest % len(self.vms)]
        host = self.hosts[act.host % len(self.hosts)]
        there = stage.world.hosts[host]
        match act.what:
            case "migrate":
                stage.spawn(self._migrate(act.guest % len(self.vms), host))
            case "abort":
                stage.spawn(self._abort())
            case "kill":
                stage.kill(host, 2.0)
            case "hang":
                life = stage.lives[host]
                life.freeze()
                stage.later(8.0, life.thaw)
            case "libvirtd" if there.libvirtd_up:
                there.libvirtd_up = False
                stage.later(3.0, lambda: setattr(there, "libvirtd_up", True))
            case "link":
                other = self.hosts[(act.host + 1) % len(self.hosts)]
                if other != host:
                    stage.world.cut(host, other)
                    stage.later(2.0, lambda: stage.world.mend(host, other))
            case "clock":
                stage.clocks[host].ahead += timedelta(hours=7 if act.guest % 2 else -7)
            case "qemu":
                fate.kill_qemu(stage.world, host, vm)
            case "bus":
                stage.broker.stop()
                stage.later(2.0, stage.broker.start)

    async def _migrate(self, number: int, to: str) -> None:
        vm, asked = self.vms[number], wish(WISHES[self.guests[number].wish])
        source = next(iter(self.stage.auditor.running(vm)), "")
        if not source:
            return
        migration = str(uuids.UUID(int=len(self.asked)))
        self.asked.append((migration, source))
        params = to_start(vm, to, asked, source=source, migration=migration)
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

    def _all_is_well(self, empty: dict[str, frozenset[str]], alone: list[frozenset[str]]) -> None:
        stage = self.stage
        now = facts(stage.world, "")
        for host in self.hosts:
            expected, forgiven = empty[host], set[str]()
            for vm, guest, its in zip(self.vms, self.guests, alone, strict=True):
                if stage.auditor.guests[vm].last_ran != host:
                    continue
                forgiven.add(f"directory {stage.world.hosts[host].instances_dir}/{vm}")
                runs = stage.auditor.running(vm) == [host]
                ended = {line for line in its if not line.startswith(("live ", "domain "))}
                expected |= its if runs else ended
                forgiven |= set() if runs or not guest.persistent else {f"domain {vm}"}
            left = {line for line in now[host] - expected - forgiven if not line.startswith("file ")}
            assert not left, f"left on {host}: {left}"
            missing = {line for line in expected - now[host] if not line.startswith("file ")}
            assert not missing, f"missing on {host}: {missing}"
        assert not stage.auditor.findings, stage.auditor.findings


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=not os.environ.get("STERNA_STORIES"),
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    print_blob=True,
)
@given(st.integers(2, 4), GUESTS, st.lists(ACTS, min_size=2, max_size=14))
def test_whatever_happens_each_guest_is_whole_on_one_side_and_nothing_is_left(
    hosts: int, guests: list[Guest], story: list[Act]
) -> None:
    fleet = Fleet(hosts, guests)
    try:
        fleet.stage.run(lambda: fleet.tell(story))
    except (AssertionError, asyncio.CancelledError) as error:
        tale = "\n".join(fleet.stage.story)
        raise AssertionError(f"{error}\n{tale}") from error
