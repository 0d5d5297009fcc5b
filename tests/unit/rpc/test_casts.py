"""Casts arrive once and in order, whatever dies or is away in between."""

from __future__ import annotations

import asyncio
from collections import Counter

from sterna.domain.errors import Temporary
from sterna.ports.records import Envelope
from sterna.rpc.envelope import Request
from sterna.sim.ports.bus import Packet
from tests.unit.rpc.casting import cast, recorder, send

from .conftest import World


async def test_a_cast_arrives_once_with_everything(world: World) -> None:
    seen = []

    async def handler(request: Request) -> None:
        seen.append(request)

    world.b.server.cast("note", handler)
    await world.b.server.start()
    await world.a.outbox.start()
    world.a.outbox.put(cast("c1", x=1))
    world.a.outbox.put(cast("c1", x=1))
    await world.clock.run(world.a.outbox.drained("b"))
    await world.clock.run_until_idle()
    (request,) = seen
    assert (request.id, request.kind, request.method, request.sender) == ("c1", "cast", "note", "a")
    assert (request.migration_id, request.epoch, request.params) == ("m1", 3, {"x": 1})
    assert world.b.journal.inbox() == []


async def test_a_cast_waits_for_a_receiver_that_comes_back(world: World) -> None:
    seen = recorder(world.b)
    await world.a.outbox.start()
    world.a.outbox.put(cast("c1"))
    await world.clock.advance(3600)
    assert [e.id for e in world.a.journal.outbox()] == ["c1"]
    await world.b.server.start()
    await world.clock.advance(5)  # the longest pause
    assert seen == ["c1"]
    await asyncio.wait_for(world.a.outbox.drained("b"), 1)


async def test_hurry_ends_the_pause(world: World) -> None:
    seen = recorder(world.b)
    await world.a.outbox.start()
    world.a.outbox.put(cast("c1"))
    await world.clock.advance(100)
    await world.b.server.start()
    world.a.outbox.hurry("b")
    world.a.outbox.hurry("never heard of")
    await world.clock.run_until_idle()
    assert seen == ["c1"]


async def test_a_cast_survives_the_senders_death(world: World) -> None:
    seen = recorder(world.b)
    world.a.outbox.put(cast("c1"))  # not even started
    await world.a.crash()
    await world.b.server.start()
    await world.a.outbox.start()
    await world.clock.run(world.a.outbox.drained("b"))
    await world.clock.run_until_idle()
    assert seen == ["c1"]


async def test_an_outage_of_the_bus_delays_casts(world: World) -> None:
    seen = recorder(world.b)
    await world.b.server.start()
    await world.a.outbox.start()
    world.broker.stop()
    for i in range(3):
        world.a.outbox.put(cast(f"c{i}"))
    await world.clock.advance(60)
    world.broker.start()
    await world.clock.run(world.a.outbox.drained("b"))
    await world.clock.run_until_idle()
    assert seen == ["c0", "c1", "c2"]


async def test_a_lost_ack_means_again_and_the_receiver_knows(world: World) -> None:
    seen = recorder(world.b)
    await world.b.server.start()
    await world.a.outbox.start()
    lost: list[int] = []

    def loses(packet: Packet) -> bool:
        if not packet.is_reply or len(lost) == 3:
            return False
        lost.append(1)
        return True

    world.broker.loses = loses
    world.a.outbox.put(cast("c1"))
    await world.clock.run(world.a.outbox.drained("b"))
    await world.clock.run_until_idle()
    assert (len(lost), seen) == (3, ["c1"])


async def test_a_dead_host_delays_only_its_own_casts(world: World) -> None:
    seen = recorder(world.b)
    await world.b.server.start()
    await world.a.outbox.start()
    for i in range(5):
        world.a.outbox.put(cast(f"dead{i}", to="c"))
        world.a.outbox.put(cast(f"c{i}"))
    await world.clock.run_until_idle()
    assert world.clock.monotonic_ms() == 0
    assert seen == [f"c{i}" for i in range(5)]
    dead = recorder(world.c)
    await world.c.server.start()
    await world.clock.run(world.a.outbox.drained("c"))
    await world.clock.run_until_idle()
    assert dead == [f"dead{i}" for i in range(5)]


async def test_a_crash_between_journal_and_handler(world: World) -> None:
    """The ack is out, the handler has not run: the next life handles it, once, however often it is sent again."""

    async def never(request: Request) -> None:
        await asyncio.Event().wait()

    world.b.server.cast("note", never)
    await world.b.server.start()
    await world.a.outbox.start()
    world.a.outbox.put(cast("c1"))
    await world.clock.run(world.a.outbox.drained("b"))
    await world.b.crash()
    assert [e.id for e in world.b.journal.inbox()] == ["c1"]
    seen = recorder(world.b)
    await world.b.server.start()
    await send(world, "c1")
    await world.clock.run_until_idle()
    assert seen == ["c1"]
    await world.b.crash()
    seen = recorder(world.b)
    await world.b.server.start()
    await send(world, "c1")
    await world.clock.advance(60)
    assert seen == []


async def test_a_crash_in_the_handler_means_again(world: World) -> None:
    started = []

    async def for_ever(request: Request) -> None:
        started.append(request.id)
        await asyncio.Event().wait()

    world.b.server.cast("note", for_ever)
    await world.b.server.start()
    await send(world, "c1")
    await world.clock.run_until_idle()
    await world.b.crash()
    seen = recorder(world.b)
    await world.b.server.start()
    await world.clock.run_until_idle()
    assert (started, seen) == (["c1"], ["c1"])


async def test_the_ack_comes_after_the_journal_and_before_the_handler(world: World) -> None:
    order, raise_if_aborted = [], asyncio.Event()
    put = world.b.journal.inbox_put

    def journaled(envelope: Envelope) -> bool:
        order.append("journal")
        return put(envelope)

    world.b.journal.inbox_put = journaled  # type: ignore[method-assign]

    async def handler(request: Request) -> None:
        await raise_if_aborted.wait()
        order.append("handled")

    world.b.server.cast("note", handler)
    await world.b.server.start()
    reply = await send(world, "c1")
    order.append(reply.kind)
    raise_if_aborted.set()
    await world.clock.run_until_idle()
    assert order == ["journal", "ack", "handled"]


async def test_order_within_a_migration_and_none_between(world: World) -> None:
    """m1's first cast fails for a while: m1's others wait behind it, m2's do not."""
    failures: Counter[str] = Counter()

    def fail(request: Request) -> None:
        if request.id == "m1-0" and failures["m1-0"] < 3:
            failures["m1-0"] += 1
            raise Temporary("not yet")

    seen = recorder(world.b, fail)
    await world.b.server.start()
    for i in range(3):
        await send(world, f"m1-{i}", migration_id="m1")
        await send(world, f"m2-{i}", migration_id="m2")
    await world.clock.run_until_idle()
    assert seen == ["m2-0", "m2-1", "m2-2"]
    await world.clock.advance(60)
    assert seen[3:] == ["m1-0", "m1-1", "m1-2"]


async def test_casts_left_over_come_before_new_ones(world: World) -> None:
    async def never(request: Request) -> None:
        await asyncio.Event().wait()

    world.b.server.cast("note", never)
    await world.b.server.start()
    for i in range(3):
        await send(world, f"c{i}")
    await world.b.crash()
    seen = recorder(world.b)
    await world.b.server.start()
    await send(world, "c3")
    await world.clock.run_until_idle()
    assert seen == ["c0", "c1", "c2", "c3"]


async def test_drained_waits_anew_each_time(world: World) -> None:
    recorder(world.b)
    await world.b.server.start()
    await world.a.outbox.start()
    world.a.outbox.put(cast("c1"))
    await world.a.outbox.drained("b")
    await world.a.outbox.drained("b")
    await world.a.outbox.stop()
    world.a.outbox.put(cast("c2"))
    waiting = asyncio.create_task(world.a.outbox.drained("b"))
    await world.clock.run_until_idle()
    assert not waiting.done()
    await world.a.outbox.start()
    await world.clock.run(waiting)
