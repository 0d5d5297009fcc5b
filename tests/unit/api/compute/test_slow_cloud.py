"""Whose servers are, while Neutron and Cinder are slow: many who ask wait for few questions, and not for long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from sterna.controller.records import servers as module
from sterna.controller.records.servers import Server
from sterna.ports.cloud import ServerPort
from sterna.ports.fleet import VmRecord

from .cloud import DB1, LOST1, OFF1, OURS, WEB1, Cloud


class SlowPorts:
    """Neutron, which answers when it is told to."""

    def __init__(self, cloud: Cloud) -> None:
        self._answer, self._goes_on = cloud.services.ports, asyncio.Event()
        self.asked: list[set[str]] = []
        self.is_asked = asyncio.Event()
        cloud.services.ports = self.ports  # type: ignore[method-assign]

    async def ports(self, servers: Sequence[str]) -> list[ServerPort]:
        self.asked.append(set(servers))
        self.is_asked.set()
        async with asyncio.timeout(20):
            await self._goes_on.wait()
        return await self._answer(servers)

    def go_on(self) -> None:
        self._goes_on.set()


@asynccontextmanager
async def asking(cloud: Cloud, *uuids: str) -> AsyncIterator[list[asyncio.Task[Server]]]:
    """Requests for these servers, once each has read its record and waits."""
    read, all_read, fleet = list[str](), asyncio.Event(), cloud.world.fleet
    vms_called = fleet.vms_called

    async def seen(uuid: str) -> list[VmRecord]:
        found = await vms_called(uuid)
        read.append(uuid)
        if len(read) == len(uuids):
            all_read.set()
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fleet, "vms_called", seen)
        tasks = [asyncio.create_task(cloud.setup.servers.one(uuid)) for uuid in uuids]
        await all_read.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_servers_that_are_asked_for_meanwhile_are_asked_about_together(cloud: Cloud) -> None:
    slow = SlowPorts(cloud)
    async with asyncio.timeout(20), asking(cloud, WEB1) as first:
        await slow.is_asked.wait()
        async with asking(cloud, OFF1, DB1, LOST1, WEB1) as others:
            slow.go_on()
            seen = await asyncio.gather(*first, *others)
    assert slow.asked == [{WEB1}, {OFF1, DB1, LOST1}]
    assert [one.vm.uuid for one in seen] == [WEB1, OFF1, DB1, LOST1, WEB1]
    assert seen[0].ports


async def test_nobody_waits_for_longer_because_others_wait_before(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = SlowPorts(cloud)
    async with asyncio.timeout(10), asking(cloud, WEB1) as (first,):
        await slow.is_asked.wait()
        monkeypatch.setattr(module, "LOOK_S", 0.1)
        shown = await cloud.setup.servers.one(OFF1)
        assert (shown.vm.uuid, shown.ports) == (OFF1, ())
        assert not first.done() and slow.asked == [{WEB1}]
        slow.go_on()
        assert (await first).ports


async def test_who_leaves_takes_no_answer_from_others(cloud: Cloud) -> None:
    slow = SlowPorts(cloud)
    async with asyncio.timeout(20), asking(cloud, WEB1, WEB1) as (leaves, stays):
        leaves.cancel()
        await asyncio.gather(leaves, return_exceptions=True)
        slow.go_on()
        assert (await stays).ports
    assert len(slow.asked) == 1


async def test_a_cloud_that_hangs_is_not_waited_for(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hangs(_servers: object) -> list[object]:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(module, "LOOK_S", 0.01)
    monkeypatch.setattr(cloud.services, "ports", hangs)
    async with asyncio.timeout(20):
        answers = await asyncio.gather(*(cloud.get(f"/servers/{WEB1}") for _ in range(3)))
    assert {answer["server"]["tenant_id"] for answer in answers} == {OURS}
