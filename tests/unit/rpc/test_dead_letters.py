"""Messages that can never be handled: they are kept, so many of each sender, until an operator has seen them."""

from __future__ import annotations

import json
import random

import pytest
from structlog.testing import capture_logs

from sterna.domain.errors import BadRequest
from sterna.domain.model import Data
from sterna.domain.trust.dead_letters import MOST, MOST_OF_ONE
from sterna.rpc.client import RpcClient
from sterna.rpc.dead_letters import DeadLetters
from sterna.rpc.envelope import Event, Request, encode
from sterna.rpc.subjects import call_subject, cast_subject, event_subject
from sterna.sim.world.clock import SimClock
from tests.unit.rpc.casting import recorder

from .conftest import World

GOOD: dict[str, object] = {"v": 1, "kind": "call", "id": "1", "method": "note", "sender": "a"}


def letters(world: World) -> list[tuple[str, str]]:
    return [(one.sender, one.what) for one in world.b.server.dead_letters.kept]


async def test_who_sent_it_when_and_what_was_wrong(world: World) -> None:
    await world.b.server.start()
    await world.clock.advance(60)
    payload = b"\xff\x1b[2J" + b"x" * 1_000
    await world.a.bus.publish(call_subject("b", "a"), payload)
    await world.clock.run_until_idle()
    (one,) = world.b.server.dead_letters.kept
    assert (one.sender, one.what, one.size) == ("a", "call", len(payload))
    assert one.at.startswith("2026-01-01T00:01:00") and "not JSON" in one.why
    assert one.begins.startswith(r"'\xff\x1b[2Jxxx") and len(one.begins) < 200
    assert "\x1b" not in one.words and "at 2026-01-01T00:01:00 UTC" in one.words


def lie(**change: object) -> bytes:
    return json.dumps(GOOD | change).encode()


@pytest.mark.parametrize(
    "subject, payload, what",
    [
        (call_subject("b", "a"), b"{", "call"),
        (call_subject("b", "a"), lie(v=9), "call"),
        (call_subject("b", "a"), lie(sender="c"), "call"),
        (call_subject("b", "a"), lie(kind="cast"), "call"),
        (call_subject("b", "a"), lie(method="nobody-knows"), "call nobody-knows"),
        (call_subject("b", "a"), lie(method="picky"), "call picky"),
        (call_subject("b", "a"), lie(method="guarded"), "call guarded"),
        (cast_subject("b", "a"), b"[]", "cast"),
        (cast_subject("b", "a"), lie(kind="cast", method="nobody-knows"), "cast"),
        (cast_subject("b", "a"), lie(kind="cast", method="checked"), "cast"),
    ],
)
async def test_every_door_keeps_what_it_cannot_take(world: World, subject: str, payload: bytes, what: str) -> None:
    async def picky(request: Request) -> Data:
        raise BadRequest("not so")

    async def nothing(request: Request) -> None:
        raise AssertionError("it was not to be taken")

    def refuse(request: Request) -> None:
        raise BadRequest("not so")

    def theirs(request: Request) -> None:
        if request.method == "guarded":
            raise BadRequest("only a controller may")

    world.b.server.method("picky", picky)
    world.b.server.method("guarded", picky)
    world.b.server.cast("checked", nothing, refuse)
    world.b.server.check_caller = theirs
    await world.b.server.start()
    await world.a.bus.publish(subject, payload)
    await world.clock.run_until_idle()
    assert letters(world) == [("a", what)]
    assert world.b.journal.inbox() == []


async def test_hints_and_answers_are_doors_too(world: World) -> None:
    async def broken(topic: str, data: Data) -> None:
        raise BadRequest("no such thing")

    await world.b.client.listen("host.*", broken)
    await world.a.bus.publish(event_subject("host.a"), b"x")
    await world.a.bus.publish(event_subject("host.a"), encode(Event(sender="c", data={})))
    await world.a.bus.publish(event_subject("host.a"), encode(Event(sender="a", data={})))

    async def nonsense(incoming: object) -> None:
        await incoming.reply(b"nonsense")  # type: ignore[attr-defined]

    await world.a.bus.subscribe("sterna.agent.a.call.*", nonsense)
    with pytest.raises(BadRequest):
        await world.b.client.call("a", "ping", {})
    kept = world.b.client.dead_letters.kept
    assert [(one.sender, one.what) for one in kept] == [("a", "host.a")] * 3 + [("a", "answer to ping")]


async def test_what_another_host_said_of_a_question_is_no_fault_of_who_asked_first(world: World) -> None:
    """a asks b, b asks c, and c refuses: a's message was good."""

    async def ask_on(request: Request) -> Data:
        return await world.b.client.call("c", "nobody-knows", {})

    world.b.server.method("ask-on", ask_on)
    await world.b.server.start()
    await world.c.server.start()
    with pytest.raises(BadRequest):
        await world.clock.run(world.a.client.call("b", "ask-on", {}))
    assert letters(world) == []
    assert [(one.sender, one.what) for one in world.c.server.dead_letters.kept] == [("b", "call nobody-knows")]


async def test_good_messages_and_other_refusals_leave_none(world: World) -> None:
    seen = recorder(world.b)
    await world.b.server.start()
    await world.a.outbox.start()
    world.a.outbox.put(Request(kind="cast", id="c1", method="note", sender="a").to_envelope("b"))
    await world.clock.run(world.a.outbox.drained("b"))
    await world.clock.run_until_idle()
    assert (seen, letters(world)) == (["c1"], [])


def test_one_sender_keeps_its_last_few_and_pushes_out_nobody() -> None:
    kept = DeadLetters(SimClock())
    kept.add("c", "call", "first", b"1")
    for n in range(10_000):
        kept.add("a", "call", f"no {n}", b"x" * 1_000)
    own = [one for one in kept.kept if one.sender == "a"]
    assert [one.why for one in own] == [f"no {n}" for n in range(10_000 - MOST_OF_ONE, 10_000)]
    assert own[0].before == 10_000 - MOST_OF_ONE and "more before it" in own[0].words
    assert [one.why for one in kept.kept if one.sender == "c"] == ["first"]


def test_all_senders_together_keep_so_many_and_all_is_small() -> None:
    kept, rng = DeadLetters(SimClock()), random.Random(7)
    for n in range(3 * MOST):
        kept.add(f"h{n}" * 500, "x" * 5_000, "y" * 5_000, rng.randbytes(2_000))
        assert len(kept.kept) <= MOST
    assert len(json.dumps([one.model_dump() for one in kept.kept])) < 200_000
    for _ in range(20):
        kept.add("newcomer", "call", "why", b"")
    assert kept.kept[-1].sender == "newcomer" and len(kept.kept) == MOST


def test_an_operator_forgets_what_was_seen_and_nothing_newer() -> None:
    kept = DeadLetters(SimClock())
    kept.add("a", "call", "one", b"")
    seen = [one.number for one in kept.kept]
    kept.add("a", "call", "two", b"")
    kept.forget(seen)
    assert [one.why for one in kept.kept] == ["two"]


async def test_the_log_is_not_flooded(world: World) -> None:
    await world.b.server.start()
    with capture_logs() as said:
        for _ in range(200):
            await world.a.bus.publish(call_subject("b", "a"), b"{")
            await world.clock.run_until_idle()
        await world.c.bus.publish(call_subject("b", "c"), b"{")
        await world.clock.run_until_idle()
    lines = [entry["sender"] for entry in said if entry["event"] == "a message cannot be handled"]
    assert lines == ["a"] * 5 + ["c"]


def test_a_client_of_its_own_has_letters_of_its_own(world: World) -> None:
    assert RpcClient(world.a.bus, "a", world.clock).dead_letters.kept == ()
