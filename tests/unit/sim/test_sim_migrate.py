"""A copy on the simulated hosts: it behaves as libvirt's peer-to-peer migration does."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from sterna.domain.errors import Conflict, NotFound, Permanent, Unknown
from sterna.domain.model import GuestState, Nic
from sterna.ports.hypervisor import GuestEvent
from sterna.sim.simulation import SimWorld
from sterna.sim.world.clock import SimClock
from sterna.sim.world.things import MIB
from tests.sim_world import EPOCH, SimSide, prepare

ALL_DISKS = ("shared", "local", "iscsi")


async def listen(side: SimSide, uuid: str, into: list[tuple[str, str]]) -> None:
    async with side.hypervisor.events(uuid) as feed:
        async for event in feed:
            into.append((side.name, event.kind))


async def test_the_guest_arrives_with_all_its_disks_and_its_nic(
    world: SimWorld, clock: SimClock, a: SimSide, b: SimSide
) -> None:
    uuid = world.add_vm("a", "vm1", disks=ALL_DISKS)
    plan = await prepare(world, uuid, a, b)
    await clock.run(a.hypervisor.migrate(uuid, plan))

    source, destination = await a.hypervisor.observe(uuid), await b.hypervisor.observe(uuid)
    assert (source.state, source.reason, source.job_active) == (GuestState.SHUTOFF, "migrated", False)
    assert (destination.state, destination.ran, destination.epoch) == (GuestState.RUNNING, True, EPOCH)
    assert world.running(uuid) == ["b"]
    world.guest_writes(uuid)  # its disks are the ones it sees
    vm = await b.hypervisor.vm("vm1")
    assert [n.managed for n in vm.nics] == [True]
    assert [(n.vlan, n.bridge) for n in vm.nics] == [(100, "br-int")]
    assert vm.persistent and not vm.autostart
    assert world.snapshot("a").sessions == ()
    assert not world.snapshot("a").taps, "libvirt's own tap goes with the source's QEMU"
    assert world.snapshot("b").sessions


async def test_events_come_in_libvirts_order(world: SimWorld, clock: SimClock, a: SimSide, b: SimSide) -> None:
    uuid = world.add_vm("a", "vm1")
    plan = await prepare(world, uuid, a, b)
    seen: list[tuple[str, str]] = []
    listeners = [asyncio.create_task(listen(side, uuid, seen)) for side in (a, b)]
    await clock.run_until_idle()
    await clock.run(a.hypervisor.migrate(uuid, plan))
    await clock.run_until_idle()
    for listener in listeners:
        listener.cancel()
    assert [s for s in seen if s[1] != "iteration"] == [
        ("b", "started-incoming"),
        ("a", "suspended-migrated"),
        ("a", "migration-device"),
        ("a", "migration-completed"),
        ("b", "migration-completed"),
        ("b", "defined"),
        ("b", "resumed-migrated"),
        ("a", "stopped-migrated"),
        ("a", "job-completed"),
    ]
    assert seen[1] == ("a", "iteration")


async def test_a_transient_guest_stays_transient(world: SimWorld, clock: SimClock, a: SimSide, b: SimSide) -> None:
    uuid = world.add_vm("a", "vm1", persistent=False)
    plan = await prepare(world, uuid, a, b)
    await clock.run(a.hypervisor.migrate(uuid, plan))
    assert (await a.hypervisor.observe(uuid)).state is GuestState.ABSENT
    assert not (await b.hypervisor.vm(uuid)).persistent


async def test_the_cold_definition_plugs_by_itself(
    world: SimWorld, clock: SimClock, a: SimSide, b: SimSide
) -> None:
    uuid = world.add_vm("a", "vm1", disks=ALL_DISKS)
    plan = await prepare(world, uuid, a, b)
    await clock.run(a.hypervisor.migrate(uuid, plan))
    world.shut_down_guest(uuid)
    assert (await b.hypervisor.observe(uuid)).reason == "shutdown"
    await b.vif.unplug(Nic.model_validate(plan.nics[0].model_dump()))
    world.start("b", uuid)
    (nic,) = (await b.hypervisor.vm(uuid)).nics
    assert nic.managed and nic.device == "vnet0" and world.hosts["b"].ports["vnet0"].tag == 100


async def test_the_copy_goes_on_when_its_client_dies(
    world: SimWorld, clock: SimClock, a: SimSide, b: SimSide
) -> None:
    uuid = world.add_vm("a", "vm1")
    plan = await prepare(world, uuid, a, b)
    asking = asyncio.create_task(a.hypervisor.migrate(uuid, plan))
    await clock.advance(0.5)
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    assert (await a.hypervisor.observe(uuid)).job_active
    await clock.advance(10)
    assert world.running(uuid) == ["b"]
    assert (await a.hypervisor.observe(uuid)).state is GuestState.SHUTOFF


async def test_statistics_while_and_after(world: SimWorld, clock: SimClock, a: SimSide, b: SimSide) -> None:
    uuid = world.add_vm("a", "vm1", memory_bytes=1024 * MIB, disks=("local",))
    plan = (await prepare(world, uuid, a, b)).model_copy(update={"parameters": {"bandwidth": 100}})
    assert await a.hypervisor.sample(uuid) is None
    asking = asyncio.create_task(a.hypervisor.migrate(uuid, plan))
    await clock.advance(5)
    sample = await a.hypervisor.sample(uuid)
    assert sample is not None and sample.iteration == 1
    assert (sample.memory_total, sample.disk_total, sample.disk_remaining) == (1024 * MIB, 16 * MIB, 0)
    assert sample.memory_processed is not None and sample.memory_remaining is not None
    assert 400 * MIB < sample.memory_processed < 500 * MIB
    assert sample.memory_processed + sample.memory_remaining == 1024 * MIB
    assert await b.hypervisor.sample(uuid) is None
    await clock.run(asking)
    done = await b.hypervisor.completed_job(uuid)
    assert done is not None and done.downtime_ms is not None and 40 <= done.downtime_ms <= 340
    assert done.iterations is not None and done.iterations >= 2
    assert await a.hypervisor.sample(uuid) is None


async def test_a_guest_that_dirties_faster_than_the_link_never_ends_by_itself(
    world: SimWorld, clock: SimClock, a: SimSide, b: SimSide
) -> None:
    uuid = world.add_vm("a", "vm1", dirty_bytes_per_s=80 * MIB)
    before = world.snapshot("a")
    plan = (await prepare(world, uuid, a, b)).model_copy(update={"parameters": {"bandwidth": 50}})
    asking = asyncio.create_task(a.hypervisor.migrate(uuid, plan))
    await clock.advance(600)
    sample = await a.hypervisor.sample(uuid)
    assert sample is not None and sample.iteration is not None and sample.iteration > 100
    await a.hypervisor.abort(uuid)
    with pytest.raises(Unknown, match="canceled by client"):
        await asking
    assert before.diff(world.snapshot("a")) == []
    assert (await b.hypervisor.observe(uuid)).state is GuestState.ABSENT
    await a.hypervisor.abort(uuid)  # no job is no error


async def test_mark_and_resume_are_refused_while_it_copies(
    world: SimWorld, clock: SimClock, a: SimSide, b: SimSide
) -> None:
    uuid = world.add_vm("a", "vm1")
    plan = await prepare(world, uuid, a, b)
    asking = asyncio.create_task(a.hypervisor.migrate(uuid, plan))
    await clock.advance(0.4)
    for call in (a.hypervisor.mark(uuid, "m", 8), b.hypervisor.resume(uuid, EPOCH)):
        with pytest.raises(Conflict):
            await call
    with pytest.raises(Unknown, match="state change lock"):
        await a.hypervisor.migrate(uuid, plan)
    incoming = await b.hypervisor.observe(uuid)
    assert (incoming.state, incoming.reason, incoming.ran) == (GuestState.PAUSED, "incoming", False)
    await clock.run(asking)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("tap", "interface already exists"),
        ("file", "Could not open"),
        ("denied", "Permission denied"),
        ("admission", "Target not found"),
        ("memory", "Cannot allocate memory"),
        ("stream", "Connection timed out"),
        ("name", "already exists"),
    ],
)
async def test_a_destination_that_lacks_something_refuses_and_keeps_nothing(
    world: SimWorld, clock: SimClock, a: SimSide, b: SimSide, spoil: str, words: str
) -> None:
    uuid = world.add_vm("a", "vm1", disks=ALL_DISKS)
    before = world.snapshot("a")
    plan = await prepare(world, uuid, a, b)
    vm = await a.hypervisor.vm(uuid)
    local = next(d.path for d in vm.disks if d.target == "vdb")
    match spoil:
        case "tap":
            world.hosts["b"].taps.add(plan.nics[0].device)
        case "file":
            world.remove_file("b", str(local))
        case "denied":
            b.host.denied.add(str(local))
        case "admission":
            world.withdraw(vm.disks[2].iscsi.target, b.host.initiator)  # type: ignore[union-attr]
        case "memory":
            b.host.memory_bytes = 1
        case "stream":
            world.cut("a", "b", kinds=("stream",))
            world.remove_port("b", plan.nics[0].device)  # as libvirt does with the incoming guest
        case "name":
            world.hosts["b"].domains["other"] = (
                world.hosts["a"].domains[uuid].__class__("other", inactive=world.hosts["a"].domains[uuid].inactive)
            )
    there = world.snapshot("b")
    with pytest.raises(Unknown, match=words):
        await clock.run(a.hypervisor.migrate(uuid, plan))
    assert before.diff(world.snapshot("a")) == []
    assert there.diff(world.snapshot("b")) == []


async def test_what_libvirt_refuses_at_once(world: SimWorld, clock: SimClock, a: SimSide, b: SimSide) -> None:
    uuid = world.add_vm("a", "vm1", disks=("local",))
    plan = await prepare(world, uuid, a, b)
    uncopied = tuple(d.model_copy(update={"copied": False}) for d in plan.disks)
    cases = {
        "Unsafe migration": plan.model_copy(update={"disks": uncopied}),
        "same host": plan.model_copy(update={"destination_uri": a.host.uri}),
        "Connection refused": plan.model_copy(update={"destination_uri": "qemu+tcp://10.9.9.9/system"}),
    }
    cases["carries epoch 7"] = plan.model_copy(update={"epoch": EPOCH + 1})
    for words, refused in cases.items():
        with pytest.raises(Unknown, match=words):
            await a.hypervisor.migrate(uuid, refused)
    for incomplete in ({"nics": ()}, {"nics": (*plan.nics, plan.nics[0].model_copy(update={"mac": "x"}))}):
        with pytest.raises(Permanent, match="NIC"):
            await a.hypervisor.migrate(uuid, plan.model_copy(update=incomplete))
    with pytest.raises(Permanent, match="disks"):
        spare = plan.disks[0].model_copy(update={"target": "vdz"})
        await a.hypervisor.migrate(uuid, plan.model_copy(update={"disks": (*plan.disks, spare)}))
    with pytest.raises(NotFound):
        await b.hypervisor.migrate(uuid, plan)
    with pytest.raises(Conflict, match="newer"):
        await a.hypervisor.mark(uuid, "m", EPOCH - 1)
    assert world.running(uuid) == ["a"] and world.copies == []
    world.shut_down_guest(uuid)
    with pytest.raises(Unknown, match="not running"):
        await a.hypervisor.migrate(uuid, plan)


async def test_events_are_not_lost_while_the_listener_is_busy(
    world: SimWorld, clock: SimClock, a: SimSide, b: SimSide
) -> None:
    uuid = world.add_vm("a", "vm1")
    plan = await prepare(world, uuid, a, b)
    async with b.hypervisor.events(uuid) as feed:
        await clock.run(a.hypervisor.migrate(uuid, plan))
        first: GuestEvent = await anext(feed)
        assert first.kind == "started-incoming"
        rest = [(await anext(feed)).kind for _ in range(3)]
        assert rest == ["migration-completed", "defined", "resumed-migrated"]
