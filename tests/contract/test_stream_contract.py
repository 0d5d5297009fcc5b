"""What every hypervisor makes of a copy's stream: each way carries a guest, what cannot be is refused."""

import asyncio
from typing import Any

import pytest

from sterna.domain.downtime import SourceTimes
from sterna.domain.errors import Permanent, Unknown
from sterna.domain.model import GuestState, Vm
from tests.contract.two_hosts import TwoHosts

SLOW = 4 << 20
"""bytes/s: slow enough to be looked at."""
ZSTD = {"compression": "zstd", "parallel.connections": 3}
WAYS: dict[str, tuple[tuple[str, ...], dict[str, Any], set[str]]] = {
    "ssh": (("shared",), {"flags": ("TUNNELLED",)}, {"tunnelled"}),
    "tls, zstd on three connections": (
        ("shared",),
        {"flags": ("PARALLEL", "COMPRESSED", "TLS"), "parameters": ZSTD},
        {"tls", "parallel", "compressed", "parallel.connections=3", "compression=zstd"},
    ),
    "tls, may be switched to post-copy, disk": (
        ("shared", "local"),
        {"flags": ("TLS", "POSTCOPY")},
        {"tls", "postcopy", "preempt"},
    ),
    "tcp, link known, synchronous writes": (
        ("local",),
        {"flags": ("NON_SHARED_SYNCHRONOUS_WRITES",), "parameters": {"bandwidth.avail.switchover": 500}},
        {"bandwidth.avail.switchover=500"},
    ),
}
KINDS = {"tls", "tunnelled", "parallel", "compressed", "zerocopy", "postcopy"}
ZERO_COPY: dict[str, Any] = {"flags": ("PARALLEL", "ZEROCOPY"), "parameters": {"parallel.connections": 2}}
IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "parallel in the tunnel": {"flags": ("TUNNELLED", "PARALLEL")},
    "post-copy in the tunnel": {"flags": ("TUNNELLED", "POSTCOPY")},
    "zero-copy on one connection": {"flags": ("ZEROCOPY",)},
    "zero-copy with tls": {"flags": ("ZEROCOPY", "PARALLEL", "TLS")},
    "zero-copy with zstd": {
        "flags": ("ZEROCOPY", "PARALLEL", "COMPRESSED"),
        "parameters": {"compression": "zstd"},
    },
    "zstd on one connection": {"flags": ("COMPRESSED",), "parameters": {"compression": "zstd"}},
    "post-copy with parallel before QEMU 10.1": {"flags": ("PARALLEL", "POSTCOPY")},
}


async def unbounded(hosts: TwoHosts, uuid: str) -> None:
    """Take the limit away, as soon as that counts."""
    async with asyncio.timeout(30):
        while True:
            try:
                await hosts.a.hypervisor.set_bandwidth(uuid, None)
            except Permanent:
                await asyncio.sleep(0.02)
            else:
                return


@pytest.mark.parametrize("way", WAYS)
async def test_each_way_carries_a_guest(hosts: TwoHosts, way: str) -> None:
    disks, more, made_of = WAYS[way]
    limit = hosts.unhurried if "local" in disks else SLOW  # the disks come first, within the same limit
    vm = await hosts.vm(*disks)
    plan = await hosts.prepare(vm, 1, source=hosts.a, destination=hosts.b, limit_bytes_s=limit, **more)
    seen: set[str] = set()
    times, record = SourceTimes(), None
    async with hosts.a.hypervisor.events(vm.uuid) as events, asyncio.timeout(60):
        copy = asyncio.ensure_future(hosts.a.hypervisor.migrate(vm.uuid, plan))
        async for event in events:
            if event.kind == "iteration" and not seen:
                seen = hosts.stream_of(vm)
                await unbounded(hosts, vm.uuid)
            record = times.take(event.kind, event.at_ms)
            if record is not None:
                break
    await copy
    assert made_of <= seen
    assert not (KINDS - made_of) & seen
    assert record is not None
    assert None not in record.to_data().values()  # the parts of the downtime
    there = await hosts.b.hypervisor.observe(vm.uuid)
    assert (there.state, there.epoch, there.ran) == (GuestState.RUNNING, 1, True)
    assert (await hosts.settled(hosts.a, vm.uuid)).state is GuestState.SHUTOFF
    await hosts.b.hypervisor.close_recovery(vm.uuid)


async def test_disks_share_the_limit_of_their_copy(hosts: TwoHosts) -> None:
    vm = await hosts.vm("overlay", "local")
    plan = await hosts.prepare(vm, 1, source=hosts.a, destination=hosts.b, limit_bytes_s=1 << 20)
    copy = asyncio.ensure_future(hosts.a.hypervisor.migrate(vm.uuid, plan))
    async with asyncio.timeout(30):
        while True:
            speeds = await sampled_speeds(hosts, vm)
            if speeds and sum(speeds) <= 1 << 20:
                break
            await asyncio.sleep(0.1)
    await hosts.a.hypervisor.abort(vm.uuid)
    with pytest.raises(Unknown):
        await copy
    assert (await hosts.settled(hosts.a, vm.uuid)).state is GuestState.RUNNING


async def sampled_speeds(hosts: TwoHosts, vm: Vm) -> list[int]:
    """Once it was looked at, as the agent does every half second."""
    if await hosts.a.hypervisor.sample(vm.uuid) is None:
        return []
    return hosts.disk_speeds(vm)


async def refused(hosts: TwoHosts, vm: Vm, epoch: int, **more: Any) -> str:
    """What libvirt says to such a copy; nothing has happened."""
    plan = await hosts.prepare(vm, epoch, source=hosts.a, destination=hosts.b, **more)
    with pytest.raises(Unknown) as error:
        await hosts.a.hypervisor.migrate(vm.uuid, plan)
    assert (await hosts.settled(hosts.a, vm.uuid)).state is GuestState.RUNNING
    assert (await hosts.b.hypervisor.observe(vm.uuid)).state is GuestState.ABSENT
    await hosts.unplug(hosts.b, plan)
    return error.value.message


async def test_what_the_solver_calls_impossible_is_refused_by_libvirt_as_well(hosts: TwoHosts) -> None:
    vm = await hosts.vm("shared")
    for epoch, (what, more) in enumerate(IMPOSSIBLE.items(), start=1):
        assert await refused(hosts, vm, epoch, **more), what
    on_disk = await hosts.vm("local")
    assert await refused(hosts, on_disk, 1, flags=("TUNNELLED",))


async def test_what_a_host_says_it_can_do_it_can(hosts: TwoHosts) -> None:
    for _ in range(300):
        able = (await hosts.a.hypervisor.host()).abilities
        if able.zstd is not None:
            break
        await asyncio.sleep(0.1)  # its QEMU is being asked
    assert (able.tls, able.zstd, able.userfaultfd) == (True, True, True)  # each is used above
    assert able.link_bytes_s is None  # nobody has said
    vm = await hosts.vm("shared")
    if able.locked_memory:
        plan = await hosts.prepare(vm, 1, source=hosts.a, destination=hosts.b, **ZERO_COPY)
        await hosts.a.hypervisor.migrate(vm.uuid, plan)
        assert (await hosts.b.hypervisor.observe(vm.uuid)).state is GuestState.RUNNING
    else:
        assert "locked memory" in await refused(hosts, vm, 1, **ZERO_COPY)
