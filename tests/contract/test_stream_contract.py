"""What every hypervisor makes of a copy's stream: each way carries a guest, what cannot be is refused."""

import asyncio
from typing import Any

import pytest
from two_hosts import TwoHosts, contract_lab, hosts

from sterna.domain.downtime import SourceTimes
from sterna.domain.errors import Permanent, Unknown
from sterna.domain.model import GuestState

__all__ = ["contract_lab", "hosts"]
SLOW = 4 << 20
"""bytes/s: slow enough to be looked at."""
ZSTD = {"compression": "zstd", "parallel.connections": 3}
WAYS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "tcp": ({}, set()),
    "tls": ({"flags": ("TLS",)}, {"tls"}),
    "ssh": ({"flags": ("TUNNELLED",)}, {"tunnelled"}),
    "zstd": (
        {"flags": ("PARALLEL", "COMPRESSED"), "parameters": ZSTD},
        {"parallel", "compressed", "parallel.connections=3", "compression=zstd"},
    ),
    "tls, parallel": (
        {"flags": ("PARALLEL", "TLS"), "parameters": {"parallel.connections": 2}},
        {"parallel", "tls", "parallel.connections=2"},
    ),
    "zero-copy": (
        {"flags": ("PARALLEL", "ZEROCOPY"), "parameters": {"parallel.connections": 2}},
        {"parallel", "zerocopy", "parallel.connections=2"},
    ),
    "post-copy over tls": ({"flags": ("TLS",), "postcopy": True}, {"tls", "postcopy"}),
    "synchronous writes": ({"flags": ("NON_SHARED_SYNCHRONOUS_WRITES",)}, set()),
    "link known": ({"parameters": {"bandwidth.avail.switchover": 500}}, {"bandwidth.avail.switchover=500"}),
}
WITH_DISK = {"post-copy over tls", "tls", "synchronous writes"}
IMPOSSIBLE: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "parallel in the tunnel": (("shared",), {"flags": ("TUNNELLED", "PARALLEL")}),
    "post-copy in the tunnel": (("shared",), {"flags": ("TUNNELLED",), "postcopy": True}),
    "disks in the tunnel": (("local",), {"flags": ("TUNNELLED",)}),
    "zero-copy on one connection": (("shared",), {"flags": ("ZEROCOPY",)}),
    "zero-copy with tls": (("shared",), {"flags": ("ZEROCOPY", "PARALLEL", "TLS")}),
    "zero-copy with zstd": (
        ("shared",),
        {"flags": ("ZEROCOPY", "PARALLEL", "COMPRESSED"), "parameters": {"compression": "zstd"}},
    ),
    "zstd on one connection": (("shared",), {"flags": ("COMPRESSED",), "parameters": {"compression": "zstd"}}),
    "post-copy with parallel before QEMU 10.1": (("shared",), {"flags": ("PARALLEL",), "postcopy": True}),
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
    more, made_of = WAYS[way]
    disks = ("shared", "local") if way in WITH_DISK else ("shared",)
    limit = hosts.unhurried if way in WITH_DISK else SLOW  # the disks come first, within the same limit
    vm = await hosts.vm(*disks)
    plan = await hosts.prepare(vm, 1, source=hosts.a, destination=hosts.b, bandwidth_bytes=limit, **more)
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
    assert not ({"tls", "tunnelled", "parallel", "compressed", "zerocopy", "postcopy"} - made_of) & seen
    assert record is not None
    assert None not in record.values()  # what the standstill was made of
    there = await hosts.b.hypervisor.observe(vm.uuid)
    assert (there.state, there.epoch, there.ran) == (GuestState.RUNNING, 1, True)
    assert (await hosts.settled(hosts.a, vm.uuid)).state is GuestState.SHUTOFF
    await hosts.b.hypervisor.close_recovery(vm.uuid)


@pytest.mark.parametrize("what", IMPOSSIBLE)
async def test_what_the_solver_calls_impossible_is_refused_by_libvirt_as_well(hosts: TwoHosts, what: str) -> None:
    disks, more = IMPOSSIBLE[what]
    vm = await hosts.vm(*disks)
    plan = await hosts.prepare(vm, 1, source=hosts.a, destination=hosts.b, **more)
    with pytest.raises(Unknown):
        await hosts.a.hypervisor.migrate(vm.uuid, plan)
    assert (await hosts.settled(hosts.a, vm.uuid)).state is GuestState.RUNNING
    assert (await hosts.b.hypervisor.observe(vm.uuid)).state is GuestState.ABSENT
    await hosts.b.vif.unplug(plan.nics[0].device, bridge=plan.nics[0].bridge)


async def test_what_a_host_can_do_is_said(hosts: TwoHosts) -> None:
    able = (await hosts.a.hypervisor.host()).abilities
    assert (able.tls, able.zstd, able.locked_memory, able.userfaultfd) == (True, True, True, True)
    assert able.link_bytes_s is None  # nobody has said
