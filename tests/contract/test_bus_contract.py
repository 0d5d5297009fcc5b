"""What every Bus adapter must do. Real time passes only on the NATS side, and only until an event happens."""

import asyncio
from typing import Any

import pytest

from sterna.domain.errors import BadRequest, Unreachable
from sterna.ports.bus import MOST_ANSWER_BYTES, Bus, Handler, Incoming
from tests.contract.conftest import World


async def ask(bus: Bus, subject: str, payload: bytes = b"?") -> bytes:
    """The first reply."""
    async with asyncio.timeout(10), bus.request(subject, payload) as replies:
        return await anext(replies)


async def echo(incoming: Incoming) -> None:
    await incoming.reply(b"echo:" + incoming.payload)


async def test_publish_reaches_every_subscriber(world: World) -> None:
    a, b, c = [await world.bus(n) for n in "abc"]
    got: asyncio.Queue[Any] = asyncio.Queue()

    def keep(name: str) -> Handler:
        async def handler(incoming: Incoming) -> None:
            await incoming.reply(b"nobody asked")
            got.put_nowait((name, incoming.subject, incoming.payload))

        return handler

    await a.subscribe("s.x", keep("a"))
    await b.subscribe("s.x", keep("b"))
    await c.publish("s.x", b"hello")
    async with asyncio.timeout(10):
        both = {await got.get(), await got.get()}
    assert both == {("a", "s.x", b"hello"), ("b", "s.x", b"hello")}


async def test_star_matches_one_token(world: World) -> None:
    a, b = await world.bus("a"), await world.bus("b")
    got: asyncio.Queue[Any] = asyncio.Queue()

    async def handler(incoming: Incoming) -> None:
        got.put_nowait(incoming.subject)

    await a.subscribe("host.*.up", handler)
    for subject in ("host.up", "host.a.b.up", "host.a.down", "host.a.up"):
        await b.publish(subject, b"")
    async with asyncio.timeout(10):
        assert await got.get() == "host.a.up"
    assert got.empty()


async def test_messages_start_in_the_order_sent(world: World) -> None:
    a, b = await world.bus("a"), await world.bus("b")
    seen, done = [], asyncio.Event()

    async def handler(incoming: Incoming) -> None:
        seen.append(incoming.payload)
        if len(seen) == 100:
            done.set()

    await a.subscribe("s", handler)
    for i in range(100):
        await b.publish("s", b"%d" % i)
    async with asyncio.timeout(10):
        await done.wait()
    assert seen == [b"%d" % i for i in range(100)]


async def test_a_request_gets_all_replies(world: World) -> None:
    a, b = await world.bus("a"), await world.bus("b")

    async def handler(incoming: Incoming) -> None:
        for word in (b"one", b"two", b""):
            await incoming.reply(word)

    await a.subscribe("s", handler)
    async with asyncio.timeout(10), b.request("s", b"") as replies:
        assert [await anext(replies) for _ in range(3)] == [b"one", b"two", b""]


async def test_concurrent_requests_get_their_own_replies(world: World) -> None:
    a, b = await world.bus("a"), await world.bus("b")
    await a.subscribe("s", echo)
    answers = await asyncio.gather(*(ask(b, "s", b"%d" % i) for i in range(50)))
    assert answers == [b"echo:%d" % i for i in range(50)]


async def test_a_bus_can_ask_itself(world: World) -> None:
    a = await world.bus("a")
    await a.subscribe("s", echo)
    assert await ask(a, "s", b"me") == b"echo:me"


async def test_nobody_listens(world: World) -> None:
    a = await world.bus("a")
    with pytest.raises(Unreachable):
        await ask(a, "nobody.home")


async def test_a_closed_subscription_is_nobody(world: World) -> None:
    a, b = await world.bus("a"), await world.bus("b")
    subscription = await a.subscribe("s", echo)
    assert await ask(b, "s", b"1") == b"echo:1"
    await subscription.close()
    await subscription.close()
    await ask_until_unreachable(b, "s")


async def ask_until_unreachable(bus: Bus, subject: str) -> None:
    """An unsubscription may take a moment to reach the server."""
    async with asyncio.timeout(10):
        while True:
            try:
                async with asyncio.timeout(0.2):
                    await ask(bus, subject)
            except Unreachable:
                return
            except TimeoutError:
                continue


async def test_a_closed_bus_is_nobody_and_cannot_send(world: World) -> None:
    a, b = await world.bus("a"), await world.bus("b")
    await a.subscribe("s", echo)
    await a.close()
    await ask_until_unreachable(b, "s")
    with pytest.raises(Unreachable):
        await a.publish("s", b"")


async def test_a_slow_handler_does_not_block_others(world: World) -> None:
    a, b = await world.bus("a"), await world.bus("b")
    free = asyncio.Event()

    async def handler(incoming: Incoming) -> None:
        if incoming.payload == b"slow":
            await free.wait()
        await incoming.reply(incoming.payload)

    await a.subscribe("s", handler)
    async with asyncio.timeout(10), b.request("s", b"slow") as replies:
        assert await ask(b, "s", b"fast") == b"fast"
        free.set()
        assert await anext(replies) == b"slow"


async def test_a_failing_handler_stops_nothing(world: World) -> None:
    a, b = await world.bus("a"), await world.bus("b")

    async def handler(incoming: Incoming) -> None:
        if incoming.payload == b"bad":
            raise RuntimeError("on purpose")
        await incoming.reply(b"fine")

    await a.subscribe("s", handler)
    await b.publish("s", b"bad")
    assert await ask(b, "s", b"good") == b"fine"


async def test_payload_limit_is_named(world: World) -> None:
    a, b = await world.bus("a"), await world.bus("b")

    async def handler(incoming: Incoming) -> None:
        with pytest.raises(BadRequest, match="limit"):
            await incoming.reply(b"x" * (world.max_payload + 1))
        await incoming.reply(b"%d" % len(incoming.payload))

    await a.subscribe("s", handler)
    assert await ask(b, "s", b"x" * world.max_payload) == b"%d" % world.max_payload
    too_much = b"x" * (world.max_payload + 1)
    with pytest.raises(BadRequest, match=str(world.max_payload)):
        await ask(b, "s", too_much)
    with pytest.raises(BadRequest, match=str(world.max_payload)):
        await b.publish("s", too_much)


async def test_replies_that_nobody_reads_are_bounded_in_bytes(world: World) -> None:
    a, b = await world.bus("a"), await world.bus("b")
    sent, read = asyncio.Event(), asyncio.Event()
    most, size = 4, MOST_ANSWER_BYTES // 4

    async def flood(incoming: Incoming) -> None:
        for n in range(3 * most):
            await incoming.reply(b"%d" % n * size)
        sent.set()
        await read.wait()
        await incoming.reply(b"read again")

    await a.subscribe("s", flood)
    await a.subscribe("echo", echo)
    async with asyncio.timeout(20), b.request("s", b"") as replies:
        await sent.wait()
        await ask(b, "echo")  # all of it has arrived
        assert [await anext(replies) for _ in range(most)] == [b"%d" % n * size for n in range(most)]
        read.set()
        assert await anext(replies) == b"read again"


@pytest.mark.parametrize("subject", ["", "a..b", ".a", "a.", "a b", "a\r\nPUB x 0"])
async def test_bad_subjects(world: World, subject: str) -> None:
    a = await world.bus("a")
    with pytest.raises(BadRequest):
        await a.publish(subject, b"")
    with pytest.raises(BadRequest):
        await a.subscribe(subject, echo)
    with pytest.raises(BadRequest):
        await ask(a, subject)


async def test_wildcards_cannot_be_sent_to(world: World) -> None:
    a = await world.bus("a")
    with pytest.raises(BadRequest):
        await a.publish("a.*", b"")


async def test_outage_raises_at_once_and_everything_resumes(world: World) -> None:
    a, b = await world.bus("a"), await world.bus("b")
    await a.subscribe("s", echo)
    assert await ask(b, "s", b"1") == b"echo:1"
    await world.kill()
    with pytest.raises(Unreachable):
        await ask(b, "s")
    with pytest.raises(Unreachable):
        await b.publish("s", b"")
    await a.subscribe("late", echo)  # made during the outage
    await world.start()
    assert await ask(b, "s", b"2") == b"echo:2"
    assert await ask(b, "late", b"3") == b"echo:3"


async def test_a_request_open_during_an_outage_gets_later_replies(world: World) -> None:
    a, b = await world.bus("a"), await world.bus("b")
    arrived, raise_if_aborted = asyncio.Event(), asyncio.Event()

    async def handler(incoming: Incoming) -> None:
        arrived.set()
        await raise_if_aborted.wait()
        await incoming.reply(b"done")

    await a.subscribe("s", handler)
    async with asyncio.timeout(30), b.request("s", b"") as replies:
        await arrived.wait()
        await world.kill()
        await world.start()
        raise_if_aborted.set()
        assert await anext(replies) == b"done"


async def test_replying_during_an_outage_raises(world: World) -> None:
    a, b = await world.bus("a"), await world.bus("b")
    arrived, raise_if_aborted = asyncio.Event(), asyncio.Event()
    outcome: asyncio.Queue[Unreachable] = asyncio.Queue()

    async def handler(incoming: Incoming) -> None:
        arrived.set()
        await raise_if_aborted.wait()
        try:
            await incoming.reply(b"done")
        except Unreachable as e:
            outcome.put_nowait(e)

    await a.subscribe("s", handler)
    async with asyncio.timeout(30), b.request("s", b""):
        await arrived.wait()
        await world.kill()
        raise_if_aborted.set()
        assert isinstance(await outcome.get(), Unreachable)


async def test_a_bus_may_be_joined_before_it_is_there(world: World) -> None:
    await world.kill()
    a, b = await world.bus("a"), await world.bus("b")
    await a.subscribe("s", echo)
    with pytest.raises(Unreachable):
        await ask(b, "s")
    await world.start()
    assert await ask(b, "s", b"1") == b"echo:1"


async def test_many_restarts(world: World) -> None:
    a, b = await world.bus("a"), await world.bus("b")
    await a.subscribe("s", echo)
    for i in range(3):
        await world.kill()
        await world.start()
        assert await ask(b, "s", b"%d" % i) == b"echo:%d" % i
