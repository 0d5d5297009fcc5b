"""The bus in memory refuses what a nats-server with our rules refuses: the same cases as for the real one."""

from __future__ import annotations

import asyncio

import pytest

from sterna.domain.trust.identities import CONTROLLER_TOKEN, Identity
from sterna.ports.bus import Incoming
from sterna.sim.ports.bus import MemoryBroker
from tests.rights import NAMED_AS_REPLY, OWN_LOOPS, PUBLISHES, SUBSCRIBES


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


@pytest.mark.parametrize(("who", "subject", "allowed"), PUBLISHES)
async def test_publishing(broker: MemoryBroker, who: Identity, subject: str, allowed: bool) -> None:
    got: asyncio.Queue[str] = asyncio.Queue()

    async def hear(incoming: Incoming) -> None:
        got.put_nowait(incoming.subject)

    await broker.bus("anybody").subscribe(">", hear)
    bus = broker.bus(who.name, who.bus_token)
    await bus.publish(subject, b"")
    async with bus.request(subject, b""):
        pass
    for _ in range(3):
        await asyncio.sleep(0)
    assert got.qsize() == (2 if allowed else 0)
    assert len(broker.refused) == (0 if allowed else 2)


@pytest.mark.parametrize(("who", "pattern", "allowed"), SUBSCRIBES)
async def test_subscribing(broker: MemoryBroker, who: Identity, pattern: str, allowed: bool) -> None:
    async def hear(incoming: Incoming) -> None:
        pass

    bus = broker.bus(who.name, who.bus_token)
    subscription = await bus.subscribe(pattern, hear)
    assert (subscription in bus.subscriptions) is allowed
    assert len(broker.refused) == (0 if allowed else 1)
    await subscription.close()


async def test_an_agent_answers_a_controller_and_not_the_other_way_round(broker: MemoryBroker) -> None:
    agent, controller = broker.bus("host1", "host1"), broker.bus("c", CONTROLLER_TOKEN)

    async def answer(incoming: Incoming) -> None:
        await incoming.reply(b"yes")

    await agent.subscribe("sterna.agent.host1.call.*", answer)
    await controller.subscribe("sterna.event.host.*", answer)
    async with controller.request("sterna.agent.host1.call.@controller", b"") as replies:
        assert await anext(replies) == b"yes"
    async with agent.request("sterna.event.host.host1", b"") as replies:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(replies), 0.05)
    assert len(broker.refused) == 1 and broker.refused[0].startswith("c may not publish to _INBOX.host1.")


@pytest.mark.parametrize("lie", [subject for subject in NAMED_AS_REPLY if not subject.startswith("$")])
@pytest.mark.parametrize("own", OWN_LOOPS)
async def test_a_chosen_reply_subject_gives_no_right(broker: MemoryBroker, own: str, lie: str) -> None:
    received: asyncio.Queue[str] = asyncio.Queue()
    heard: asyncio.Queue[Incoming] = asyncio.Queue()

    async def receive(incoming: Incoming) -> None:
        received.put_nowait(incoming.subject)

    async def hear(incoming: Incoming) -> None:
        heard.put_nowait(incoming)

    host2 = broker.bus("host2", "host2")
    for pattern in ("sterna.agent.host2.call.*", "sterna.agent.host2.cast.*", "sterna.event.host.*"):
        await host2.subscribe(pattern, hear)
    await broker.bus("anybody").subscribe(">", receive)
    await host2.publish(own, b"", lie)
    await (await heard.get()).reply(b"lie")
    await host2.publish(lie, b"lie")
    assert await received.get() == own and received.empty()
    assert broker.refused[-1] == f"host2 may not publish to {lie}"


async def test_only_who_was_asked_can_answer(broker: MemoryBroker) -> None:
    host1, host2, host3 = (broker.bus(name, name) for name in ("host1", "host2", "host3"))
    asked: asyncio.Queue[Incoming] = asyncio.Queue()

    async def keep_open(incoming: Incoming) -> None:
        asked.put_nowait(incoming)

    await host2.subscribe("sterna.agent.host2.call.*", keep_open)
    async with host1.request("sterna.agent.host2.call.host1", b"") as replies:
        incoming = await asked.get()
        [answers] = broker.inboxes
        for subject in (answers, answers.removesuffix("host2") + "host3"):  # as if it could be guessed
            await host3.publish(subject, b"lie")
        await incoming.reply(b"true")
        assert await anext(replies) == b"true"
    assert broker.refused == [f"host3 may not publish to {answers}"]
