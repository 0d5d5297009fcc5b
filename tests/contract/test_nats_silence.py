"""A bus that accepts and says nothing, refuses for a while, or closes each connection: it is used again later."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog

from sterna.adapters.nats import bus as nats_bus
from sterna.adapters.nats import connection
from sterna.adapters.nats.bus import NatsBus
from sterna.domain.errors import Unreachable
from sterna.ports.bus import Incoming
from tests.contract.bus_clients import BACK_S, nothing, until
from tests.contract.conftest import NatsWorld
from tests.contract.relay import relaying
from tests.narrowing import not_none


class Ear:
    """Counts what comes."""

    def __init__(self) -> None:
        self.heard = 0

    async def __call__(self, message: Incoming) -> None:
        self.heard += 1
        await message.reply(b"yes")


async def arrives(bus: NatsBus, ear: Ear, seconds: float) -> None:
    """A message to `x.y` is heard. Raises TimeoutError."""
    before = ear.heard
    async with asyncio.timeout(seconds):
        while ear.heard == before:
            await bus.publish("x.y", b"")
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("chunks", [0, 1])
async def test_a_server_that_accepts_and_says_nothing_more_is_given_up(nats: NatsWorld, chunks: int) -> None:
    """Nothing at all; or its greeting only: with TLS the handshake hangs."""
    async with relaying(nats.port) as relay:
        relay.first_chunks = chunks
        async with asyncio.timeout(connection.JOIN_S + 1):
            bus = await NatsBus.connect(relay.url, name="a", tls=nats.tls)
        try:
            assert not bus.connected
            relay.first_chunks = None
            await until(lambda: bus.connected, connection.JOIN_S + BACK_S)
        finally:
            await bus.close()


async def test_a_subscription_that_the_server_does_not_confirm_is_opened_on_a_new_connection(
    nats: NatsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "SILENCE_S", 60)  # nothing else notices
    async with relaying(nats.port) as relay:
        bus, ear = await NatsBus.connect(relay.url, name="a", tls=nats.tls), Ear()
        try:
            first = not_none(bus._client)
            relay.muted = True
            async with asyncio.timeout(connection.SEND_S + 1):
                await bus.subscribe("x.*", ear)
            relay.muted = False
            await until(lambda: bus.connected and bus._client is not first, BACK_S)
            assert "no answer" in first.why
            await arrives(bus, ear, BACK_S)
        finally:
            await bus.close()


async def test_a_subscription_that_fails_on_an_old_connection_leaves_the_new_one_alone(
    nats: NatsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "SEND_S", 1.0)
    async with relaying(nats.port) as relay:
        bus, ear = await NatsBus.connect(relay.url, name="a", tls=nats.tls), Ear()
        try:
            first = not_none(bus._client)
            relay.muted = True
            subscribing = asyncio.create_task(bus.subscribe("x.*", ear))
            await until(lambda: bool(first.client._pongs), 1)
            relay.close_all()
            relay.muted = False
            await until(lambda: bus.connected and bus._client is not first, BACK_S)
            second = bus._client
            async with asyncio.timeout(5):
                await subscribing
            assert bus._client is second and bus.connected
            await arrives(bus, ear, BACK_S)
            assert bus._client is second
        finally:
            await bus.close()


async def test_a_bus_that_closes_each_connection_is_joined_with_pauses_and_logged_once(
    nats: NatsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_bus, "_STEADY_S", 1.0)
    with structlog.testing.capture_logs() as logs:

        def lines() -> list[str]:
            return [line["event"] for line in logs if line["log_level"] != "debug"]

        async with relaying(nats.port) as relay:
            relay.closes_after_s = 0.1
            bus = await NatsBus.connect(relay.url, name="a", tls=nats.tls)
            try:
                took = await until(lambda: relay.connections == 8, 10)
                assert took > 2.5, "the second at once, then pauses of 0.05, 0.1, 0.2, 0.4, 0.8 and 1 s"
                flapping = ["the message bus is lost", "the message bus is back", "the message bus is lost"]
                assert lines() == flapping
                relay.closes_after_s = None
                await until(lambda: len(lines()) == 4, 5)
                assert lines()[-1] == "the message bus is back"
                assert bus._backoff.first
            finally:
                await bus.close()


async def test_an_end_that_nobody_has_reported_yet_has_its_time_and_its_reason(
    nats: NatsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = await nats.bus("a")
    joined = bus.state()
    assert joined.connected and not joined.why
    not_none(bus._client).client._status = connection._Client.CLOSED
    state = bus.state()
    assert not state.connected and state.since > joined.since and "has ended" in state.why
    assert bus.state() == state
    await until(lambda: bus._client is not None and bus.connected, BACK_S)


class Reloading(NatsWorld):
    """Its configuration can be written anew while it runs."""

    def __init__(self, file: Path) -> None:
        super().__init__("-c", str(file))
        self._file = file
        self.allow()

    def allow(self, *subscribe: str, password: str = "right") -> None:
        """Subscriptions to these patterns; all where none is given."""
        allowed = ", ".join(f'"{pattern}"' for pattern in subscribe or (">",))
        rights = f'permissions: {{ publish: ">", subscribe: {{ allow: [{allowed}] }} }}'
        user = f'{{ user: agent, password: "{password}", {rights} }}'
        self._file.write_text(f"authorization {{ users: [ {user} ] }}\n")
        if self.process is not None:
            self.signal(signal.SIGHUP)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Reloading]:
    world = Reloading(tmp_path / "nats.conf")
    await world.start()
    yield world
    await world.end()


async def test_credentials_that_are_wrong_for_a_while(server: Reloading) -> None:
    server.allow(password="new")
    with structlog.testing.capture_logs() as logs:
        bus = await server.bus("a", user="agent", password="right")
        await until(lambda: sum(line["event"] == "nats" for line in logs) > 3, 10)
        with pytest.raises(Unreachable):
            await bus.publish("x.y", b"")
        server.allow()
        await until(lambda: bus.connected, BACK_S)
    assert "the message bus is back" in [line["event"] for line in logs]


@pytest.mark.parametrize("lacks", ["x.*", "_INBOX.>"])
@pytest.mark.parametrize("before", [True, False])
async def test_a_subscription_that_the_server_refuses_or_removes_is_made_again(
    server: Reloading, monkeypatch: pytest.MonkeyPatch, lacks: str, *, before: bool
) -> None:
    """`before`: the configuration was right once, and the server removes what it had accepted."""
    monkeypatch.setattr(connection, "REFUSED_S", 1.0)
    kept = {"x.*", "_INBOX.>", "other.*"} - {lacks}
    ear = Ear()
    with structlog.testing.capture_logs() as logs:

        def logged(words: str) -> int:
            return sum(words in line["event"] for line in logs)

        def refusals() -> int:
            return sum("violation" in line.get("error", line.get("why", "")) for line in logs)

        if not before:
            server.allow(*kept)
            await server.kill()
            await server.start()
        bus = await server.bus("a", user="agent", password="right")
        await bus.subscribe("x.*", ear)
        await bus.subscribe("other.*", nothing)
        first = bus._client
        if before:
            server.allow(*kept)
        await until(lambda: logged("does not let this process") == 1, 10)
        await until(lambda: refusals() == 3, 5)  # it is asked again, twice, and says no
        assert logged("does not let this process") == 1
        server.allow()
        await until(lambda: logged("accepts all subscriptions") == 1, 5)
    async with asyncio.timeout(BACK_S), bus.request("x.y", b"") as replies:
        assert await anext(replies) == b"yes"
    assert ear.heard == 1
    assert bus._client is first and bus.connected, "what was under way has gone on"
