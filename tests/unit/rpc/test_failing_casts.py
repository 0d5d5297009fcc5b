"""Casts that cannot be sent, are refused, or fail: they are tried again or set aside, and hold nobody up."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

import pytest

from sterna.domain.errors import BadRequest, Conflict, Permanent, Temporary, Unknown
from sterna.ports.records import Envelope
from sterna.rpc.envelope import MAX_MESSAGE_BYTES, Request, decode_reply, encode
from sterna.rpc.subjects import cast_subject
from tests.unit.rpc.casting import cast, recorder, send

from .conftest import World


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
    await send(world, "c1")
    await world.clock.advance(300)
    assert seen == ["c1"]
    pauses = [b - a for a, b in itertools.pairwise(times)]
    assert max(pauses) <= 10.001
    assert pauses[-1] > pauses[0]


@pytest.mark.parametrize("error", [RuntimeError("bug"), asyncio.CancelledError()])
async def test_a_courier_goes_on_whatever_its_way_was_barred_by(world: World, error: BaseException) -> None:
    seen, barred = recorder(world.b), [error]
    real = world.a.outbox._send

    async def sometimes(envelope: Envelope) -> None:
        if barred:
            raise barred.pop()
        await real(envelope)

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
    await send(world, "c1")
    await send(world, "c2")
    await world.clock.advance(5)
    assert (seen, list(world.b.server.aside)) == (["c2"], ["a/c1"])


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


async def refused_by_b(world: World) -> list[str]:
    """Its first life does not know the cast, the second one does; what that gets."""
    recorder(world.b)
    await world.b.server.start()
    await world.a.outbox.start()
    world.a.outbox.put(cast("f").model_copy(update={"method": "future"}))
    await world.clock.run_until_idle()
    assert list(world.a.outbox.refused) == ["f"]
    await world.b.crash()
    seen = []

    async def handler(request: Request) -> None:
        seen.append(request.id)

    world.b.server.cast("future", handler)
    await world.b.server.start()
    return seen


async def test_a_receiver_that_was_restarted_before_its_first_sign_of_life_is_asked_again(world: World) -> None:
    """Which life has refused is not known."""
    seen = await refused_by_b(world)
    world.a.outbox.hurry("b", "life-2")
    await world.clock.run_until_idle()
    assert seen == ["f"] and world.a.journal.outbox() == [] and world.a.outbox.refused == {}


async def test_a_new_life_is_not_forgotten_while_the_journal_cannot_be_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.a.outbox.hurry("b", "life-1")
    seen = await refused_by_b(world)

    def locked(to: str | None = None) -> list[Envelope]:
        raise Temporary("another process has locked the journal")

    with monkeypatch.context() as journal:
        journal.setattr(world.a.journal, "outbox", locked)
        with pytest.raises(Temporary):
            world.a.outbox.hurry("b", "life-2")
    world.a.outbox.hurry("b", "life-2")
    await world.clock.run_until_idle()
    assert seen == ["f"] and world.a.outbox.refused == {}


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
    await send(world, "c1")
    await send(world, "c2")
    await world.clock.advance(3600)
    assert (len(times), seen) == (tries, ["c2"])
    assert [id for id, _ in aside] == ["c1"]
    assert list(world.b.server.aside) == ["a/c1"]
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
    await send(world, "c1")
    await world.clock.advance(3600)
    assert (seen, world.b.server.aside) == (["c1"], {})


async def test_what_can_never_be_sent_is_refused_before_the_journal(world: World) -> None:
    for bad in (cast("c1", x="y" * MAX_MESSAGE_BYTES), cast("c1", x=object()), cast("c1", to=""), cast("")):
        with pytest.raises(BadRequest):
            world.a.outbox.put(bad)
    assert world.a.journal.outbox() == []


async def test_a_cast_in_anothers_name_is_refused_before_the_journal(world: World) -> None:
    recorder(world.b)
    await world.b.server.start()
    request = Request(kind="cast", id="x", method="note", sender="c")
    async with world.a.bus.request(cast_subject("b", "a"), encode(request)) as replies:
        reply = decode_reply(await anext(replies))
    assert isinstance(reply.raised(), BadRequest) and "'c'" in reply.raised().message
    assert world.b.journal.inbox() == []


async def test_a_call_on_the_cast_subject_is_refused(world: World) -> None:
    await world.b.server.start()
    call = Request(kind="call", id="x", method="note", sender="a")
    async with world.a.bus.request(cast_subject("b", "a"), encode(call)) as replies:
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
