"""The simulated world's conscience: it notices what hurts a running guest, and tells everything that changes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sterna.sim.simulation import SimWorld
from sterna.sim.world.clock import SimClock
from sterna.sim.world.things import Change, SimDomain
from tests.sim_world import SimSide, prepare

HARM: dict[str, Callable[[SimWorld, str], object]] = {
    "its tap vnet0 is gone": lambda w, u: w.remove_tap("a", "vnet0"),
    "is on no bridge": lambda w, u: w.remove_port("a", "vnet0"),
    "vda: its file": lambda w, u: w.remove_file("b", "/srv/shared/vm1-vda.img"),
    "vdb: its file": lambda w, u: w.remove_file("a", f"/var/lib/sterna/instances/{u}/vm1-vdb.img"),
    "no longer admitted": lambda w, u: w.withdraw("iqn.2026-11.org.sterna:vm1-vdc", w.hosts["a"].initiator),
    "its session was cut": lambda w, u: w.end_sessions("iqn.2026-11.org.sterna:vm1-vdc", w.hosts["a"].initiator),
}


@pytest.fixture
def marred(clock: SimClock) -> SimWorld:
    """A world that may see violations."""
    world = SimWorld(clock)
    world.add_host("a")
    world.add_host("b")
    return world


@pytest.mark.parametrize("words", HARM)
async def test_a_running_guest_that_loses_something_is_a_violation(marred: SimWorld, words: str) -> None:
    uuid = marred.add_vm("a", "vm1", disks=("shared", "local", "iscsi"))
    assert marred.violations == []
    HARM[words](marred, uuid)
    HARM[words](marred, uuid)
    (found,) = [v for v in marred.violations if words in v.text]
    assert (found.host, found.uuid) == ("a", uuid)


async def test_a_guest_that_does_not_run_loses_nothing(marred: SimWorld) -> None:
    uuid = marred.add_vm("a", "vm1", disks=("shared", "local", "iscsi"), running=False)
    for act in HARM.values():
        act(marred, uuid)
    assert marred.violations == []


async def test_starting_a_second_copy_is_a_violation(marred: SimWorld) -> None:
    uuid = marred.add_vm("a", "vm1")
    marred.hosts["b"].domains[uuid] = SimDomain(uuid, inactive=marred.hosts["a"].domains[uuid].inactive)
    marred.start("b", uuid)
    assert any("two copies run, on a and b" in v.text for v in marred.violations)


async def test_running_on_a_stale_disk_is_a_violation(marred: SimWorld) -> None:
    uuid = marred.add_vm("a", "vm1", disks=("local",))
    old = marred.hosts["a"].file(f"/var/lib/sterna/instances/{uuid}/vm1-vda.img")
    assert old is not None
    stale = old.__class__(old.size_bytes, content=old.content)
    marred.guest_writes(uuid)
    assert marred.violations == []
    marred.put_file("a", f"/var/lib/sterna/instances/{uuid}/vm1-vda.img", stale)
    assert any("does not hold what the guest wrote" in v.text for v in marred.violations)


async def test_what_the_guest_writes_during_the_copy_arrives(
    world: SimWorld, clock: SimClock, a: SimSide, b: SimSide
) -> None:
    uuid = world.add_vm("a", "vm1", disks=("shared", "local", "iscsi"))
    plan = await prepare(world, uuid, a, b)
    writes: list[Change] = []

    def write(change: Change) -> None:
        if change.what == "job" and change.detail.startswith("iteration"):
            writes.append(change)
            world.guest_writes(uuid)

    world.watch(write)
    await clock.run(a.hypervisor.migrate(uuid, plan))
    assert writes and world.running(uuid) == ["b"]


async def test_watchers_see_every_change_and_can_leave(world: SimWorld) -> None:
    seen: list[Change] = []
    leave = world.watch(seen.append)
    uuid = world.add_vm("a", "vm1", disks=("shared", "local", "iscsi"))
    assert {c.what for c in seen} == {
        "file",
        "directory",
        "admission",
        "domain",
        "tap",
        "port",
        "session",
        "binding",
    }
    leave()
    count = len(seen)
    world.kill_qemu("a", uuid)
    assert len(seen) == count
    assert not world.kill_qemu("a", uuid)


async def test_snapshots_say_what_differs(world: SimWorld) -> None:
    before = world.snapshot("a")
    assert before.diff(world.snapshot("a")) == []
    uuid = world.add_vm("a", "vm1", disks=("iscsi",))
    after = world.snapshot("a")
    assert after.mentions(uuid) and not before.mentions(uuid)
    kinds = {line.split(" ")[0].rstrip(":") for line in before.diff(after)}
    assert kinds == {"domains", "ports", "taps", "admissions", "sessions", "bindings"}
    world.shut_down_guest(uuid)
    assert any("running" in line and "shutoff" in line for line in after.diff(world.snapshot("a")))


async def test_a_thousand_hosts_are_cheap(clock: SimClock) -> None:
    world = SimWorld(clock)
    for number in range(1000):
        world.add_host(f"h{number}")
        world.add_vm(f"h{number}", f"vm{number}", disks=("shared",))
    assert len({h.address for h in world.hosts.values()}) == 1000
    assert world.violations == []
