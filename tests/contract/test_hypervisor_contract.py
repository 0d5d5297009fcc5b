"""What every `ports.hypervisor.Hypervisor` does."""

import asyncio
import contextlib

import pytest

from sterna.domain.cpus import described
from sterna.domain.definition_changes import UNKNOWN, place_of, reason_of
from sterna.domain.errors import Conflict, NotFound, Permanent, Unknown
from sterna.domain.model import GuestState, Nic
from sterna.domain.plugs import BRIDGE
from sterna.kit.digests import digest_of
from tests.contract.copies import move, until_incoming
from tests.contract.two_hosts import TwoHosts, outcome
from tests.narrowing import not_none

BASE_BYTES = 32 << 20
NOBODY = "00000000-0000-4000-8000-00000000dead"
SLOW = 4 << 20
"""bytes/s: slow enough that a copy never ends by itself within a test."""


async def test_what_is_there_is_described(hosts: TwoHosts) -> None:
    vm = await hosts.vm("shared", "local", "iscsi")
    assert vm.state is GuestState.RUNNING
    assert (vm.persistent, vm.autostart, vm.epoch, vm.immovable) == (True, False, 0, ())
    assert await hosts.a.hypervisor.check_outgoing(vm.uuid) == []
    assert all(d.capacity_bytes for d in vm.disks)
    assert vm.name in [row.name for row in await hosts.a.hypervisor.vms()]
    assert (await hosts.a.hypervisor.vm(vm.name)).uuid == vm.uuid
    with pytest.raises(NotFound):
        await hosts.a.hypervisor.vm("no-such-vm")
    facts = [await side.hypervisor.host() for side in (hosts.a, hosts.b)]
    assert facts[0].host_uuid != facts[1].host_uuid
    assert all(f.memory_free_bytes > 0 and f.qemu_version > 8_000_000 for f in facts)


async def test_the_hosts_cpu_is_described(hosts: TwoHosts) -> None:
    cpu = not_none(await hosts.a.hypervisor.own_cpu())
    assert (await hosts.a.hypervisor.host()).cpu_id == digest_of(cpu.text)
    assert await hosts.a.hypervisor.own_cpu() == cpu
    assert described(cpu.model_dump(mode="json")) == cpu
    assert cpu.model and cpu.features and cpu.virt_type in ("kvm", "qemu")
    assert list(cpu.features) == sorted(set(cpu.features)) and list(cpu.models) == sorted(set(cpu.models))


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


async def test_which_luns_its_domains_name(hosts: TwoHosts) -> None:
    vm = await hosts.vm("shared", "iscsi")
    target = next(not_none(disk.iscsi).target for disk in vm.disks if disk.iscsi is not None)
    owners = {claim.target: claim.owner for claim in await hosts.a.hypervisor.volume_claims()}
    assert vm.name in owners[target]
    for claims in (hosts.a.hypervisor.volume_claims(besides=vm.uuid), hosts.b.hypervisor.volume_claims()):
        assert target not in {claim.target for claim in await claims}


async def test_the_epoch(hosts: TwoHosts) -> None:
    vm = await hosts.vm("shared")
    for epoch in (1, 1, 2):
        await hosts.a.hypervisor.mark(vm.uuid, "m", epoch)
        assert (await hosts.a.hypervisor.observe(vm.uuid)).epoch == epoch
    assert (await hosts.a.hypervisor.vm(vm.uuid)).epoch == 2


async def test_exports_that_a_copy_left_end(hosts: TwoHosts) -> None:
    vm = await hosts.vm("local")
    assert await hosts.a.hypervisor.end_exports(vm.uuid) == ()
    hosts.export_disks(vm)
    assert len(hosts.exports(vm)) == 1
    assert len(await hosts.a.hypervisor.end_exports(vm.uuid)) == 1
    assert hosts.exports(vm) == []
    assert await hosts.b.hypervisor.end_exports(vm.uuid) == ()


async def test_autostart(hosts: TwoHosts) -> None:
    vm = await hosts.vm("shared")
    for on in (True, True, False, False):
        await hosts.a.hypervisor.set_autostart(vm.uuid, on)
        assert (await hosts.a.hypervisor.vm(vm.uuid)).autostart is on


async def test_the_interlock_is_set_and_taken_away(hosts: TwoHosts) -> None:
    vm = await hosts.vm("shared")
    here = hosts.a.hypervisor
    await here.mark(vm.uuid, "m", 3)
    for act in (here.interlock(vm.uuid, 2), here.release_interlock(vm.uuid, 2)):
        assert await outcome(act) == "conflict"
    for _ in range(2):
        for _ in range(2):
            await here.interlock(vm.uuid, 3)
            assert await here.interlocked(vm.uuid)
        assert (await here.observe(vm.uuid)).state is GuestState.RUNNING
        for _ in range(2):
            await here.release_interlock(vm.uuid, 3)
            assert not await here.interlocked(vm.uuid)
    await here.release_interlock(NOBODY, 3)
    assert not await here.interlocked(NOBODY)


async def test_before_the_hand_over_the_interlock_stops_nothing(hosts: TwoHosts) -> None:
    vm = await hosts.vm("shared")
    plan = await hosts.prepare(vm, 1, source=hosts.a, destination=hosts.b, limit_bytes_s=SLOW)
    await hosts.a.hypervisor.interlock(vm.uuid, 1)
    copy = asyncio.ensure_future(hosts.a.hypervisor.migrate(vm.uuid, plan))
    await until_incoming(hosts.b, vm.uuid)
    assert await outcome(hosts.a.hypervisor.release_interlock(vm.uuid, 1)) == "conflict"
    await hosts.a.hypervisor.abort(vm.uuid)
    with pytest.raises(Unknown):
        await copy
    assert (await hosts.settled(hosts.a, vm.uuid)).state is GuestState.RUNNING
    await hosts.a.hypervisor.hold(vm.uuid, 1)
    await hosts.a.hypervisor.resume(vm.uuid, 1)
    assert (await hosts.a.hypervisor.observe(vm.uuid)).state is GuestState.RUNNING
    assert not await hosts.a.hypervisor.interlocked(vm.uuid)
    await hosts.unplug(hosts.b, plan)


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
        other = vm.model_copy(
            update={"uuid": NOBODY, "name": "x", "references": ()}
        )  # with a serial log of its own
        assert await destination.hypervisor.check_incoming(other) == []
        now = await destination.hypervisor.vm(vm.uuid)
        assert (now.nics[0].port_id, now.nics[0].bridge) == (vm.nics[0].port_id, vm.nics[0].bridge)
        assert [d.volume_id for d in now.disks] == [d.volume_id for d in vm.disks]
        assert now.persistent
        assert now.memory_bytes == vm.memory_bytes


async def test_what_differs_on_the_destination_is_known_before_the_copy(hosts: TwoHosts) -> None:
    vm = await hosts.vm("shared", "iscsi")
    plan = await hosts.prepare(vm, 1, source=hosts.a, destination=hosts.b)
    changes = await hosts.a.hypervisor.definition_changes(vm.uuid, plan)
    live = {place_of(one.where) for one in changes.live}
    assert any(place.startswith("devices/disk/source/initiator") for place in live), changes
    assert any(place.startswith("devices/interface/target") for place in live), changes
    persistent = {place_of(one.where) for one in changes.persistent or ()}
    assert any(place.startswith("devices/disk/source/initiator") for place in persistent), changes
    assert not any(place.startswith("devices/interface/target") for place in persistent), changes
    assert all(reason_of(one.where) != UNKNOWN for one in (*changes.live, *(changes.persistent or ())))
    assert all(one.before != one.after for one in changes.live)
    assert (await hosts.a.hypervisor.vm(vm.uuid)).disks[1].iscsi == vm.disks[1].iscsi
    with pytest.raises(NotFound):
        await hosts.a.hypervisor.definition_changes(NOBODY, plan)
    await hosts.unplug(hosts.b, plan)


async def test_of_a_disk_on_a_base_both_hosts_see_only_what_differs_travels(hosts: TwoHosts) -> None:
    vm = await hosts.vm("overlay", "local")
    assert vm.disks[0].backing_path and vm.disks[0].backing_format
    assert await hosts.b.storage.check_targets((vm.disks[0],)) == []
    unseen = vm.disks[0].model_copy(update={"backing_shared": False})
    assert [r.code for r in await hosts.b.storage.check_targets((unseen,))] == ["disk-backing-file"]
    sides = (hosts.a, hosts.b)
    for epoch, (source, destination) in enumerate((sides, sides[::-1]), start=1):
        await move(hosts, vm, epoch, source, destination)
        assert (await destination.hypervisor.observe(vm.uuid)).state is GuestState.RUNNING
        await hosts.settled(source, vm.uuid)
        await hosts.clear(vm, epoch, source)
        now = await destination.hypervisor.vm(vm.uuid)
        assert now.disks[0].backing_path == vm.disks[0].backing_path
        assert now.disks[0].allocation_bytes is not None
        assert now.disks[0].allocation_bytes < BASE_BYTES  # the base has more than that


async def test_a_guest_that_runs_is_not_ended(hosts: TwoHosts) -> None:
    vm = await hosts.vm("shared")
    await hosts.a.hypervisor.mark(vm.uuid, "m", 3)
    for act in (
        hosts.a.hypervisor.end_incoming(vm.uuid, 3),
        hosts.a.hypervisor.end_leftover(vm.uuid, 3),
        hosts.a.hypervisor.undefine(vm.uuid, 3),
        hosts.a.hypervisor.resume(vm.uuid, 2),
        hosts.a.hypervisor.hold(vm.uuid, 2),
    ):
        assert await outcome(act) == "conflict"
    for _ in range(2):
        await hosts.a.hypervisor.hold(vm.uuid, 3)
        held = await hosts.a.hypervisor.observe(vm.uuid)
        assert (held.state, held.reason) == (GuestState.PAUSED, "user")
    await hosts.a.hypervisor.resume(vm.uuid, 3)
    assert (await hosts.a.hypervisor.observe(vm.uuid)).state is GuestState.RUNNING


async def test_while_a_copy_runs_and_when_it_is_aborted(hosts: TwoHosts) -> None:
    vm = await hosts.vm("shared")
    plan = await hosts.prepare(vm, 1, source=hosts.a, destination=hosts.b, limit_bytes_s=SLOW)
    copy = asyncio.ensure_future(hosts.a.hypervisor.migrate(vm.uuid, plan))
    incoming = await until_incoming(hosts.b, vm.uuid)
    assert (incoming.state, incoming.epoch, incoming.ran) == (GuestState.PAUSED, 1, False)
    here = await hosts.a.hypervisor.observe(vm.uuid)
    assert (here.state, here.epoch, here.job_active) == (GuestState.RUNNING, 1, True)
    sample = await hosts.a.hypervisor.sample(vm.uuid)
    assert sample is not None
    assert sample.memory_total != 0
    assert await hosts.a.hypervisor.sent(vm.uuid) == ""
    with pytest.raises(Permanent):
        await hosts.a.hypervisor.mark(vm.uuid, "m", 2)
    assert await outcome(hosts.b.hypervisor.end_incoming(vm.uuid, 9)) == "conflict"
    assert await outcome(hosts.b.hypervisor.end_leftover(vm.uuid, 1)) == "conflict"
    await hosts.a.hypervisor.abort(vm.uuid)
    with pytest.raises(Unknown):
        await copy
    here = await hosts.settled(hosts.a, vm.uuid)
    assert (here.state, here.ran) == (GuestState.RUNNING, True)
    assert await hosts.a.hypervisor.sent(vm.uuid) == ""
    there = await hosts.b.hypervisor.observe(vm.uuid)
    assert (there.state, there.ran) == (GuestState.ABSENT, False)
    assert await hosts.a.hypervisor.sample(vm.uuid) is None
    await hosts.a.hypervisor.abort(vm.uuid)
    await hosts.unplug(hosts.b, plan)


async def test_a_source_says_that_it_has_sent_the_guest_whole(hosts: TwoHosts) -> None:
    """Its QEMU lives a second longer than the hand-over takes."""
    vm = await hosts.vm("shared")
    plan = await hosts.prepare(vm, 1, source=hosts.a, destination=hosts.b)
    assert await hosts.a.hypervisor.sent(vm.uuid) == ""
    copy = asyncio.ensure_future(hosts.a.hypervisor.migrate(vm.uuid, plan))
    marks = set[str]()
    while not copy.done():
        with contextlib.suppress(Permanent, NotFound):  # its QEMU is gone
            marks.add(await hosts.a.hypervisor.sent(vm.uuid))
        await asyncio.sleep(0.02)
    await copy
    assert len(marks - {""}) == 1
    with pytest.raises(Permanent):
        await hosts.a.hypervisor.sent(vm.uuid)
    with pytest.raises(NotFound):
        await hosts.a.hypervisor.sent(NOBODY)


async def test_a_cancelled_caller_does_not_end_the_copy_and_end_incoming_does(hosts: TwoHosts) -> None:
    vm = await hosts.vm("shared")
    plan = await hosts.prepare(vm, 1, source=hosts.a, destination=hosts.b, limit_bytes_s=SLOW)
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
    await hosts.unplug(hosts.b, plan)


async def test_a_plan_with_another_epoch_is_refused(hosts: TwoHosts) -> None:
    vm = await hosts.vm("shared")
    plan = await hosts.prepare(vm, 1, source=hosts.a, destination=hosts.b)
    with pytest.raises((Conflict, Unknown)):
        await hosts.a.hypervisor.migrate(vm.uuid, plan.model_copy(update={"epoch": 2}))
    assert (await hosts.a.hypervisor.observe(vm.uuid)).state is GuestState.RUNNING
    assert (await hosts.b.hypervisor.observe(vm.uuid)).state is GuestState.ABSENT
    await hosts.unplug(hosts.b, plan)


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
    await hosts.b.vif.unplug(port.model_copy(update={"device": f"tap{vm.uuid[:8]}0"}))
    await move(hosts, again, 2, hosts.b, hosts.a)
    assert (await hosts.a.hypervisor.observe(vm.uuid)).ran


async def test_a_nic_is_taken_from_a_running_guest_and_given_to_it_again(hosts: TwoHosts) -> None:
    """A Linux bridge's NIC stands in for a virtual function, which no machine of ours has."""
    vm = await hosts.vm("shared")
    nic = Nic(mac="52:54:00:74:99:01", plug=BRIDGE, bridge="br-lan")
    assert await outcome(hosts.b.hypervisor.attach_nic(vm.uuid, nic)) == "not-found"
    assert await outcome(hosts.b.hypervisor.detach_nic(vm.uuid, nic)) == "not-found"
    await hosts.a.hypervisor.detach_nic(vm.uuid, nic)  # not there: nothing
    for _ in range(2):
        for _ in range(2):
            await hosts.a.hypervisor.attach_nic(vm.uuid, nic)
        first, given = (await hosts.a.hypervisor.vm(vm.uuid)).nics
        assert first.mac == vm.nics[0].mac
        assert (given.mac, given.plug, given.bridge) == (nic.mac, BRIDGE, "br-lan")
        assert await hosts.a.vif.describe(given) is not None
        for _ in range(2):
            await hosts.a.hypervisor.detach_nic(vm.uuid, nic)
        assert [n.mac for n in (await hosts.a.hypervisor.vm(vm.uuid)).nics] == [first.mac]
        assert await hosts.a.vif.describe(given) is None
    await move(hosts, vm, 1, hosts.a, hosts.b)
    assert (await hosts.b.hypervisor.observe(vm.uuid)).ran


async def test_what_a_guest_dirties_is_measured(hosts: TwoHosts) -> None:
    vm = await hosts.vm("shared")
    with pytest.raises(NotFound):
        await hosts.a.hypervisor.measure_load(NOBODY, 1)
    await hosts.a.hypervisor.measure_load(vm.uuid, 1)
    async with asyncio.timeout(10):
        while (load := await hosts.a.hypervisor.load(vm.uuid)) is None:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.1)
    assert load.period_s == 1
    assert 0 <= load.dirty_bytes <= vm.memory_bytes
    assert load.allocated_bytes is not None and load.allocated_bytes > 0


async def test_a_running_copy_is_slowed_down_and_let_go(hosts: TwoHosts) -> None:
    vm = await hosts.vm("shared")
    with pytest.raises(Permanent):
        await hosts.a.hypervisor.set_bandwidth(vm.uuid, SLOW)
    await hosts.a.hypervisor.set_max_downtime(vm.uuid, 50)
    plan = await hosts.prepare(vm, 1, source=hosts.a, destination=hosts.b, limit_bytes_s=SLOW)
    copy = asyncio.ensure_future(hosts.a.hypervisor.migrate(vm.uuid, plan))
    await until_incoming(hosts.b, vm.uuid)
    async with asyncio.timeout(20):  # a limit that comes before QEMU sends would be lost: it is refused
        while await outcome(hosts.a.hypervisor.set_bandwidth(vm.uuid, SLOW)) != "None":  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert not copy.done()
    await hosts.a.hypervisor.set_max_downtime(vm.uuid, 500)
    await hosts.a.hypervisor.set_bandwidth(vm.uuid, None)
    async with asyncio.timeout(60):  # at 4 MiB/s it would take longer
        await copy
    assert (await hosts.b.hypervisor.observe(vm.uuid)).ran
    with pytest.raises(Permanent):
        await hosts.a.hypervisor.set_max_downtime(vm.uuid, 50)
