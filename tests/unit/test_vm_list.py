"""An agent tells what changes of its host's VMs, counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sterna.agent import vm_list
from sterna.agent.vm_list import VmList
from sterna.domain import untrusted
from sterna.domain.errors import Unreachable
from sterna.domain.hosts import VmSummary
from sterna.domain.model import Data, GuestState, Vm
from sterna.domain.sightings import text_of
from sterna.kit.digests import digest_of
from sterna.rpc.client import RpcClient
from sterna.sim.ports.bus import MemoryBroker
from sterna.sim.world.clock import SimClock
from tests.contract.records import seen


class Libvirt:
    def __init__(self) -> None:
        self.vms_now: list[VmSummary] = []
        self.away = False
        self.events: asyncio.Queue[None] = asyncio.Queue()
        self.looks = 0
        self.held: list[asyncio.Event] = []
        """Answers that come only once these are set, the first first."""

    async def vms(self) -> list[VmSummary]:
        self.looks += 1
        if self.away:
            raise Unreachable("libvirtd is away")
        found = list(self.vms_now)
        if self.held:
            await self.held.pop(0).wait()
        return found

    async def vm(self, name_or_uuid: str) -> Vm:
        raise AssertionError("nobody needs to know")

    @asynccontextmanager
    async def changes(self) -> AsyncIterator[AsyncIterator[None]]:
        if self.away:
            raise Unreachable("libvirtd is away")
        yield self._events()

    async def _events(self) -> AsyncIterator[None]:
        while True:
            await self.events.get()
            yield


class Host:
    """One host's list, and what a controller hears of it."""

    def __init__(self) -> None:
        self.clock, self.libvirt, broker = SimClock(), Libvirt(), MemoryBroker()
        self.list = VmList(self.libvirt, RpcClient(broker.bus("h", "h"), "h", self.clock), "life-1", self.clock)
        self._controller = RpcClient(broker.bus("controller", "@controller"), "@controller", self.clock)
        self.told: list[Data] = []
        self.broker = broker

    async def __aenter__(self) -> Host:
        async def heard(topic: str, data: Data) -> None:
            assert topic == "vms.h"
            self.told.append(data)

        await self._controller.listen("vms.*", heard)
        self.list.start()
        await self.clock.advance(2 * vm_list.LOOK_AFTER_S)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.list.stop()
        assert self.broker.refused == []

    async def event(self) -> None:
        self.libvirt.events.put_nowait(None)
        await self.clock.run_until_idle()
        await self.clock.advance(2 * vm_list.LOOK_AFTER_S)

    @property
    def changes(self) -> list[tuple[int, list[str], tuple[str, ...]]]:
        news = [untrusted.vm_news(data) for data in self.told]
        return [(n.mark.seq, [vm.name for vm in n.seen], n.gone) for n in news if n.mark is not None]


async def test_the_first_look_tells_nothing_but_how_far_it_has_counted() -> None:
    host = Host()
    host.libvirt.vms_now = [seen(1)]
    assert host.list.mark() is None
    async with host:
        assert host.told == []
        assert host.list.mark() == {"seq": 1, "digest": digest_of(text_of([seen(1)]))}


async def test_each_change_is_told_once_with_its_number() -> None:
    async with Host() as host:
        host.libvirt.vms_now = [seen(1), seen(2)]
        await host.event()
        host.libvirt.vms_now = [seen(2, GuestState.SHUTOFF)]
        await host.event()
        await host.event()
        assert host.changes == [(2, ["vm1", "vm2"], ()), (3, ["vm2"], (seen(1).uuid,))]
        assert host.told[-1]["digest"] == digest_of(text_of(host.libvirt.vms_now))


async def test_of_many_events_one_look_tells() -> None:
    async with Host() as host:
        before = host.libvirt.looks
        for n in range(20):
            host.libvirt.vms_now.append(seen(n))
            host.libvirt.events.put_nowait(None)
        await host.event()
        assert host.libvirt.looks == before + 1
        assert [len(names) for _, names, _ in host.changes] == [20]


async def test_a_change_is_noticed_without_any_event() -> None:
    async with Host() as host:
        host.libvirt.vms_now = [seen(1)]
        await host.clock.advance(vm_list.LOOK_ANYWAY_S + 2 * vm_list.LOOK_AFTER_S)
        assert host.changes == [(2, ["vm1"], ())]


async def test_it_goes_on_when_libvirtd_is_back() -> None:
    host = Host()
    host.libvirt.away = True
    async with host:
        await host.clock.advance(20)
        assert host.list.mark() is None
        with pytest.raises(Unreachable):
            await host.list.whole()
        host.libvirt.away, host.libvirt.vms_now = False, [seen(1)]
        await host.clock.advance(3)
        assert host.list.mark() is not None


async def test_the_whole_list_is_of_now_and_a_change_that_it_finds_is_counted() -> None:
    async with Host() as host:
        host.libvirt.vms_now = [seen(1)]
        news = untrusted.vm_list(await host.list.whole())
        assert news.mark is not None
        assert (news.mark.boot, news.mark.seq, news.seen, news.whole) == ("life-1", 2, (seen(1),), True)
        await host.clock.run_until_idle()
        assert host.changes == [(2, ["vm1"], ())], "whoever did not ask hears of it as well"


async def test_too_much_for_one_message_is_only_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vm_list, "MOST_CHANGES", 3)
    async with Host() as host:
        host.libvirt.vms_now = [seen(n) for n in range(4)]
        await host.event()
        assert (host.told, host.list.mark()) == ([], {"seq": 2, "digest": digest_of(text_of(host.libvirt.vms_now))})


async def test_an_answer_that_comes_late_does_not_take_back_a_newer_one() -> None:
    async with Host() as host:
        held = asyncio.Event()
        host.libvirt.held = [held]
        late = asyncio.create_task(host.list.whole())
        await host.clock.run_until_idle()
        host.libvirt.vms_now = [seen(1)]
        await host.event()
        held.set()
        assert untrusted.vm_list(await late).seen == (seen(1),)
        assert host.changes == [(2, ["vm1"], ())]
