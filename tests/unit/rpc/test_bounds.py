"""What one sender may have under way: whoever floods waits, and everybody else is answered."""

from __future__ import annotations

import asyncio

import pytest

from sterna.domain.errors import BadRequest, Temporary
from sterna.domain.model import Data
from sterna.domain.trust import bounds
from sterna.domain.trust.bounds import (
    CASTS,
    FEW,
    MOST_OF_A_HOST,
    MOST_UNPROVEN,
    SHARE_OF_AN_ORIGIN,
    Load,
    Pace,
    no_more_waiting,
    no_place,
    no_place_for_news,
    no_place_unproven,
)
from sterna.domain.trust.identities import CONTROLLER_TOKEN
from sterna.rpc.envelope import Request, decode_reply, encode
from sterna.rpc.sender_limits import ActiveRequests, SenderRates, SenderTurns
from sterna.rpc.subjects import call_subject
from sterna.sim.world.clock import SimClock
from tests.unit.rpc.casting import cast, recorder, send

from .conftest import World


async def held(world: World) -> asyncio.Event:
    """`wait` of host b does not end before this is set."""
    gate = asyncio.Event()

    async def wait(request: Request) -> Data:
        await gate.wait()
        return {}

    world.b.server.method("wait", wait)
    await world.b.server.start()
    return gate


async def test_a_host_with_as_many_calls_as_it_may_have_keeps_nobody_else_out(world: World) -> None:
    gate = await held(world)
    calls = [asyncio.create_task(world.a.client.call("b", "wait", {})) for _ in range(MOST_OF_A_HOST)]
    await world.clock.advance(0.1)
    with pytest.raises(Temporary, match=f"{MOST_OF_A_HOST} requests of a already"):
        await world.a.client.call("b", "wait", {})
    other = asyncio.create_task(world.c.client.call("b", "wait", {}))
    await world.clock.advance(0.1)
    gate.set()
    await world.clock.advance(1)
    assert await other == {} and await asyncio.gather(*calls) == [{}] * MOST_OF_A_HOST
    assert await world.clock.run(world.a.client.call("b", "wait", {})) == {}


async def test_the_same_call_again_and_again_takes_a_place_each_time(world: World) -> None:
    """Each repeat gets heartbeats of its own."""
    await held(world)
    request = Request(kind="call", id="same", method="wait", sender="a")
    for _ in range(MOST_OF_A_HOST):
        await world.a.bus.publish(call_subject("b", "a"), encode(request))
    await world.clock.run_until_idle()
    async with world.a.bus.request(call_subject("b", "a"), encode(request)) as replies:
        assert isinstance(decode_reply(await anext(replies)).raised(), Temporary)


async def test_while_many_flood_everybody_has_a_few_places(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MOST_CALLS", 20)
    gate = await held(world)
    calls = [asyncio.create_task(world.a.client.call("b", "wait", {})) for _ in range(20)]
    await world.clock.advance(0.1)
    calls += [asyncio.create_task(world.c.client.call("b", "wait", {})) for _ in range(FEW)]
    await world.clock.advance(0.1)
    with pytest.raises(Temporary, match="requests already"):
        await world.c.client.call("b", "wait", {})
    gate.set()
    await world.clock.advance(1)
    assert await asyncio.gather(*calls) == [{}] * (20 + FEW)


async def test_casts_beyond_the_pace_wait_at_their_sender_and_all_arrive(world: World) -> None:
    seen = recorder(world.b)
    await world.b.server.start()
    for host in (world.a, world.c):
        await host.outbox.start()
    for i in range(int(CASTS.at_once) + 50):
        world.a.outbox.put(cast(f"a{i}", migration_id=f"m{i}"))
    await world.clock.run_until_idle()
    assert len(seen) == CASTS.at_once
    world.c.outbox.put(cast("c", migration_id="other"))
    await world.clock.run_until_idle()
    assert seen[-1] == "c"
    await world.clock.advance(60)
    assert set(seen) == {"c", *(f"a{i}" for i in range(int(CASTS.at_once) + 50))}


async def test_an_inbox_has_so_many_of_one_sender_and_room_for_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "MOST_WAITING", 3)
    gate = asyncio.Event()

    async def note(request: Request) -> None:
        await gate.wait()

    world.b.server.cast("note", note)
    await world.b.server.start()
    for host in (world.a, world.c):
        await host.outbox.start()
    for i in range(5):
        await send(world, f"a{i}", migration_id=f"m{i}")
    assert [e.id for e in world.b.journal.inbox()] == ["a0", "a1", "a2"]
    world.c.outbox.put(cast("c"))
    await world.clock.run(world.c.outbox.drained("b"))
    gate.set()
    await world.clock.advance(1)
    assert (await send(world, "a3", migration_id="m3")).kind == "ack"


async def test_an_outbox_has_so_many_for_one_receiver(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MOST_WAITING", 3)
    seen = recorder(world.b)
    await world.a.outbox.start()
    for i in range(3):
        world.a.outbox.put(cast(f"c{i}"))
        world.a.outbox.put(cast(f"c{i}"))
    with pytest.raises(Temporary, match="3 messages of b wait"):
        world.a.outbox.put(cast("c3"))
    world.a.outbox.put(cast("c2"))  # by a step that does not know whether it was done
    world.a.outbox.put(cast("x", to="c"))
    await world.b.server.start()
    world.a.outbox.hurry("b")
    await world.clock.run(world.a.outbox.drained("b"))
    world.a.outbox.put(cast("c3"))
    await world.clock.run(world.a.outbox.drained("b"))
    await world.clock.run_until_idle()
    assert seen == ["c0", "c1", "c2", "c3"]


async def test_what_an_earlier_life_left_counts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MOST_WAITING", 2)
    for i in range(2):
        world.a.outbox.put(cast(f"c{i}"))
    await world.a.crash()
    await world.a.outbox.start()
    with pytest.raises(Temporary):
        world.a.outbox.put(cast("c2"))


async def test_hints_that_come_too_often_are_dropped_and_the_others_heard(world: World) -> None:
    got: list[str] = []

    async def handler(topic: str, data: Data) -> None:
        got.append(topic)

    await world.b.client.listen("host.*", handler)
    for _ in range(1_000):
        await world.a.client.announce("host.a", {})
    await world.c.client.announce("host.c", {})
    await world.clock.run_until_idle()
    assert got.count("host.a") == 10 and got[-1] == "host.c"
    await world.clock.advance(1)
    await world.a.client.announce("host.a", {})
    await world.clock.run_until_idle()
    assert got.count("host.a") == 11
    assert {one.sender for one in world.b.client.dead_letters.kept} == {"a"}


@pytest.mark.parametrize("topic, per_s", [("host", 1), ("journal", 4), ("progress", 50), ("leaving", 20)])
async def test_what_was_sent_to_a_suspended_process_accuses_nobody(world: World, topic: str, per_s: int) -> None:
    """It comes all at once when the process is resumed: five minutes of it, from senders that kept to the pace."""
    got: list[str] = []

    async def handler(topic: str, data: Data) -> None:
        got.append(topic)

    await world.b.client.listen(f"{topic}.*", handler)
    for _ in range(300 * per_s):
        await world.a.client.announce(f"{topic}.a", {})
    await world.clock.run_until_idle()
    assert 0 < len(got) < 300 * per_s and not world.b.client.dead_letters.kept


async def test_a_steady_flood_of_hints_is_reported(world: World) -> None:
    async def handler(topic: str, data: Data) -> None:
        pass

    await world.b.client.listen("host.*", handler)
    for _ in range(30):
        for _ in range(100):
            await world.a.client.announce("host.a", {})
        await world.clock.advance(1)
    kept = world.b.client.dead_letters.kept
    assert kept and "3 a second" in kept[-1].why


@pytest.mark.parametrize("poison", [BadRequest, Temporary, RuntimeError])
async def test_a_poisoned_sender_holds_nobody_up(world: World, poison: type[Exception]) -> None:
    def fail(request: Request) -> None:
        if request.sender == "a":
            raise poison("not this one")

    seen = recorder(world.b, fail)
    await world.b.server.start()
    for host in (world.a, world.c):
        await host.outbox.start()
    for i in range(100):
        world.a.outbox.put(cast(f"a{i}", migration_id=f"m{i}"))
    await world.clock.run_until_idle()
    world.c.outbox.put(cast("c", migration_id="other"))
    await world.clock.run_until_idle()
    assert seen == ["c"]


def test_all_controllers_are_one_sender_with_more_places() -> None:
    many = Load(MOST_OF_A_HOST, 0)
    assert no_place("a", many, many)
    assert not no_place(CONTROLLER_TOKEN, many, many)
    assert no_place(CONTROLLER_TOKEN, Load(bounds.MOST_CALLS, 0), Load(bounds.MOST_CALLS, 0))


def test_bytes_count_as_well() -> None:
    assert no_place("a", Load(1, bounds.MOST_BYTES), Load(1, bounds.MOST_BYTES))
    assert no_more_waiting("a", Load(1, bounds.MOST_WAITING_BYTES))
    places = ActiveRequests()
    with (
        places.taken("a", bounds.MOST_BYTES) as first,
        places.taken("a", 1) as second,
        places.taken("b", 1) as third,
    ):
        assert (first, bool(second), third) == ("", True, "")
    with places.taken("a", 1) as again:
        assert again == ""


async def test_a_pace_comes_back_with_time_and_is_kept_for_so_many_senders(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SimClock()
    paces, pace = SenderRates(clock), Pace(2, 0.5)
    assert [paces.admits("a", pace) for _ in range(3)] == [True, True, False]
    await clock.advance(2)
    assert [paces.admits("a", pace) for _ in range(2)] == [True, False]
    await clock.advance(1_000)
    assert [paces.admits("a", pace) for _ in range(3)] == [True, True, False]
    monkeypatch.setattr("sterna.rpc.sender_limits._MOST_SENDERS", 10)
    for n in range(100):
        paces.admits(f"invented {n}", pace)
    assert len(paces._left) == 10


@pytest.mark.parametrize(
    "own, everybody, dropped",
    [
        (Load(), Load(bounds.MOST_NEWS - 1, bounds.MOST_NEWS_BYTES - 1), False),
        (Load(bounds.MOST_NEWS - 1, bounds.MOST_NEWS_BYTES_OF_A_HOST - 1), Load(bounds.MOST_NEWS - 1), False),
        (Load(1, bounds.MOST_NEWS_BYTES_OF_A_HOST), Load(1), True),
        (Load(), Load(bounds.MOST_NEWS), True),
        (Load(), Load(1, bounds.MOST_NEWS_BYTES), True),
    ],
)
def test_news_of_vms_wait_for_the_database_within_bounds(own: Load, everybody: Load, dropped: bool) -> None:
    assert no_place_for_news(own, everybody) is dropped


@pytest.mark.parametrize(
    ("own", "others", "refused"),
    [
        (0, 0, False),
        (MOST_UNPROVEN // 2 - 1, 0, False),
        (MOST_UNPROVEN // 2, 0, True),  # the other half is for others
        (SHARE_OF_AN_ORIGIN - 1, MOST_UNPROVEN // 2, False),
        (SHARE_OF_AN_ORIGIN, MOST_UNPROVEN // 2, True),
        (0, MOST_UNPROVEN - 1, False),
        (0, MOST_UNPROVEN, True),
    ],
)
def test_how_much_an_origin_may_ask_before_it_is_known(own: int, others: int, refused: bool) -> None:
    assert no_place_unproven(own, own + others) is refused


async def test_so_many_checks_of_one_sender_at_once_and_others_do_not_wait() -> None:
    turns, go_on, begun = SenderTurns(2, limit_s=10), asyncio.Event(), []

    async def work(sender: str) -> None:
        async with turns.of(sender):
            begun.append(sender)
            await go_on.wait()

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for sender in ("host3", "host3", "host3", "host3", "host1"):
            group.create_task(work(sender))
        while len(begun) < 3:  # noqa: ASYNC110 - the tasks begin one after the other
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert begun == ["host3", "host3", "host1"]
        go_on.set()
    assert begun.count("host3") == 4 and not turns._of


async def test_a_check_whose_turn_does_not_come_is_told_so() -> None:
    turns = SenderTurns(1, limit_s=0.05)
    async with turns.of("host3"):
        with pytest.raises(Temporary, match="works on 1 checks of host3 already"):
            async with turns.of("host3"):
                pass
        async with turns.of("host1"):
            pass
    assert not turns._of
