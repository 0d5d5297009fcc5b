"""What befalls a copy on the simulated hosts, at every phase of it, and what is left on both sides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from sterna.domain.copying import CopyPlan
from sterna.domain.errors import Conflict, Unknown, Unreachable
from sterna.domain.model import GuestState
from sterna.sim.simulation import SimWorld
from sterna.sim.world.clock import SimClock
from sterna.sim.world.things import Change
from tests.sim_world import EPOCH, Auditor, SimSide, prepare

BEFORE_SWITCH = ("started", "copying", "iteration 1")
PAUSED_AT_SOURCE = "paused (migration)"
RUNS_AT_DESTINATION = "running (migrated)"


def at(world: SimWorld, moment: str, act: Callable[[], object]) -> None:
    """Do `act` at the first change whose detail is `moment`, the very moment it happens."""
    fired: list[Change] = []

    def look(change: Change) -> None:
        if change.detail == moment and not fired:
            fired.append(change)
            act()

    world.watch(look)


def libvirtd(world: SimWorld, host: str, up: bool) -> None:
    world.hosts[host].libvirtd_up = up


async def fail(clock: SimClock, a: SimSide, uuid: str, plan: CopyPlan) -> str:
    with pytest.raises(Unknown) as error:
        await clock.run(a.hypervisor.migrate(uuid, plan))
    await clock.advance(10)
    return error.value.message


FAULTS: dict[str, Callable[[SimWorld, str], object]] = {
    "abort": lambda world, uuid: world.hosts["a"].domains[uuid].job.abort(),  # type: ignore[union-attr]
    "stream cut": lambda world, uuid: world.cut("a", "b", kinds=("stream",)),
    "both cut": lambda world, uuid: world.cut("a", "b"),
    "source libvirtd": lambda world, uuid: libvirtd(world, "a", False),
    "destination libvirtd": lambda world, uuid: libvirtd(world, "b", False),
    "destination qemu": lambda world, uuid: world.kill_qemu("b", uuid),
    "destination power": lambda world, uuid: world.power_off("b"),
}


def faults_and_moments() -> list[tuple[str, str]]:
    """Every pair but one: when the copy has just started there is no destination QEMU yet."""
    return [(f, m) for f in FAULTS for m in BEFORE_SWITCH if (f, m) != ("destination qemu", "started")]


@pytest.mark.parametrize(("fault", "moment"), faults_and_moments())
async def test_before_the_switch_over_the_source_runs_on_and_nothing_arrives(
    world: SimWorld, clock: SimClock, a: SimSide, b: SimSide, fault: str, moment: str
) -> None:
    uuid = world.add_vm("a", "vm1", disks=("shared", "local", "iscsi"))
    before = world.snapshot("a")
    plan = await prepare(world, uuid, a, b)
    at(world, moment, lambda: FAULTS[fault](world, uuid))
    await fail(clock, a, uuid, plan)
    libvirtd(world, "a", True)
    libvirtd(world, "b", True)
    assert world.running(uuid) == ["a"]
    assert before.diff(world.snapshot("a")) == []
    assert (await b.hypervisor.observe(uuid)).state is GuestState.ABSENT
    assert world.snapshot("b").sessions == ()
    assert world.copies == []


@pytest.mark.parametrize("fault", ["abort", "stream cut", "destination qemu"])
async def test_at_the_switch_over_what_libvirt_sees_lets_the_source_run_on(
    world: SimWorld, clock: SimClock, a: SimSide, b: SimSide, fault: str
) -> None:
    uuid = world.add_vm("a", "vm1")
    before = world.snapshot("a")
    plan = await prepare(world, uuid, a, b)
    async with a.hypervisor.events(uuid) as feed:
        at(world, PAUSED_AT_SOURCE, lambda: FAULTS[fault](world, uuid))
        await fail(clock, a, uuid, plan)
        kinds = [(await anext(feed)).kind for _ in range(3)]
    assert kinds[-1] == "resumed-migrated", "the source's own event looks like an arrival"
    assert world.running(uuid) == ["a"]
    assert (await a.hypervisor.observe(uuid)).reason == "migration-canceled"
    assert before.diff(world.snapshot("a")) == []


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("source libvirtd", "migration"), ("destination libvirtd", "api-error"), ("both cut", "api-error")],
)
async def test_at_the_switch_over_a_lost_libvirtd_leaves_the_source_paused(
    world: SimWorld, clock: SimClock, a: SimSide, b: SimSide, fault: str, reason: str
) -> None:
    """`api-error`: the source's libvirt tried to let it run on, which the interlock refused."""
    uuid = world.add_vm("a", "vm1")
    plan = await prepare(world, uuid, a, b)
    await a.hypervisor.interlock(uuid, EPOCH)
    at(world, PAUSED_AT_SOURCE, lambda: FAULTS[fault](world, uuid))
    await fail(clock, a, uuid, plan)
    assert world.running(uuid) == []
    libvirtd(world, "a", True)
    libvirtd(world, "b", True)
    source = await a.hypervisor.observe(uuid)
    assert (source.state, source.reason, source.job_active) == (GuestState.PAUSED, reason, False)
    assert (await b.hypervisor.observe(uuid)).state is GuestState.ABSENT, "ended when nobody feeds it"
    with pytest.raises(Conflict, match="epoch"):
        await a.hypervisor.resume(uuid, EPOCH - 1)
    await a.hypervisor.resume(uuid, EPOCH)
    await a.hypervisor.resume(uuid, EPOCH)
    assert world.running(uuid) == ["a"]


@pytest.mark.parametrize("fault", ["source libvirtd", "destination libvirtd", "both cut"])
async def test_a_lost_answer_leaves_a_paused_copy_that_must_be_ended(
    world: SimWorld, clock: SimClock, a: SimSide, b: SimSide, fault: str
) -> None:
    uuid = world.add_vm("a", "vm1")
    plan = await prepare(world, uuid, a, b)
    await a.hypervisor.interlock(uuid, EPOCH)
    at(world, RUNS_AT_DESTINATION, lambda: FAULTS[fault](world, uuid))
    await fail(clock, a, uuid, plan)
    libvirtd(world, "a", True)
    libvirtd(world, "b", True)
    assert world.running(uuid) == ["b"]
    assert (await a.hypervisor.observe(uuid)).state is GuestState.PAUSED
    with pytest.raises(Conflict, match="epoch"):
        await a.hypervisor.end_leftover(uuid, EPOCH + 1)
    with pytest.raises(Conflict, match="no leftover"):
        await b.hypervisor.end_leftover(uuid, EPOCH)
    assert await a.hypervisor.end_leftover(uuid, EPOCH)
    assert not await a.hypervisor.end_leftover(uuid, EPOCH)
    assert world.running(uuid) == ["b"]


@pytest.mark.parametrize("interlocked", [False, True])
async def test_libvirts_own_habit_runs_two_copies_unless_the_interlock_is_set(
    clock: SimClock, interlocked: bool
) -> None:
    world = SimWorld(clock)
    a, b = (SimSide(world, world.add_host(name).name) for name in "ab")
    auditor = Auditor(world)
    uuid = world.add_vm("a", "vm1")
    plan = await prepare(world, uuid, a, b)
    if interlocked:
        await a.hypervisor.interlock(uuid, EPOCH)
    at(world, RUNS_AT_DESTINATION, lambda: libvirtd(world, "b", False))
    await fail(clock, a, uuid, plan)
    if interlocked:
        assert world.running(uuid) == ["b"]
        assert not auditor.twins
        return
    assert world.running(uuid) == ["a", "b"]
    assert auditor.twins
    assert any("two copies run" in v.text for v in world.violations)


async def test_a_hand_over_that_failed_is_taken_back_by_whoever_releases_the_interlock(
    world: SimWorld, clock: SimClock, a: SimSide, b: SimSide
) -> None:
    uuid = world.add_vm("a", "vm1")
    plan = await prepare(world, uuid, a, b)
    await a.hypervisor.interlock(uuid, EPOCH)
    at(world, PAUSED_AT_SOURCE, lambda: world.kill_qemu("b", uuid))
    await fail(clock, a, uuid, plan)
    assert world.running(uuid) == []
    await a.hypervisor.resume(uuid, EPOCH)
    assert world.running(uuid) == ["a"]
    assert not await a.hypervisor.interlocked(uuid)


@pytest.mark.parametrize("moment", ["started", "iteration 1", PAUSED_AT_SOURCE])
@pytest.mark.parametrize("persistent", [True, False])
async def test_a_source_that_dies_before_the_pivot_ends_there(
    world: SimWorld, clock: SimClock, a: SimSide, b: SimSide, moment: str, persistent: bool
) -> None:
    uuid = world.add_vm("a", "vm1", persistent=persistent)
    plan = await prepare(world, uuid, a, b)
    at(world, moment, lambda: world.kill_qemu("a", uuid))
    await fail(clock, a, uuid, plan)
    left = GuestState.SHUTOFF if persistent else GuestState.ABSENT
    assert (await a.hypervisor.observe(uuid)).state is left
    assert (await b.hypervisor.observe(uuid)).state is GuestState.ABSENT
    assert world.running(uuid) == []


async def test_a_source_that_dies_after_the_pivot_changes_nothing(
    world: SimWorld, clock: SimClock, a: SimSide, b: SimSide
) -> None:
    uuid = world.add_vm("a", "vm1")
    plan = await prepare(world, uuid, a, b)
    at(world, "confirming", lambda: world.kill_qemu("a", uuid))
    await clock.run(a.hypervisor.migrate(uuid, plan))
    assert world.running(uuid) == ["b"]
    await clock.advance(10)
    assert (await a.hypervisor.observe(uuid)).state is GuestState.SHUTOFF


async def test_a_guest_that_dies_on_the_destination_after_the_pivot_ends_there(
    world: SimWorld, clock: SimClock, a: SimSide, b: SimSide
) -> None:
    uuid = world.add_vm("a", "vm1")
    plan = await prepare(world, uuid, a, b)
    at(world, "confirming", lambda: world.kill_qemu("b", uuid))
    await clock.run(a.hypervisor.migrate(uuid, plan))
    assert (await a.hypervisor.observe(uuid)).reason == "migrated"
    there = await b.hypervisor.observe(uuid)
    assert (there.state, there.reason, there.ran) == (GuestState.SHUTOFF, "crashed", True)


async def test_what_an_agent_knows_dies_with_it(world: SimWorld, clock: SimClock, a: SimSide, b: SimSide) -> None:
    """A transient guest that ran on the destination and died: only who saw it knows."""
    uuid = world.add_vm("a", "vm1", persistent=False)
    plan = await prepare(world, uuid, a, b)
    at(world, "confirming", lambda: world.kill_qemu("b", uuid))
    await clock.run(a.hypervisor.migrate(uuid, plan))
    seen, unseen = await b.hypervisor.observe(uuid), await SimSide(world, "b").hypervisor.observe(uuid)
    assert (seen.state, seen.ran) == (GuestState.ABSENT, True)
    assert (unseen.state, unseen.ran) == (GuestState.ABSENT, False)
    assert not (await a.hypervisor.observe(uuid)).ran, "moved away: its stay on the source is over"
    assert not await b.hypervisor.undefine(uuid, EPOCH)
    assert not (await b.hypervisor.observe(uuid)).ran


async def test_a_finish_that_fails_leaves_a_definition_that_never_ran(
    world: SimWorld, clock: SimClock, a: SimSide, b: SimSide
) -> None:
    """libvirt writes the destination's definition before it starts the CPUs."""
    uuid = world.add_vm("a", "vm1")
    plan = await prepare(world, uuid, a, b)
    at(world, "defined", lambda: world.kill_qemu("b", uuid))
    await fail(clock, a, uuid, plan)
    assert world.running(uuid) == ["a"]
    there = await b.hypervisor.observe(uuid)
    assert (there.state, there.epoch, there.ran) == (GuestState.SHUTOFF, EPOCH, True), "wrong, to the safe side"
    assert await b.hypervisor.undefine(uuid, EPOCH)


async def test_ending_the_incoming_guest_fails_the_copy(
    world: SimWorld, clock: SimClock, a: SimSide, b: SimSide
) -> None:
    uuid = world.add_vm("a", "vm1")
    plan = await prepare(world, uuid, a, b)
    assert not await b.hypervisor.end_incoming(uuid, EPOCH)
    asking = asyncio.create_task(a.hypervisor.migrate(uuid, plan))
    await clock.advance(0.5)
    with pytest.raises(Conflict, match="epoch"):
        await b.hypervisor.end_incoming(uuid, EPOCH + 1)
    with pytest.raises(Conflict, match="has run here"):
        await a.hypervisor.end_incoming(uuid, EPOCH)
    assert await b.hypervisor.end_incoming(uuid, EPOCH)
    with pytest.raises(Unknown):
        await asking
    assert world.running(uuid) == ["a"]


async def test_a_guest_that_arrived_is_never_ended_as_incoming(
    world: SimWorld, clock: SimClock, a: SimSide, b: SimSide
) -> None:
    uuid = world.add_vm("a", "vm1")
    plan = await prepare(world, uuid, a, b)
    await clock.run(a.hypervisor.migrate(uuid, plan))
    with pytest.raises(Conflict, match="has run here"):
        await b.hypervisor.end_incoming(uuid, EPOCH)
    with pytest.raises(Conflict, match="active"):
        await b.hypervisor.undefine(uuid, EPOCH)
    with pytest.raises(Conflict, match="epoch"):
        await a.hypervisor.undefine(uuid, EPOCH + 1)
    assert await a.hypervisor.undefine(uuid, EPOCH)
    assert not await a.hypervisor.undefine(uuid, None)


async def test_a_libvirtd_that_is_down_answers_nobody(world: SimWorld, a: SimSide) -> None:
    uuid = world.add_vm("a", "vm1")
    async with a.hypervisor.events(uuid) as feed:
        a.host.libvirtd_up = False
        with pytest.raises(Unreachable):
            await anext(feed)
    for call in (a.hypervisor.observe(uuid), a.hypervisor.host(), a.hypervisor.abort(uuid)):
        with pytest.raises(Unreachable):
            await call
    assert world.running(uuid) == ["a"], "guests do not need it"
    a.host.libvirtd_up = True
    assert (await a.hypervisor.observe(uuid)).state is GuestState.RUNNING


async def test_a_rebooted_source_with_autostart_starts_a_second_copy(clock: SimClock) -> None:
    world = SimWorld(clock)
    a, b = (SimSide(world, world.add_host(name).name) for name in "ab")
    uuid = world.add_vm("a", "vm1", autostart=True)
    plan = await prepare(world, uuid, a, b)
    await clock.run(a.hypervisor.migrate(uuid, plan))
    world.power_off("a")
    assert world.violations == []
    world.power_on("a")
    assert any("two copies run" in v.text for v in world.violations)


async def test_autostart_cleared_keeps_a_rebooted_source_quiet(
    world: SimWorld, clock: SimClock, a: SimSide, b: SimSide
) -> None:
    uuid = world.add_vm("a", "vm1", autostart=True)
    plan = await prepare(world, uuid, a, b)
    await a.hypervisor.set_autostart(uuid, False)
    await clock.run(a.hypervisor.migrate(uuid, plan))
    world.power_off("a")
    world.power_on("a")
    assert world.running(uuid) == ["b"]


async def test_mending_the_link_lets_the_next_copy_through(
    world: SimWorld, clock: SimClock, a: SimSide, b: SimSide
) -> None:
    uuid = world.add_vm("a", "vm1")
    plan = await prepare(world, uuid, a, b)
    world.cut("a", "b")
    assert (refusal := await a.hypervisor.check_peer(b.host.uri)) and refusal.code == "peer-unreachable"
    await fail(clock, a, uuid, plan)
    world.mend("a", "b")
    assert await a.hypervisor.check_peer(b.host.uri) is None
    await clock.run(a.hypervisor.migrate(uuid, plan))
    assert world.running(uuid) == ["b"]


async def test_whatever_happens_when_there_are_never_two_copies(clock: SimClock) -> None:
    """Every fault at every change the world tells of, in a fresh world each time."""
    moments = await _count_changes()
    assert moments > 15
    for fault, act in FAULTS.items():
        for moment in range(moments):
            clock = SimClock()
            world = SimWorld(clock)
            a, b = (SimSide(world, world.add_host(name).name) for name in "ab")
            auditor = Auditor(world)
            uuid = world.add_vm("a", "vm1", disks=("shared", "local", "iscsi"))
            plan = await prepare(world, uuid, a, b)
            await a.hypervisor.interlock(uuid, EPOCH)
            seen = len(auditor.changes)
            fired: list[int] = []

            def look(change: Change, *, due: int = moment, fired: list[int] = fired) -> None:
                fired.append(1)
                if len(fired) - 1 == due and a.host.domains[uuid].job is not None:  # noqa: B023
                    act(world, uuid)  # noqa: B023

            world.watch(look)
            async with clock.auto():
                (outcome,) = await asyncio.gather(a.hypervisor.migrate(uuid, plan), return_exceptions=True)
            assert outcome is None or "simulation" not in str(outcome), (fault, moment, outcome)
            await clock.advance(10)
            assert (auditor.twins, world.violations) == ([], []), (fault, moment, auditor.changes[seen:])
            assert world.copies == [], (fault, moment)
            await world.close()


async def _count_changes() -> int:
    clock = SimClock()
    world = SimWorld(clock)
    a, b = (SimSide(world, world.add_host(name).name) for name in "ab")
    uuid = world.add_vm("a", "vm1", disks=("shared", "local", "iscsi"))
    plan = await prepare(world, uuid, a, b)
    auditor = Auditor(world)
    await clock.run(a.hypervisor.migrate(uuid, plan))
    return len(auditor.changes)
