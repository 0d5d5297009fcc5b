"""Calls and casts over every bus, hostile messages included, on real time: short waits, ended by events."""

import asyncio
import json
import random
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sterna.adapters.sql.journal import SqlJournal
from sterna.domain.errors import BadRequest, Unknown, Unreachable
from sterna.domain.model import Data
from sterna.kit.clock import SystemClock
from sterna.ports.bus import Bus
from sterna.ports.records import Envelope
from sterna.rpc.client import RpcClient
from sterna.rpc.envelope import MAX_MESSAGE_BYTES, Reply, Request, decode_reply
from sterna.rpc.outbox import Outbox
from sterna.rpc.server import RpcServer
from sterna.rpc.subjects import call_subject, cast_subject
from sterna.sim.ports.bus import MemoryBroker
from tests.contract.conftest import World

GOOD = {"v": 1, "kind": "call", "id": "1", "method": "echo", "sender": "a"}


async def serve(bus: Bus, name: str = "b", **options: Any) -> RpcServer:
    server = RpcServer(bus, name, SqlJournal.at(None), SystemClock(), **options)

    async def echo(request: Request) -> Data:
        return request.params

    server.method("echo", echo)
    await server.start()
    return server


async def raw(bus: Bus, subject: str, payload: bytes) -> Reply:
    async with asyncio.timeout(10), bus.request(subject, payload) as replies:
        return decode_reply(await anext(replies))


async def test_call(world: World) -> None:
    a, b = await world.bus("a"), await world.bus("b")
    await serve(b)
    client = RpcClient(a, "a", SystemClock())
    assert await client.call("b", "echo", {"x": [1, "ä"]}) == {"x": [1, "ä"]}
    big = {"x": "y" * (MAX_MESSAGE_BYTES - 300)}
    assert await client.call("b", "echo", big) == big
    with pytest.raises(BadRequest, match="no method"):
        await client.call("b", "nope", {})
    with pytest.raises(Unreachable):
        await client.call("c", "echo", {})


async def test_slow_work_lives_and_a_dead_peer_is_noticed(world: World) -> None:
    a, b = await world.bus("a"), await world.bus("b")
    server = await serve(b, heartbeat_s=0.1)
    at_work = asyncio.Event()

    async def slow(request: Request) -> Data:
        at_work.set()
        await asyncio.sleep(request.params["s"])
        return {}

    server.method("slow", slow)
    client = RpcClient(a, "a", SystemClock())
    assert await client.call("b", "slow", {"s": 1.2}, silence_s=0.6) == {}
    at_work.clear()
    call = asyncio.create_task(client.call("b", "slow", {"s": 60}, silence_s=0.6))
    await at_work.wait()
    await b.close()
    started = time.monotonic()
    with pytest.raises(Unknown):
        await asyncio.wait_for(call, 10)
    assert time.monotonic() - started < 3


NASTY = [
    b"",
    b"\x00",
    b"{",
    b"[]",
    b"null",
    b"[" * 100_000,
    b"\xff" * 100,
    b"x" * (MAX_MESSAGE_BYTES + 1),
    json.dumps(GOOD | {"v": 2}).encode(),
    json.dumps(GOOD | {"v": "1"}).encode(),
    json.dumps(GOOD | {"kind": "cast"}).encode(),
    json.dumps(GOOD | {"kind": "else"}).encode(),
    json.dumps(GOOD | {"params": []}).encode(),
    json.dumps(GOOD | {"epoch": -1}).encode(),
    json.dumps(GOOD | {"id": ""}).encode(),
    json.dumps(GOOD | {"method": "x" * 300}).encode(),
    json.dumps(GOOD | {"method": None}).encode(),
    json.dumps({}).encode(),
]


async def test_hostile_messages_get_an_answer_and_harm_nothing(world: World) -> None:
    a, b = await world.bus("a"), await world.bus("b")
    server = await serve(b)
    seed = random.Random(1)
    payloads = NASTY + [seed.randbytes(seed.randrange(200)) for _ in range(100)]
    for payload in payloads:
        error = (await raw(a, call_subject("b", "a"), payload)).raised()
        assert type(error) is BadRequest
        if payload != json.dumps(GOOD | {"kind": "cast"}).encode():
            assert type((await raw(a, cast_subject("b", "a"), payload)).raised()) is BadRequest
        await a.publish(call_subject("b", "a"), payload)  # wants no answer
        await a.publish(cast_subject("b", "a"), payload)
    version = (await raw(a, call_subject("b", "a"), json.dumps(GOOD | {"v": 2}).encode())).raised()
    assert "version 2" in version.message
    assert "1 to 1" in version.message
    assert await RpcClient(a, "a", SystemClock()).call("b", "echo", {"x": 1}) == {"x": 1}
    await server.stop()


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.binary(max_size=300), max_size=5))
def test_random_bytes_never_harm_the_server(payloads: list[bytes]) -> None:
    async def attack() -> None:
        broker = MemoryBroker()
        a = broker.bus("a")
        server = RpcServer(broker.bus("b"), "b", FUZZ_JOURNAL, SystemClock())
        await server.start()
        for payload in payloads:
            for subject in (call_subject("b", "a"), cast_subject("b", "a")):
                assert type((await raw(a, subject, payload)).raised()) is BadRequest
        with pytest.raises(BadRequest, match="no method"):
            await RpcClient(a, "a", SystemClock()).call("b", "x", {})
        await server.stop()

    asyncio.run(attack())


FUZZ_JOURNAL = SqlJournal.at(None)


async def test_casts_survive_an_outage_of_bus_and_receiver(world: World) -> None:
    a, b = await world.bus("a"), await world.bus("b")
    seen, both = [], asyncio.Event()
    outbox = Outbox(SqlJournal.at(None), a, "a", SystemClock())
    await outbox.start()
    await world.kill()
    for i in range(3):
        outbox.put(Envelope(id=f"c{i}", to="b", method="note", migration_id="m", epoch=1))
    await world.start()
    server = RpcServer(b, "b", SqlJournal.at(None), SystemClock())

    async def note(request: Request) -> None:
        seen.append(request.id)
        if len(seen) == 3:
            both.set()

    server.cast("note", note)
    await server.start()
    outbox.hurry("b")
    async with asyncio.timeout(20):
        await outbox.drained("b")
        await both.wait()
    assert seen == ["c0", "c1", "c2"]
    await outbox.stop()
    await server.stop()


async def test_a_call_survives_a_short_outage_of_the_bus(world: World) -> None:
    a, b = await world.bus("a"), await world.bus("b")
    server = await serve(b, heartbeat_s=0.1)
    at_work, raise_if_aborted = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> Data:
        at_work.set()
        await raise_if_aborted.wait()
        return {"done": True}

    server.method("slow", slow)
    call = asyncio.create_task(RpcClient(a, "a", SystemClock()).call("b", "slow", {}, silence_s=15))
    await at_work.wait()
    await world.kill()
    await world.start()
    raise_if_aborted.set()
    assert await asyncio.wait_for(call, 20) == {"done": True}


async def test_presence_hints(world: World) -> None:
    a, b = await world.bus("a"), await world.bus("b")
    got: asyncio.Queue[tuple[str, Data]] = asyncio.Queue()

    async def handler(topic: str, data: Data) -> None:
        got.put_nowait((topic, data))

    await RpcClient(b, "b", SystemClock()).listen("host.*", handler)
    await RpcClient(a, "a", SystemClock()).announce("host.a", {"n": 1})
    assert await asyncio.wait_for(got.get(), 10) == ("host.a", {"n": 1})
