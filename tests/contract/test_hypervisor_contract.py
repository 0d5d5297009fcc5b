"""What every `ports.hypervisor.Hypervisor` does."""

import asyncio
from typing import Any

import pytest
from two_hosts import Side, TwoHosts, contract_lab, hosts, outcome

from sterna.domain.errors import Conflict, NotFound, Permanent, Unknown
from sterna.domain.model import GuestState, Vm

__all__ = ["contract_lab", "hosts"]
NOBODY = "00000000-0000-4000-8000-00000000dead"
SLOW = 4 << 20
"""bytes/s: slow enough that a copy never ends by itself within a test."""


async def move(hosts: TwoHosts, vm: Vm, epoch: int, source: Side, destination: Side) -> list[str]:
    """A whole migration by hand; what the destination saw, in order."""
    plan = await hosts.prepare(vm, epoch, source=source, destination=destination)
    async with destination.hypervisor.events(vm.uuid) as events:
        await source.hypervisor.migrate(vm.uuid, plan)
        seen = []
        async with asyncio.timeout(10):
            async for event in events:
                seen.append(event.kind)
                if event.kind == "resumed-migrated":
                    break
    return seen


async def until_incoming(side: Side, uuid: str) -> Any:
    """The observation of a guest that waits for its memory here."""
    async with asyncio.timeout(20):
        while True:
            seen = await side.hypervisor.observe(uuid)
            if seen.reason == "incoming" and seen.job_active:
                return seen
            await asyncio.sleep(0.02)


async def test_what_is_there_is_described(hosts: TwoHosts) -> None:
    vm = await hosts.vm("shared", "local", "iscsi")
    assert vm.state is GuestState.RUNNING
    assert (vm.persistent, vm.autostart, vm.job_active, vm.epoch, vm.immovable) == (True, False, False, 0, ())
    assert all(d.capacity_bytes for d in vm.disks)
    assert vm.name in [row.name for row in await hosts.a.hypervisor.vms()]
    assert (await hosts.a.hypervisor.vm(vm.name)).uuid == vm.uuid
    with pytest.raises(NotFound):
        await hosts.a.hypervisor.vm("no-such-vm")
    facts = [await side.hypervisor.host() for side in (hosts.a, hosts.b)]
    assert facts[0].host_uuid != facts[1].host_uuid
    assert all(f.memory_free_bytes > 0 and f.qemu_version > 8_000_000 for f in facts)


async def test_absent_is_an_answer(hosts: TwoHosts) -> None:
    seen = await hosts.b.hypervisor.observe(NOBODY)
    assert (seen.state, seen.job_active, seen.epoch, seen.ran) == (GuestState.ABSENT, False, None, False)
    assert await hosts.b.hypervisor.end_incoming(NOBODY, 1) is False
    assert await hosts.b.hypervisor.end_leftover(NOBODY, 1) is False
    assert await hosts.b.hypervisor.undefine(NOBODY, None) is False
    assert await hosts.b.hypervisor.completed_job(NOBODY) is None
    assert await hosts.b.hypervisor.sample(NOBODY) is None


async def test_who_may_come(hosts: TwoHosts) -> None:
    vm = await hosts.vm("shared")
    assert await hosts.b.hypervisor.check_incoming(vm) == []
    codes = [r.code for r in await hosts.a.hypervisor.check_incoming(vm)]
    assert "uuid-taken" in codes
    odd = vm.model_copy(update={"machine": "pc-q35-0.1", "emulator": "/no/such/qemu"})
    found = await hosts.b.hypervisor.check_incoming(odd)
    assert {"emulator-missing", "machine-type-missing"} <= {r.code for r in found}
    assert all(r.fix for r in found)
    assert await hosts.a.hypervisor.check_peer(hosts.b.uri) is None
    nowhere = await hosts.a.hypervisor.check_peer("qemu+tcp://127.0.0.9/system")
    assert nowhere is not None
    assert nowhere.fix


async def test_the_epoch(hosts: TwoHosts) -> None:
    vm = await hosts.vm("shared")
    for epoch in (1, 1, 2):
        await hosts.a.hypervisor.mark(vm.uuid, "m", epoch)
        assert (await hosts.a.hypervisor.observe(vm.uuid)).epoch == epoch
    assert (await hosts.a.hypervisor.vm(vm.uuid)).epoch == 2


async def test_autostart(hosts: TwoHosts) -> None:
    vm = await hosts.vm("shared")
    for on in (True, True, False, False):
        await hosts.a.hypervisor.set_autostart(vm.uuid, on)
        assert (await hosts.a.hypervisor.vm(vm.uuid)).autostart is on


async def test_there_and_back_with_every_kind_of_disk(hosts: TwoHosts) -> None:
    vm = await hosts.vm("shared", "local", "iscsi")
    sides = (hosts.a, hosts.b)
    for epoch, (source, destination) in enumerate((sides, sides[::-1]), start=1):
        seen = await move(hosts, vm, epoch, source, destination)
        assert [k for k in seen if k in ("started-incoming", "resumed-migrated")] == [
            "started-incoming",
            "resumed-migrated",
        ]
        there = await destination.hypervisor.observe(vm.uuid)
        assert (there.state, there.epoch, there.ran) == (GuestState.RUNNING, epoch, True)
        here = await hosts.settled(source, vm.uuid)
        assert (here.state, here.epoch) == (GuestState.SHUTOFF, epoch)
        job = await destination.hypervisor.completed_job(vm.uuid)
        assert job is not None
        assert job.downtime_ms is not None
        assert job.total_ms is not None
        await hosts.clear(vm, epoch, source)
        assert (await source.hypervisor.observe(vm.uuid)).state is GuestState.ABSENT
        assert (
            await destination.hypervisor.check_incoming(vm.model_copy(update={"uuid": NOBODY, "name": "x"})) == []
        )
        now = await destination.hypervisor.vm(vm.uuid)
        assert (now.nics[0].port_id, now.nics[0].bridge) == (vm.nics[0].port_id, vm.nics[0].bridge)
        assert [d.volume_id for d in now.disks] == [d.volume_id for d in vm.disks]
        assert now.persistent
        assert now.memory_bytes == vm.memory_bytes


async def test_a_guest_that_runs_is_not_ended(hosts: TwoHosts) -> None:
    vm = await hosts.vm("shared")
    await hosts.a.hypervisor.mark(vm.uuid, "m", 3)
    for act in (
        hosts.a.hypervisor.end_incoming(vm.uuid, 3),
        hosts.a.hypervisor.end_leftover(vm.uuid, 3),
        hosts.a.hypervisor.undefine(vm.uuid, 3),
        hosts.a.hypervisor.resume(vm.uuid, 2),
    ):
        assert await outcome(act) == "conflict"
    await hosts.a.hypervisor.resume(vm.uuid, 3)
    assert (await hosts.a.hypervisor.observe(vm.uuid)).state is GuestState.RUNNING


async def test_while_a_copy_runs_and_when_it_is_aborted(hosts: TwoHosts) -> None:
    vm = await hosts.vm("shared")
    plan = await hosts.prepare(vm, 1, source=hosts.a, destination=hosts.b, bandwidth_bytes=SLOW)
    copy = asyncio.ensure_future(hosts.a.hypervisor.migrate(vm.uuid, plan))
    incoming = await until_incoming(hosts.b, vm.uuid)
    assert (incoming.state, incoming.epoch, incoming.ran) == (GuestState.PAUSED, 1, False)
    here = await hosts.a.hypervisor.observe(vm.uuid)
    assert (here.state, here.epoch, here.job_active) == (GuestState.RUNNING, 1, True)
    sample = await hosts.a.hypervisor.sample(vm.uuid)
    assert sample is not None
    assert sample.memory_total != 0
    with pytest.raises(Permanent):
        await hosts.a.hypervisor.mark(vm.uuid, "m", 2)
    assert await outcome(hosts.b.hypervisor.end_incoming(vm.uuid, 9)) == "conflict"
    assert await outcome(hosts.b.hypervisor.end_leftover(vm.uuid, 1)) == "conflict"
    await hosts.a.hypervisor.abort(vm.uuid)
    with pytest.raises(Unknown):
        await copy
    here = await hosts.settled(hosts.a, vm.uuid)
    assert (here.state, here.ran) == (GuestState.RUNNING, True)
    there = await hosts.b.hypervisor.observe(vm.uuid)
    assert (there.state, there.ran) == (GuestState.ABSENT, False)
    assert await hosts.a.hypervisor.sample(vm.uuid) is None
    await hosts.a.hypervisor.abort(vm.uuid)
    await hosts.b.vif.unplug(plan.nics[0].device, bridge=plan.nics[0].bridge)


async def test_a_cancelled_caller_does_not_end_the_copy_and_end_incoming_does(hosts: TwoHosts) -> None:
    vm = await hosts.vm("shared")
    plan = await hosts.prepare(vm, 1, source=hosts.a, destination=hosts.b, bandwidth_bytes=SLOW)
    copy = asyncio.ensure_future(hosts.a.hypervisor.migrate(vm.uuid, plan))
    await until_incoming(hosts.b, vm.uuid)
    copy.cancel()
    await asyncio.sleep(0.2)
    assert (await hosts.a.hypervisor.observe(vm.uuid)).job_active
    assert await hosts.b.hypervisor.end_incoming(vm.uuid, 1) is True
    assert await hosts.b.hypervisor.end_incoming(vm.uuid, 1) is False
    here = await hosts.settled(hosts.a, vm.uuid)
    assert here.state is GuestState.RUNNING
    assert (await hosts.b.hypervisor.observe(vm.uuid)).state is GuestState.ABSENT
    await hosts.b.vif.unplug(plan.nics[0].device, bridge=plan.nics[0].bridge)


async def test_a_plan_with_another_epoch_is_refused(hosts: TwoHosts) -> None:
    vm = await hosts.vm("shared")
    plan = await hosts.prepare(vm, 1, source=hosts.a, destination=hosts.b)
    with pytest.raises((Conflict, Unknown)):
        await hosts.a.hypervisor.migrate(vm.uuid, plan.model_copy(update={"epoch": 2}))
    assert (await hosts.a.hypervisor.observe(vm.uuid)).state is GuestState.RUNNING
    assert (await hosts.b.hypervisor.observe(vm.uuid)).state is GuestState.ABSENT
    await hosts.b.vif.unplug(plan.nics[0].device, bridge=plan.nics[0].bridge)


async def test_a_cold_start_after_a_migration_plugs_the_nic_again(hosts: TwoHosts) -> None:
    vm = await hosts.vm("shared")
    await move(hosts, vm, 1, hosts.a, hosts.b)
    await hosts.settled(hosts.a, vm.uuid)
    await hosts.clear(vm, 1, hosts.a)
    hosts.cold_start(hosts.b, vm.uuid)
    again = await hosts.b.hypervisor.vm(vm.uuid)
    assert again.state is GuestState.RUNNING
    port = await hosts.b.vif.describe(again.nics[0])
    assert port is not None
    assert (port.port_id, port.bridge, port.vlan) == (vm.nics[0].port_id, "br-int", 100)
    await hosts.b.vif.unplug(f"tap{vm.uuid[:8]}0", bridge="br-int")
    await move(hosts, again, 2, hosts.b, hosts.a)
    assert (await hosts.a.hypervisor.observe(vm.uuid)).ran
