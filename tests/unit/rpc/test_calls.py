from __future__ import annotations

import asyncio
from typing import Any, NoReturn

import pytest

from sterna.domain.errors import (
    BadRequest,
    Cancelled,
    Conflict,
    NotFound,
    Permanent,
    Refused,
    SternaError,
    Temporary,
    Unknown,
    Unreachable,
)
from sterna.domain.model import Data, Refusal
from sterna.domain.trust import bounds
from sterna.ports.bus import Incoming
from sterna.rpc.envelope import MAX_MESSAGE_BYTES, Reply, Request, decode_reply, encode
from sterna.rpc.subjects import call_subject, calls_to

from .conftest import World


async def test_a_call_carries_everything_there_and_back(world: World) -> None:
    seen = []

    async def handler(request: Request) -> Data:
        seen.append(request)
        return {"answer": 42}

    world.b.server.method("ask", handler)
    await world.b.server.start()
    assert await world.a.client.call("b", "ask", {"x": [1]}, migration_id="m1", epoch=7) == {"answer": 42}
    (request,) = seen
    assert (request.method, request.sender, request.migration_id, request.epoch, request.params) == (
        "ask", "a", "m1", 7, {"x": [1]},
    )  # fmt: skip


async def test_slow_work_is_kept_alive_by_heartbeats(world: World) -> None:
    async def hours(request: Request) -> Data:
        await world.clock.sleep(10_000)
        return {"done": True}

    world.b.server.method("hours", hours)
    await world.b.server.start()
    assert await world.clock.run(world.a.client.call("b", "hours", {}, silence_s=3, total_s=None)) == {"done": True}
    assert world.clock.monotonic_ms() == 10_000_000


async def test_an_agent_works_on_so_many_calls_and_no_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MOST_CALLS", 3)
    monkeypatch.setattr(bounds, "FEW", 0)
    gate = asyncio.Event()

    async def wait(request: Request) -> Data:
        await gate.wait()
        return {}

    world.b.server.method("wait", wait)
    await world.b.server.start()
    calls = [asyncio.create_task(world.a.client.call("b", "wait", {})) for _ in range(3)]
    await world.clock.advance(0.5)
    with pytest.raises(Temporary, match="3 requests already"):
        await world.a.client.call("b", "wait", {})
    gate.set()
    await world.clock.advance(1)
    assert await asyncio.gather(*calls) == [{}, {}, {}]
    assert await world.clock.run(world.a.client.call("b", "wait", {})) == {}


async def test_no_call_is_waited_for_without_end_and_a_living_peer_is_told_from_one_that_hangs(
    world: World,
) -> None:
    async def for_ever(request: Request) -> Data:
        await asyncio.Event().wait()
        return {}

    world.b.server.method("hang", for_ever)
    await world.b.server.start()
    with pytest.raises(Unknown, match="no result after 300 s, though its agent sends heartbeats"):
        await world.clock.run(world.a.client.call("b", "hang", {}))
    assert world.clock.monotonic_ms() == 300_000
    world.broker.cut("b")
    world.broker.heal("b")
    world.broker.loses = lambda packet: packet.is_reply
    with pytest.raises(Unknown, match="nothing received for 5 s, it hangs or is cut off"):
        await world.clock.run(world.a.client.call("b", "hang", {}))


@pytest.mark.parametrize("silence_s", [2.0, 5.0])
async def test_a_peer_that_dies_during_a_call_is_noticed(world: World, silence_s: float) -> None:
    async def for_ever(request: Request) -> Data:
        await asyncio.Event().wait()
        return {}

    world.b.server.method("hang", for_ever)
    await world.b.server.start()
    call = asyncio.create_task(world.a.client.call("b", "hang", {}, silence_s=silence_s))
    await world.clock.advance(60.5)
    assert not call.done()
    world.broker.cut("b")
    with pytest.raises(Unknown, match="nothing received"):
        await world.clock.run(call)
    assert world.clock.monotonic_ms() == pytest.approx(60_000 + silence_s * 1000)  # from the last heartbeat


async def test_total_time_ends_even_a_lively_call(world: World) -> None:
    async def for_ever(request: Request) -> Data:
        await asyncio.Event().wait()
        return {}

    world.b.server.method("hang", for_ever)
    await world.b.server.start()
    with pytest.raises(Unknown, match="no result after 30 s"):
        await world.clock.run(world.a.client.call("b", "hang", {}, total_s=30))
    assert world.clock.monotonic_ms() == pytest.approx(30_000)


async def test_never_delivered_is_unreachable_at_once(world: World) -> None:
    with pytest.raises(Unreachable, match="agent of b") as e:
        await world.a.client.call("b", "ask", {})
    assert "b" in e.value.fix
    world.broker.stop()
    with pytest.raises(Unreachable, match="bus"):
        await world.a.client.call("b", "ask", {})
    assert world.clock.monotonic_ms() == 0


@pytest.mark.parametrize("lost", ["request", "reply"])
async def test_lost_on_the_way_is_unknown(world: World, lost: str) -> None:
    done = []

    async def handler(request: Request) -> Data:
        done.append(1)
        return {}

    world.b.server.method("act", handler)
    await world.b.server.start()
    world.broker.loses = lambda packet: packet.is_reply == (lost == "reply")
    with pytest.raises(Unknown):
        await world.clock.run(world.a.client.call("b", "act", {}))
    assert len(done) == (lost == "reply")


async def test_a_short_outage_does_not_lose_the_answer(world: World) -> None:
    async def work(request: Request) -> Data:
        await world.clock.sleep(10)
        return {"done": True}

    world.b.server.method("work", work)
    await world.b.server.start()
    call = asyncio.create_task(world.a.client.call("b", "work", {}))
    await world.clock.advance(8.5)
    world.broker.stop()  # the result falls into the outage
    await world.clock.advance(3)
    world.broker.start()
    assert await world.clock.run(call) == {"done": True}


@pytest.mark.parametrize(
    "error",
    [
        Temporary("t", fix="f"),
        Unreachable("u"),
        Permanent("p"),
        NotFound("n"),
        Conflict("c", fix="wait"),
        Cancelled("x"),
        BadRequest("b"),
        Unknown("?"),
        Refused([Refusal(code="same-host", message="one", fix="1"), Refusal(code="vm-paused", message="two")]),
    ],
)
async def test_errors_come_back_as_themselves(world: World, error: SternaError) -> None:
    async def handler(request: Request) -> NoReturn:
        raise error

    world.b.server.method("fail", handler)
    await world.b.server.start()
    with pytest.raises(type(error)) as e:
        await world.a.client.call("b", "fail", {})
    assert type(e.value) is type(error)
    assert e.value.to_wire() == error.to_wire()


async def test_a_bug_in_a_handler_is_permanent_and_the_agent_goes_on(world: World) -> None:
    async def handler(request: Request) -> Data:
        return {"x": 1 // request.params["n"]}

    world.b.server.method("divide", handler)
    await world.b.server.start()
    with pytest.raises(Permanent, match="internal error in divide: ZeroDivisionError: integer division"):
        await world.a.client.call("b", "divide", {"n": 0})
    assert await world.a.client.call("b", "divide", {"n": 1}) == {"x": 1}


@pytest.mark.parametrize("answer", [None, {"x": object()}, "text", {"x": "y" * MAX_MESSAGE_BYTES}])
async def test_an_answer_that_cannot_be_sent_is_permanent(world: World, answer: Any) -> None:
    async def handler(request: Request) -> Any:
        return answer

    world.b.server.method("odd", handler)
    await world.b.server.start()
    with pytest.raises(Permanent):
        await world.a.client.call("b", "odd", {})


async def test_params_that_cannot_be_sent(world: World) -> None:
    await world.b.server.start()
    with pytest.raises(BadRequest, match="limit"):
        await world.a.client.call("b", "x", {"x": "y" * MAX_MESSAGE_BYTES})
    with pytest.raises(BadRequest, match="JSON"):
        await world.a.client.call("b", "x", {"x": object()})
    with pytest.raises(BadRequest):
        await world.a.client.call("", "x", {})
    with pytest.raises(BadRequest):
        await world.a.client.call("b", "", {})


async def test_an_unknown_method_tells_nothing_else(world: World) -> None:
    world.b.server.method("secret", None)  # type: ignore[arg-type]
    await world.b.server.start()
    with pytest.raises(BadRequest, match="knows no method 'nope'") as e:
        await world.a.client.call("b", "nope", {})
    assert "secret" not in str(e.value.to_wire())


async def test_a_repeated_delivery_attaches_to_the_running_call(world: World) -> None:
    runs, raise_if_aborted = [], asyncio.Event()

    async def handler(request: Request) -> Data:
        runs.append(request.id)
        await raise_if_aborted.wait()
        return {"run": len(runs)}

    world.b.server.method("act", handler)
    await world.b.server.start()
    payload = encode(Request(kind="call", id="same", method="act", sender="a"))

    async def ask() -> Data:
        async with world.a.bus.request(call_subject("b", "a"), payload) as replies:
            return decode_reply(await anext(replies)).data

    asks = [asyncio.create_task(ask()) for _ in range(3)]
    await world.clock.run_until_idle()
    raise_if_aborted.set()
    assert await asyncio.gather(*asks) == [{"run": 1}] * 3
    assert len(runs) == 1


async def test_stopping_the_server_answers_unknown_at_once(world: World) -> None:
    async def for_ever(request: Request) -> Data:
        await asyncio.Event().wait()
        return {}

    world.b.server.method("hang", for_ever)
    await world.b.server.start()
    call = asyncio.create_task(world.a.client.call("b", "hang", {}))
    await world.clock.run_until_idle()
    await world.b.server.stop()
    with pytest.raises(Unknown, match="stopped"):
        await call


async def test_a_handler_in_which_something_was_cancelled_says_so(world: World) -> None:
    async def handler(request: Request) -> NoReturn:
        raise asyncio.CancelledError

    world.b.server.method("work", handler)
    await world.b.server.start()
    with pytest.raises(Unknown, match="what was waited for was cancelled"):
        await world.clock.run(world.a.client.call("b", "work", {}))


async def test_a_cancelled_caller_leaves_the_handler_alone(world: World) -> None:
    finished = asyncio.Event()

    async def handler(request: Request) -> Data:
        await world.clock.sleep(10)
        finished.set()
        return {}

    world.b.server.method("work", handler)
    await world.b.server.start()
    call = asyncio.create_task(world.a.client.call("b", "work", {}))
    await world.clock.advance(3)
    call.cancel()
    await world.clock.advance(10)
    assert finished.is_set()


async def test_a_call_in_anothers_name_is_refused_before_its_handler(world: World) -> None:
    runs = []

    async def handler(request: Request) -> Data:
        runs.append(request.sender)
        return {}

    world.b.server.method("act", handler)
    await world.b.server.start()
    payload = encode(Request(kind="call", id="x", method="act", sender="@controller"))
    async with world.a.bus.request(call_subject("b", "a"), payload) as replies:
        error = decode_reply(await anext(replies)).raised()
    assert isinstance(error, BadRequest) and "'@controller'" in error.message and "'a'" in error.message
    assert runs == []


async def test_a_reply_of_another_version_is_a_clear_error(world: World) -> None:
    async def handler(incoming: Incoming) -> None:
        await incoming.reply(encode(Reply(kind="result", v=9)))

    await world.b.bus.subscribe(calls_to("b"), handler)
    with pytest.raises(BadRequest, match=r"version 9.*1 to 1"):
        await world.a.client.call("b", "x", {})


async def test_a_heartbeat_with_data_ends_the_call(world: World) -> None:
    """Of a host that wants to fill the caller's memory. It is among the messages that nobody can handle."""

    async def handler(incoming: Incoming) -> None:
        await incoming.reply(encode(Reply(kind="heartbeat", data={"x": "x" * 400_000})))

    await world.b.bus.subscribe(calls_to("b"), handler)
    with pytest.raises(BadRequest, match="heartbeat"):
        await world.clock.run(world.a.client.call("b", "x", {}))
    assert [letter.sender for letter in world.a.client.dead_letters.kept] == ["b"]


async def test_host_names_with_dots_and_stars_are_one_token(world: World) -> None:
    await world.b.server.start()
    for odd in ("b.example.org", "*", ">", "a b", "x\r\ny"):
        with pytest.raises(Unreachable):
            await world.a.client.call(odd, "x", {})
