"""Whose servers are, while Neutron, Cinder or the records are slow: many who ask wait for few questions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import pytest

from sterna.controller.records import servers as module
from sterna.controller.records.servers import Server
from sterna.domain.errors import Unreachable
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

    def raise_if_aborted(self) -> None:
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
            slow.raise_if_aborted()
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
        slow.raise_if_aborted()
        assert (await first).ports


async def test_who_leaves_takes_no_answer_from_others(cloud: Cloud) -> None:
    slow = SlowPorts(cloud)
    async with asyncio.timeout(20), asking(cloud, WEB1, WEB1) as (leaves, stays):
        leaves.cancel()
        await asyncio.gather(leaves, return_exceptions=True)
        slow.raise_if_aborted()
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


# ------------------------------------------------------------ slow records


class SlowRecords:
    """A list of all VMs takes until it is told to go on; what is in it is as of its begin."""

    def __init__(self, cloud: Cloud) -> None:
        self._vms, self._gate, self._slow = cloud.world.fleet.vms, asyncio.Semaphore(0), True
        self.now = self.most = self.read = 0
        self.reads = asyncio.Event()
        cloud.world.fleet.vms = self.vms  # type: ignore[method-assign]

    async def vms(self) -> list[VmRecord]:
        if not self._slow:
            return await self._vms()
        self.read, self.now = self.read + 1, self.now + 1
        self.most = max(self.most, self.now)
        self.reads.set()
        found = await self._vms()  # as of now
        async with asyncio.timeout(20):
            await self._gate.acquire()
        self.now -= 1
        return found

    def raise_if_aborted(self) -> None:
        self._gate.release()

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside they are not slow."""
        self._slow = False
        yield
        self._slow = True


async def test_lists_of_all_servers_take_one_reader_of_the_records(cloud: Cloud) -> None:
    """Each request's token is looked for by the same few readers."""
    slow = SlowRecords(cloud)
    first = asyncio.create_task(cloud.setup.servers.all())
    await slow.reads.wait()
    cloud.world.a.add_vm("new1", 77)
    with slow.at_once():
        await cloud.world.controller.inventory.vms()
    later = [asyncio.create_task(cloud.setup.servers.all()) for _ in range(30)]
    hypervisors = asyncio.create_task(cloud.get("/os-hypervisors/detail"))
    await asyncio.sleep(0)
    for _ in range(3):
        slow.raise_if_aborted()
    assert "new1" not in [one.vm.name for one in await first]
    assert {"new1" in [one.vm.name for one in found] for found in await asyncio.gather(*later)} == {True}
    assert (await hypervisors)["hypervisors"]
    assert slow.most == 1
    assert slow.read <= 3, "those who came during the first one share the second"


async def test_a_list_that_fails_fails_no_later_one(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away() -> list[VmRecord]:
        await asyncio.sleep(0)
        raise Unreachable("the database does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(cloud.world.fleet, "vms", away)
        failed = await asyncio.gather(*(cloud.setup.servers.all() for _ in range(3)), return_exceptions=True)
        assert [type(one) for one in failed] == [Unreachable] * 3
    assert len(await cloud.setup.servers.all()) == 4
