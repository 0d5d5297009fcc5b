"""Sterna's own messages on a nats-server with our rules: all of them pass, and none in another's name does."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from sterna.adapters.identity.own import OwnFiles
from sterna.adapters.nats.bus import NatsBus
from sterna.adapters.sql.journal import SqlJournal
from sterna.bootstrap.agent import show_again
from sterna.bootstrap.metrics import MetricsServer
from sterna.bootstrap.process import join_bus
from sterna.config import AgentSettings
from sterna.config.bus import BusSettings, IdentitySettings
from sterna.domain.errors import BadRequest, Unreachable
from sterna.domain.model import Data
from sterna.domain.trust.identities import CONTROLLER_TOKEN, Identity
from sterna.kit.clock import SystemClock
from sterna.ports.records import Envelope
from sterna.rpc.client import RpcClient
from sterna.rpc.envelope import Request
from sterna.rpc.outbox import Outbox
from sterna.rpc.server import RpcServer
from tests.contract.guarded import SERVER, Guarded, voice
from tests.rights import CONTROLLER, HOST1, HOST2

CLOCK = SystemClock()
Heard = asyncio.Queue[tuple[str, Data]]


def settings_of(guarded: Guarded, who: Identity) -> AgentSettings:
    identity = IdentitySettings(enrol="sterna", folder=guarded.folder / f"{who.kind}-{who.name}")
    return AgentSettings.model_construct(identity=identity, bus=BusSettings(url=guarded.url))


def shown(bus: NatsBus, settings: AgentSettings) -> None:
    """A new certificate is shown to all that are to see it."""
    show_again(bus, settings, MetricsServer(settings.metrics, settings.identity))()


@asynccontextmanager
async def joined(guarded: Guarded, who: Identity) -> AsyncIterator[NatsBus]:
    """As `bootstrap` joins an agent or a controller."""
    settings = settings_of(guarded, who)
    bus = await join_bus(settings.bus, who.name, who.bus_token, settings.identity)
    try:
        async with asyncio.timeout(20):
            await bus.wait_connected()
        yield bus
    finally:
        await bus.close()


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Guarded]:
    guarded = Guarded(tmp_path)
    for who in (HOST1, HOST2, CONTROLLER):
        guarded.enrol(who)
    await guarded.start()
    yield guarded
    await guarded.end()


def hearing(heard: Heard) -> Callable[[str, Data], Coroutine[Any, Any, None]]:
    async def hear(topic: str, data: Data) -> None:
        heard.put_nowait((topic, data))

    return hear


async def test_calls_casts_and_hints_all_pass(guarded: Guarded) -> None:
    async with AsyncExitStack() as stack:
        one, two, controller = [
            await stack.enter_async_context(joined(guarded, who)) for who in (HOST1, HOST2, CONTROLLER)
        ]
        server = RpcServer(two, "host2", SqlJournal.at(None), CLOCK, heartbeat_s=0.05)
        noted: asyncio.Queue[str] = asyncio.Queue()

        async def slow(request: Request) -> Data:
            await asyncio.sleep(0.3)  # several heartbeats long
            return {"from": request.sender}

        async def note(request: Request) -> None:
            noted.put_nowait(request.sender)

        server.method("slow", slow)
        server.cast("note", note)
        await server.start()
        for bus, name in ((one, "host1"), (controller, CONTROLLER_TOKEN)):
            assert await RpcClient(bus, name, CLOCK).call("host2", "slow", {}, silence_s=5) == {"from": name}
        with pytest.raises(Unreachable):
            await RpcClient(controller, CONTROLLER_TOKEN, CLOCK).call("host9", "slow", {})
        outbox = Outbox(SqlJournal.at(None), one, "host1", CLOCK)
        await outbox.start()
        outbox.put(Envelope(id="c1", to="host2", method="note", migration_id="m", epoch=1))
        async with asyncio.timeout(10):
            await outbox.drained("host2")
            assert await noted.get() == "host1"
        await outbox.stop()
        await server.stop()


async def test_hints_reach_who_listens(guarded: Guarded) -> None:
    heard: Heard = asyncio.Queue()
    async with joined(guarded, HOST1) as one, joined(guarded, HOST2) as two, joined(guarded, CONTROLLER) as three:
        agents = RpcClient(one, "host1", CLOCK), RpcClient(two, "host2", CLOCK)
        controller = RpcClient(three, CONTROLLER_TOKEN, CLOCK)
        for topic in ("host.*", "journal.*", "progress.*.*"):
            await controller.listen(topic, hearing(heard))
        for topic in ("leaving.*.*", "external.*"):
            await agents[1].listen(topic, hearing(heard))
        sent = ["host.host1", "journal.host1", "progress.host1.m1", "leaving.host1.m1"]
        for topic in sent:
            await agents[0].announce(topic, {})
        await controller.announce("external.vm1", {})
        async with asyncio.timeout(10):
            assert sorted([(await heard.get())[0] for _ in range(5)]) == sorted([*sent, "external.vm1"])


async def test_what_is_sent_in_anothers_name_is_said_in_its_log(guarded: Guarded) -> None:
    async with joined(guarded, HOST2) as two, joined(guarded, CONTROLLER) as three:
        heard: Heard = asyncio.Queue()
        await RpcClient(three, CONTROLLER_TOKEN, CLOCK).listen("host.*", hearing(heard))
        with capture_logs() as said:
            await RpcClient(two, "host1", CLOCK).announce("host.host1", {})
            await RpcClient(two, "host1", CLOCK).announce("host.host1", {})
            await RpcClient(two, "host2", CLOCK).announce("host.host2", {})
            assert (await asyncio.wait_for(heard.get(), 10))[0] == "host.host2"
            await two.wait_connected()
        refused = [entry for entry in said if "does not let this process" in entry["event"]]
        assert len(refused) == 1 and "sterna bus config" in refused[0]["fix"]


async def test_an_answer_goes_to_the_askers_own_inbox_only(guarded: Guarded) -> None:
    """Whoever asks names the subject of the answers, and the server lets it pass: host2 would speak as host1."""
    own = OwnFiles(guarded.folder / "agent-host2")
    async with joined(guarded, HOST1) as one, voice(guarded, own) as host2, joined(guarded, CONTROLLER) as three:
        heard: asyncio.Queue[bytes] = asyncio.Queue()
        asked = asyncio.Event()

        async def hear(incoming: Any) -> None:
            heard.put_nowait(incoming.payload)

        async def answer(incoming: Any) -> None:
            await incoming.reply(b"yes")
            asked.set()

        await three.subscribe("sterna.event.host.*", hear)
        await one.subscribe("sterna.agent.host1.call.*", answer)
        assert await host2.publishes("sterna.agent.host1.call.host2", b"", "sterna.event.host.host1")
        async with asyncio.timeout(10):
            await asked.wait()
            await one.publish("sterna.event.host.host1", b"the real one")
            assert await heard.get() == b"the real one"
        async with three.request("sterna.agent.host1.call.@controller", b"") as replies:
            assert await asyncio.wait_for(anext(replies), 10) == b"yes"


async def test_only_who_was_asked_can_answer(guarded: Guarded) -> None:
    """Even if another host knew where the answers go. It cannot: that differs from request to request."""
    one, two = (OwnFiles(guarded.folder / f"agent-{name}") for name in ("host1", "host2"))
    calls: asyncio.Queue[Any] = asyncio.Queue()
    async with voice(guarded, one) as host1, voice(guarded, two) as host2, joined(guarded, CONTROLLER) as three:
        assert await host1.subscribes("sterna.agent.host1.call.*", calls)
        places = set[str]()
        for _ in range(2):
            async with asyncio.timeout(10), three.request("sterna.agent.host1.call.@controller", b"") as replies:
                answers = (await calls.get()).reply
                places.add(answers.split(".")[3])
                assert not await host2.publishes(answers, b"lie")
                assert await host2.publishes(answers.removesuffix("host1") + "host2", b"lie")
                assert await host1.publishes(answers, b"true")
                assert await anext(replies) == b"true"
        assert len(places) == 2 and all(len(place) == 32 for place in places)


async def test_a_new_certificate_is_shown_at_the_next_connection(guarded: Guarded) -> None:
    """The present one is taken off the bus while the agent runs."""
    async with joined(guarded, HOST1) as bus:
        guarded.enrol(HOST1)  # another user
        shown(bus, settings_of(guarded, HOST1))
        await guarded.end()
        await guarded.start()
        async with asyncio.timeout(20):
            await bus.wait_connected()
        await bus.publish("sterna.event.host.host1", b"")


async def test_a_certificate_without_its_key_takes_no_others_place(guarded: Guarded) -> None:
    """A loss of the bus between two looks would last until the second."""
    settings = settings_of(guarded, HOST1)
    key = OwnFiles(settings.identity.folder).key_file
    async with joined(guarded, HOST1) as bus:
        whole = key.read_bytes()
        guarded.enrol(HOST1)
        key.write_bytes(whole)  # of the one before
        with pytest.raises(BadRequest, match="cannot be set up"):
            shown(bus, settings)
        await guarded.end()
        guarded.users = [(HOST1, HOST1.bus_user(1))]
        await guarded.start()
        async with asyncio.timeout(20):
            await bus.wait_connected()
        await bus.publish("sterna.event.host.host1", b"")


async def test_an_agent_that_was_removed_cannot_join(guarded: Guarded) -> None:
    async with joined(guarded, HOST1) as bus:
        guarded.authority.remove(HOST1)
        await guarded.end()
        await guarded.start()
        async with asyncio.timeout(20):
            while "uthorization" not in bus.state().why:  # noqa: ASYNC110 - nothing tells us but the state itself
                await asyncio.sleep(0.05)
        with pytest.raises(Unreachable):
            await bus.publish("sterna.event.host.host1", b"")


@pytest.mark.parametrize(("who", "said"), [(SERVER, "certificate has expired"), (HOST1, "certificate")])
async def test_why_certificates_are_refused_is_logged_once(guarded: Guarded, who: Identity, said: str) -> None:
    """As long as the connection stands nobody looks at them again: it is lost first."""
    async with joined(guarded, HOST1) as bus:
        with capture_logs() as logs:
            await guarded.end()
            guarded.let_expire(who)
            shown(bus, settings_of(guarded, HOST1))
            await guarded.start()
            async with asyncio.timeout(20):
                while sum(said in str(line.get("error")) for line in logs) < 5:  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.05)
    refused = [line["why"] for line in logs if line["event"] == "the message bus cannot be joined"]
    assert len(refused) == 1 and said in refused[0], (refused, logs[-3:])


async def test_an_agent_process_shows_its_certificate_and_is_heard(guarded: Guarded, tmp_path: Path) -> None:
    config = tmp_path / "agent.toml"
    config.write_text(
        f'host = "host1"\nstate_dir = "{tmp_path}/state"\nlibvirt_uri = "qemu+unix:///system?socket=/proc/none"\n'
        f'[migration]\naddress = "127.0.0.1"\n[network]\novsdb = ""\n[bus]\nurl = "{guarded.url}"\n'
        f'[identity]\nenrol = "sterna"\nfolder = "{guarded.folder}/agent-host1"\n'
    )
    heard: Heard = asyncio.Queue()
    async with joined(guarded, CONTROLLER) as three:
        controller = RpcClient(three, CONTROLLER_TOKEN, CLOCK)
        await controller.listen("host.*", hearing(heard))
        with (tmp_path / "log").open("wb") as log:
            command = (sys.executable, "-m", "sterna", "agent", "--config", str(config))
            process = await asyncio.create_subprocess_exec(*command, stderr=log)
        try:
            async with asyncio.timeout(120):
                topic, data = await heard.get()
                assert (topic, data["name"]) == ("host.host1", "host1")
                assert (await controller.call("host1", "ping", {}))["boot"] == data["boot"]
                process.send_signal(signal.SIGTERM)
                assert await process.wait() == 0
        finally:
            with suppress(ProcessLookupError):
                process.kill()
    assert "does not let this process" not in (tmp_path / "log").read_text()
