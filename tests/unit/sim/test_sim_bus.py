"""The bus in memory refuses what a nats-server with our rules refuses: the same cases as for the real one."""

from __future__ import annotations

import asyncio

import pytest

from sterna.domain.trust.identities import CONTROLLER_TOKEN, Identity
from sterna.ports.bus import Incoming
from sterna.sim.ports.bus import MemoryBroker
from tests.rights import PUBLISHES, SUBSCRIBES


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
    assert broker.refused == ["c may not answer on sterna.event.host.host1"]
