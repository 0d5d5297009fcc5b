"""Agents tell what changes of their VMs, and nobody is asked for what was told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence

import pytest

from sterna.controller import reasons
from sterna.controller.records import snapshot
from sterna.domain.errors import BadRequest, Refused, Unreachable
from sterna.domain.model import Data, GuestState
from sterna.domain.sightings import News, text_of
from sterna.domain.trust import bounds
from sterna.kit.digests import digest_of
from sterna.ports.fleet import Taken, VmPage
from tests.unit.controller.requests import request

from .conftest import World
from .fakes import FakeAgent, uuid

LONG_S, SOON_S = 20.0, 0.01


@pytest.fixture
async def told(world: World) -> AsyncIterator[World]:
    """All three hosts count, and have been asked for their lists once."""
    for agent in world.bus.agents.values():
        agent.counts = True
    await world.controller.start()
    await beat(world)
    await settled(world, "web1", "a")
    await beat(world)
    world.bus.calls.clear()
    yield world


async def beat(world: World) -> None:
    world.clock.ms += 2_500
    await world.bus.beat(world.controller)


async def tell(world: World, agent: FakeAgent) -> Data:
    change = agent.count()
    assert change is not None
    await world.bus.hint(f"vms.{agent.name}", change)
    return change


async def found(world: World, name: str) -> list[tuple[str, GuestState, tuple[str, ...]]]:
    return [(vm.host, vm.state, vm.also) for vm in await world.fleet.vms_called(name)]


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(LONG_S):
        while not await holds():  # noqa: ASYNC110 - nothing tells of what was stored
            await asyncio.sleep(SOON_S)


async def settled(world: World, name: str, host: str, *also: str) -> None:
    """Wait until the records have it there."""

    async def there() -> bool:
        return [(h, a) for h, _, a in await found(world, name)] == [(host, also)]

    await until(there)


def asked(world: World) -> list[tuple[str, str]]:
    """But for journals."""
    return [(to, method) for to, method, _ in world.bus.calls if method != "journal_since"]


async def test_changes_are_stored_and_nobody_is_asked(told: World) -> None:
    told.b.add_vm("web2", 2)
    await tell(told, told.b)
    await settled(told, "web2", "b")
    del told.b.vms[uuid(2)]
    await tell(told, told.b)

    async def gone() -> bool:
        return not await found(told, "web2")

    await until(gone)
    await beat(told)
    await beat(told)
    listing = await told.controller.inventory.page(VmPage())
    assert ([vm.name for vm in listing.vms], listing.complete, listing.silent) == (["web1"], True, ())
    assert asked(told) == []


async def test_a_migration_asks_its_two_hosts_only(told: World) -> None:
    """Its source, which asks the destination."""
    await told.controller.migrate(request())
    assert asked(told) == [("a", "start_migration")]


async def test_where_none_is_named_the_best_is_asked_first(told: World) -> None:
    record, _ = await told.controller.migrate(request(to=None))
    assert record.migration.destination == "b"
    assert asked(told) == [("a", "check_migration"), ("a", "start_migration")]


async def test_a_change_that_was_lost_shows_in_the_next_beacon(told: World) -> None:
    told.b.add_vm("web2", 2)
    assert told.b.count() is not None, "told, and lost on its way"
    await beat(told)
    await settled(told, "web2", "b")
    assert asked(told) == [("b", "list_vms")], "once"
    await beat(told)
    assert asked(told) == [("b", "list_vms")]


async def test_a_change_behind_a_gap_asks_for_the_whole(told: World) -> None:
    told.b.add_vm("web2", 2)
    told.b.count()
    told.b.add_vm("web3", 3)
    await tell(told, told.b)
    await beat(told)
    await settled(told, "web3", "b")
    await settled(told, "web2", "b")
    assert asked(told) == [("b", "list_vms")]


async def test_another_life_of_an_agent_is_asked_for_the_whole_once(told: World) -> None:
    told.b.boot, told.b.seq = "life-2", 1
    told.b.add_vm("vm4", 4)
    told.b.told = dict(told.b.vms)
    await beat(told)
    await settled(told, "vm4", "b")
    assert asked(told) == [("b", "list_vms")]


async def test_a_stranger_tells_nothing_and_nonsense_is_asked_for(told: World) -> None:
    told.b.add_vm("web2", 2)
    change = told.b.count()
    assert change is not None
    await told.bus.hint("vms.nobody", change)
    for nonsense in ([{"uuid": "../../etc"}], change["seen"] * 501, change["seen"] * 2, 7):
        with pytest.raises(BadRequest):
            await told.bus.hint("vms.b", change | {"seen": nonsense})
    await beat(told)
    await settled(told, "web2", "b")
    assert asked(told) == [("b", "list_vms")]
    assert (await told.fleet.marks()).keys() == {"a", "b", "c"}


async def test_a_vm_that_has_moved_by_other_means_is_where_it_runs_and_not_twice(told: World) -> None:
    told.b.vms[told.web1] = told.a.vms.pop(told.web1)
    await tell(told, told.b)
    await settled(told, "web1", "b")

    async def was_asked() -> bool:
        return asked(told) == [("a", "list_vms")]

    await until(was_asked)
    await beat(told)
    assert await found(told, "web1") == [("b", GuestState.RUNNING, ())]


async def test_one_that_runs_twice_is_refused(told: World) -> None:
    told.b.vms[told.web1] = told.a.vms[told.web1]
    await tell(told, told.b)
    await settled(told, "web1", "b", "a")
    assert asked(told) == [("a", "list_vms")]
    listing = await told.controller.inventory.vms()
    assert [(vm.name, vm.host) for vm in listing.vms] == [("web1", "a"), ("web1", "b")]
    with pytest.raises(Refused) as refused:
        await told.controller.migrate(request(to="c"))
    assert [r.code for r in refused.value.refusals] == [reasons.TWICE]


async def test_a_vm_that_is_not_known_yet_is_waited_for_and_nobody_is_asked(told: World) -> None:
    told.b.add_vm("web2", 2)
    looking = asyncio.create_task(told.controller.inventory.find("web2"))
    await asyncio.sleep(0)
    await tell(told, told.b)
    try:
        assert (await looking).host == "b"
    except reasons.VmMissing:  # the clock of this test runs on by itself: it may have given up before
        assert (await told.controller.inventory.find("web2")).host == "b"
    with pytest.raises(reasons.VmMissing):
        await told.controller.inventory.find("no such")
    assert asked(told) == []


async def test_what_was_changed_in_the_records_is_asked_for_again(told: World) -> None:
    """Somebody put an older state of the database back, or a mistake of ours: the digest tells."""
    wrong = told.a.vms[told.web1].model_copy(update={"state": GuestState.SHUTOFF})
    mark = (await told.fleet.marks())["a"]
    await told.fleet.take_news([("a", News(mark=mark, whole=True, seen=(wrong,)))], (), "2026-01-01")
    assert [state for _, state, _ in await found(told, "web1")] == [GuestState.SHUTOFF]
    for _ in range(3):
        await told.controller.snapshot.check(snapshot.ALL_DIGESTS_S)

    async def right() -> bool:
        return [state for _, state, _ in await found(told, "web1")] == [GuestState.RUNNING]

    await until(right)


async def test_news_for_a_database_that_is_away_are_asked_for_when_it_is_back(
    told: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, tried = told.fleet.take_news, asyncio.Event()

    async def away(*_: object) -> None:
        tried.set()
        raise Unreachable("the database is away")

    monkeypatch.setattr(told.fleet, "take_news", away)
    told.b.add_vm("web2", 2)
    await tell(told, told.b)
    async with asyncio.timeout(LONG_S):
        await tried.wait()
    monkeypatch.setattr(told.fleet, "take_news", take)

    async def back() -> bool:
        await beat(told)
        return bool(await found(told, "web2"))

    await until(back)


async def test_a_host_has_so_many_bytes_of_news_waiting_and_is_asked_for_the_rest(
    told: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the database hangs."""
    monkeypatch.setattr(bounds, "MOST_NEWS_BYTES_OF_A_HOST", 3_000)
    take, hangs, goes_on = told.fleet.take_news, asyncio.Event(), asyncio.Event()
    taken: list[tuple[str, News]] = []

    async def hang(news: Sequence[tuple[str, News]], asked: Collection[str], at: str) -> Taken:
        hangs.set()
        await goes_on.wait()
        taken.extend(news)
        return await take(news, asked, at)

    monkeypatch.setattr(told.fleet, "take_news", hang)
    told.c.add_vm("web3", 3)
    await tell(told, told.c)
    async with asyncio.timeout(LONG_S):
        await hangs.wait()
    for number in range(20):
        told.b.add_vm(f"vm{number:0500}", 100 + number)
        await tell(told, told.b)
    told.c.add_vm("web4", 4)
    await tell(told, told.c)
    goes_on.set()
    await settled(told, "web4", "c")
    assert sum(host == "b" for host, _ in taken) < 8
    assert asked(told) == []
    await beat(told)
    await settled(told, f"vm{19:0500}", "b")
    assert asked(told) == [("b", "list_vms")], "once it is back"
    assert len([vm for vm in await told.fleet.vms() if vm.host == "b"]) == 20


async def test_a_controller_that_starts_anew_asks_nobody_whose_list_is_known(told: World) -> None:
    again = snapshot.Snapshot(told.fleet, told.controller.registry, told.bus, told.clock)
    await again.check(10)
    for agent in told.bus.agents.values():
        again.heard(agent.name, {"boot": agent.boot, "vms": agent.mark()})
    assert digest_of(text_of(told.a.vms.values())) == (await told.fleet.marks())["a"].digest
    await again.stop()
    assert asked(told) == []
