from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from sterna.domain.errors import BadRequest, Conflict, Permanent, Temporary, Unknown
from sterna.ports.records import Envelope
from sterna.rpc.envelope import MAX_MESSAGE_BYTES, Reply, Request, decode_reply, encode
from sterna.rpc.subjects import cast_subject
from sterna.sim.ports.bus import Packet

from .conftest import Host, World


def cast(id: str, to: str = "b", migration_id: str = "m1", **params: object) -> Envelope:
    return Envelope(id=id, to=to, method="note", migration_id=migration_id, epoch=3, params=params)


def recorder(host: Host, fail: Callable[[Request], None] = lambda request: None) -> list[str]:
    """A handler that writes down ids, after `fail` had its say."""
    seen: list[str] = []

    async def handler(request: Request) -> None:
        fail(request)
        seen.append(request.id)

    host.server.cast("note", handler)
    return seen


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
    await _send(world, "c1")
    await world.clock.run_until_idle()
    assert seen == ["c1"]
    await world.b.crash()
    seen = recorder(world.b)
    await world.b.server.start()
    await _send(world, "c1")
    await world.clock.advance(60)
    assert seen == []


async def test_a_crash_in_the_handler_means_again(world: World) -> None:
    started = []

    async def for_ever(request: Request) -> None:
        started.append(request.id)
        await asyncio.Event().wait()

    world.b.server.cast("note", for_ever)
    await world.b.server.start()
    await _send(world, "c1")
    await world.clock.run_until_idle()
    await world.b.crash()
    seen = recorder(world.b)
    await world.b.server.start()
    await world.clock.run_until_idle()
    assert (started, seen) == (["c1"], ["c1"])


async def test_the_ack_comes_after_the_journal_and_before_the_handler(world: World) -> None:
    order, go_on = [], asyncio.Event()
    put = world.b.journal.inbox_put

    def journaled(envelope: Envelope) -> bool:
        order.append("journal")
        return put(envelope)

    world.b.journal.inbox_put = journaled  # type: ignore[method-assign]

    async def handler(request: Request) -> None:
        await go_on.wait()
        order.append("handled")

    world.b.server.cast("note", handler)
    await world.b.server.start()
    reply = await _send(world, "c1")
    order.append(reply.kind)
    go_on.set()
    await world.clock.run_until_idle()
    assert order == ["journal", "ack", "handled"]


async def test_no_ack_without_the_journal(world: World) -> None:
    seen = recorder(world.b)
    put, tries = world.b.journal.inbox_put, []

    def sometimes(envelope: Envelope) -> bool:
        tries.append(1)
        if len(tries) < 3:
            raise Temporary("disk full")
        return put(envelope)

    world.b.journal.inbox_put = sometimes  # type: ignore[method-assign]
    await world.b.server.start()
    await world.a.outbox.start()
    world.a.outbox.put(cast("c1"))
    await world.clock.run(world.a.outbox.drained("b"))
    await world.clock.run_until_idle()
    assert (len(tries), seen) == (3, ["c1"])


@pytest.mark.parametrize("error", [Temporary("busy"), RuntimeError("bug"), Unknown("?"), asyncio.CancelledError()])
async def test_a_failing_handler_is_tried_until_it_succeeds(world: World, error: BaseException) -> None:
    times = []

    def fail(request: Request) -> None:
        times.append(world.clock.monotonic_ms() / 1000)
        if len(times) < 12:
            raise error

    seen = recorder(world.b, fail)
    await world.b.server.start()
    await _send(world, "c1")
    await world.clock.advance(300)
    assert seen == ["c1"]
    pauses = [b - a for a, b in itertools.pairwise(times)]
    assert max(pauses) <= 10.001
    assert pauses[-1] > pauses[0]


@pytest.mark.parametrize("error", [RuntimeError("bug"), asyncio.CancelledError()])
async def test_a_courier_goes_on_whatever_its_way_was_barred_by(world: World, error: BaseException) -> None:
    seen, barred = recorder(world.b), [error]
    send = world.a.outbox._send

    async def sometimes(envelope: Envelope) -> None:
        if barred:
            raise barred.pop()
        await send(envelope)

    world.a.outbox._send = sometimes  # type: ignore[method-assign]
    await world.b.server.start()
    await world.a.outbox.start()
    world.a.outbox.put(cast("c1"))
    await world.clock.advance(5)
    assert seen == ["c1"]


async def test_a_cast_that_is_set_aside_holds_nobody_up_though_nobody_can_be_told(world: World) -> None:
    def fail(request: Request) -> None:
        if request.id == "c1":
            raise BadRequest("never")

    def cannot_tell(envelope: Envelope, why: str) -> None:
        raise RuntimeError("bug")

    seen = recorder(world.b, fail)
    world.b.server.on_aside = cannot_tell
    await world.b.server.start()
    await _send(world, "c1")
    await _send(world, "c2")
    await world.clock.advance(5)
    assert (seen, list(world.b.server.aside)) == (["c2"], ["c1"])


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
        await _send(world, f"m1-{i}", migration_id="m1")
        await _send(world, f"m2-{i}", migration_id="m2")
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
        await _send(world, f"c{i}")
    await world.b.crash()
    seen = recorder(world.b)
    await world.b.server.start()
    await _send(world, "c3")
    await world.clock.run_until_idle()
    assert seen == ["c0", "c1", "c2", "c3"]


async def test_a_cast_nobody_knows_is_not_acknowledged_and_holds_nobody_up(world: World) -> None:
    seen, told = recorder(world.b), []
    await world.b.server.start()
    world.a.outbox.on_refused = lambda envelope, why: told.append((envelope.id, why))
    await world.a.outbox.start()
    world.a.outbox.put(cast("f").model_copy(update={"method": "future"}))
    world.a.outbox.put(cast("c1"))
    await world.clock.advance(600)
    assert seen == ["c1"] and world.b.journal.inbox() == []
    assert [e.id for e in world.a.journal.outbox()] == ["f"]  # kept, and visible
    assert [id for id, why in told if "knows no cast 'future'" in why] == ["f"] == list(world.a.outbox.refused)


async def test_it_is_sent_again_to_a_receiver_that_was_restarted(world: World) -> None:
    recorder(world.b)
    await world.b.server.start()
    await world.a.outbox.start()
    world.a.outbox.put(cast("f").model_copy(update={"method": "future"}))
    world.a.outbox.hurry("b", "life-1")
    await world.clock.advance(60)
    sent = len(world.broker.sent) if hasattr(world.broker, "sent") else None
    assert sent is None or sent < 10
    await world.b.crash()
    seen = []

    async def handler(request: Request) -> None:
        seen.append(request.id)

    world.b.server.cast("future", handler)
    await world.b.server.start()
    world.a.outbox.hurry("b", "life-1")
    await world.clock.advance(60)
    assert seen == []
    world.a.outbox.hurry("b", "life-2")
    await world.clock.run_until_idle()
    assert seen == ["f"] and world.a.journal.outbox() == [] and world.a.outbox.refused == {}


async def test_what_a_check_refuses_is_not_acknowledged(world: World) -> None:
    seen = []

    async def handler(request: Request) -> None:
        seen.append(request.id)

    def check(request: Request) -> None:
        if request.params.get("x") != 1:
            raise BadRequest("x is not 1")

    world.b.server.cast("note", handler, check)
    await world.b.server.start()
    await world.a.outbox.start()
    world.a.outbox.put(cast("bad", x=2))
    world.a.outbox.put(cast("good", x=1))
    await world.clock.advance(60)
    assert seen == ["good"] and world.b.journal.inbox() == []
    assert world.a.outbox.refused == {"bad": "x is not 1"}


@pytest.mark.parametrize(
    "error, tries", [(BadRequest("no"), 1), (Conflict("stale"), 20), (KeyError("x"), 20), (ValueError("y"), 20)]
)
async def test_what_can_never_be_handled_is_set_aside_and_said(
    world: World, error: BaseException, tries: int
) -> None:
    times, aside = [], []

    def fail(request: Request) -> None:
        if request.id == "c1":
            times.append(1)
            raise error

    seen = recorder(world.b, fail)
    world.b.server.on_aside = lambda envelope, why: aside.append((envelope.id, why))
    await world.b.server.start()
    await _send(world, "c1")
    await _send(world, "c2")
    await world.clock.advance(3600)
    assert (len(times), seen) == (tries, ["c2"])
    assert [id for id, _ in aside] == ["c1"] == list(world.b.server.aside)
    assert [e.id for e in world.b.journal.inbox()] == ["c1"]  # kept: visible, and tried in the next life


@pytest.mark.parametrize("error", [Temporary("busy"), Unknown("?"), Permanent("libvirt: access denied")])
async def test_what_waits_for_something_is_never_set_aside(
    world: World, error: Temporary | Unknown | Permanent
) -> None:
    times = []

    def fail(request: Request) -> None:
        times.append(1)
        if len(times) < 200:
            raise error

    seen = recorder(world.b, fail)
    await world.b.server.start()
    await _send(world, "c1")
    await world.clock.advance(3600)
    assert (seen, world.b.server.aside) == (["c1"], {})


async def test_what_can_never_be_sent_is_refused_before_the_journal(world: World) -> None:
    for bad in (cast("c1", x="y" * MAX_MESSAGE_BYTES), cast("c1", x=object()), cast("c1", to=""), cast("")):
        with pytest.raises(BadRequest):
            world.a.outbox.put(bad)
    assert world.a.journal.outbox() == []


async def test_a_call_on_the_cast_subject_is_refused(world: World) -> None:
    await world.b.server.start()
    call = Request(kind="call", id="x", method="note", sender="a")
    async with world.a.bus.request(cast_subject("b"), encode(call)) as replies:
        reply = decode_reply(await anext(replies))
    assert isinstance(reply.raised(), BadRequest)
    assert world.b.journal.inbox() == []


async def test_a_journal_that_fails_once_does_not_end_the_courier(world: World) -> None:
    seen = recorder(world.b)
    await world.b.server.start()
    await world.a.outbox.start()
    waiting = world.a.journal.outbox
    failures: list[int] = []

    def sometimes(to: str | None = None) -> Sequence[Envelope]:
        if not failures:
            failures.append(1)
            raise Temporary("locked")
        return waiting(to)

    world.a.journal.outbox = sometimes  # type: ignore[method-assign]
    world.a.outbox.put(cast("c1"))
    await world.clock.advance(10)
    assert (failures, seen) == ([1], ["c1"])


async def _send(world: World, id: str, migration_id: str = "m1") -> Reply:
    request = Request(kind="cast", id=id, method="note", sender="a", migration_id=migration_id)
    async with world.a.bus.request(cast_subject("b"), encode(request)) as replies:
        return decode_reply(await anext(replies))


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
