"""The rules of the bus, on a real nats-server with real certificates: each may do what is theirs, and no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sterna.adapters.identity.own import OwnFiles
from sterna.bootstrap.bus_server import BusServerFile
from sterna.config.bus import BusServerSettings
from sterna.domain.trust.identities import Identity, Kind, identity
from sterna.domain.trust.joining import JoinAnswer
from sterna.kit.clock import SystemClock
from tests.contract.guarded import SERVER, Guarded, voice
from tests.rights import CONTROLLER, HOST1, HOST2, NAMED_AS_REPLY, OWN_LOOPS, PUBLISHES, SUBSCRIBES

REFUSED = Exception
"""nats-py raises whatever the handshake failed with: OSError, ssl.SSLError, NoServersError."""


@pytest.fixture(scope="module")
def guarded_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guarded")


@pytest.fixture(scope="module")
def enrolled(guarded_folder: Path) -> tuple[Guarded, dict[Identity, OwnFiles]]:
    guarded = Guarded(guarded_folder)
    return guarded, {who: guarded.enrol(who) for who in (HOST1, HOST2, CONTROLLER)}


@pytest.fixture
async def bus(enrolled: tuple[Guarded, dict[Identity, OwnFiles]]) -> AsyncIterator[Guarded]:
    guarded, _ = enrolled
    await guarded.start()
    yield guarded
    await guarded.end()


@pytest.fixture
def certificates(enrolled: tuple[Guarded, dict[Identity, OwnFiles]]) -> dict[Identity, OwnFiles]:
    return enrolled[1]


async def heard(queue: asyncio.Queue[Any]) -> Any:
    return await asyncio.wait_for(queue.get(), 10)


async def test_who_may_publish_what(bus: Guarded, certificates: dict[Identity, OwnFiles]) -> None:
    wrong = []
    for who in (HOST1, CONTROLLER):
        async with voice(bus, certificates[who]) as client:
            for subject, allowed in ((s, a) for w, s, a in PUBLISHES if w == who):
                if await client.publishes(subject) is not allowed:
                    wrong.append((who.name, subject, allowed))
    assert wrong == []


async def test_who_may_subscribe_to_what(bus: Guarded, certificates: dict[Identity, OwnFiles]) -> None:
    wrong = []
    for who in (HOST1, CONTROLLER):
        async with voice(bus, certificates[who]) as client:
            for pattern, allowed in ((p, a) for w, p, a in SUBSCRIBES if w == who):
                if await client.subscribes(pattern) is not allowed:
                    wrong.append((who.name, pattern, allowed))
    assert wrong == []


async def test_a_call_its_heartbeats_and_its_answer(bus: Guarded, certificates: dict[Identity, OwnFiles]) -> None:
    calls: asyncio.Queue[Any] = asyncio.Queue()
    for asker in (HOST1, CONTROLLER):
        answers: asyncio.Queue[Any] = asyncio.Queue()
        inbox = f"_INBOX.{asker.bus_token}.process.request.host2"
        async with voice(bus, certificates[HOST2]) as host2, voice(bus, certificates[asker]) as client:
            assert await host2.subscribes("sterna.agent.host2.call.*", calls)
            assert await client.subscribes(inbox, answers)
            assert await client.publishes(f"sterna.agent.host2.call.{asker.bus_token}", b"?", inbox)
            assert (await heard(calls)).subject.rpartition(".")[2] == asker.bus_token
            for word in (b"heartbeat", b"heartbeat", b"result"):
                assert await host2.publishes(inbox, word)
            assert [(await heard(answers)).data for _ in range(3)] == [b"heartbeat", b"heartbeat", b"result"]
            assert not await host2.publishes(f"_INBOX.{asker.bus_token}.process.request.host1")


async def test_a_subject_with_wildcards_reaches_no_more(
    bus: Guarded, certificates: dict[Identity, OwnFiles]
) -> None:
    """nats-server takes messages to such a subject. It means these letters, and no other subject."""
    answers: asyncio.Queue[Any] = asyncio.Queue()
    async with voice(bus, certificates[HOST1]) as host1, voice(bus, certificates[HOST2]) as host2:
        assert await host1.subscribes("_INBOX.host1.process.*.*", answers)
        for subject in ("sterna.agent.host1.call.*", "sterna.agent.host1.>", "_INBOX.host1.process.request.*", ">"):
            assert not await host2.publishes(subject), subject
        for subject in ("_INBOX.host1.*.request.host2", "_INBOX.*.process.request.host2"):
            assert await host2.publishes(subject), subject
        assert await host2.publishes("_INBOX.host1.process.request.host2", b"true")
        assert (await heard(answers)).data == b"true"


async def test_a_beacon_reaches_the_others(bus: Guarded, certificates: dict[Identity, OwnFiles]) -> None:
    beacons: asyncio.Queue[Any] = asyncio.Queue()
    async with voice(bus, certificates[HOST1]) as host1, voice(bus, certificates[CONTROLLER]) as controller:
        assert await controller.subscribes("sterna.event.host.*", beacons)
        assert await host1.publishes("sterna.event.host.host1")
        assert (await heard(beacons)).subject == "sterna.event.host.host1"


async def test_nobody_hears_what_was_refused(bus: Guarded, certificates: dict[Identity, OwnFiles]) -> None:
    """host2 speaks as the controller, calls as host1, and beacons as host1: the real ones come through alone."""
    calls: asyncio.Queue[Any] = asyncio.Queue()
    async with (
        voice(bus, certificates[HOST1]) as host1,
        voice(bus, certificates[HOST2]) as host2,
        voice(bus, certificates[CONTROLLER]) as controller,
    ):
        assert await host1.subscribes("sterna.agent.host1.call.*", calls)
        assert await host1.subscribes("sterna.event.host.*", calls)
        for lie in ("agent.host1.call.@controller", "agent.host1.call.host1", "event.host.host1"):
            assert not await host2.publishes(f"sterna.{lie}", b"lie")
        assert await controller.publishes("sterna.agent.host1.call.@controller", b"true")
        assert (await heard(calls)).data == b"true"
        assert calls.empty()


async def test_a_chosen_reply_subject_gives_no_right(bus: Guarded, certificates: dict[Identity, OwnFiles]) -> None:
    """host2 asks itself, wherever it may send and listen, and names what it would like to say as the reply."""
    calls: asyncio.Queue[Any] = asyncio.Queue()
    received: asyncio.Queue[Any] = asyncio.Queue()
    async with (
        voice(bus, certificates[HOST1]) as host1,
        voice(bus, certificates[HOST2]) as host2,
        voice(bus, certificates[CONTROLLER]) as controller,
    ):
        for pattern in ("sterna.agent.host1.call.*", "sterna.agent.host1.cast.*", "_INBOX.host1.>"):
            assert await host1.subscribes(pattern, received)
        for pattern in ("sterna.event.host.*", "sterna.event.journal.*", "_INBOX.@controller.>"):
            assert await controller.subscribes(pattern, received)
        for pattern in ("sterna.agent.host2.call.*", "sterna.agent.host2.cast.*", "sterna.event.host.*"):
            assert await host2.subscribes(pattern, calls)
        assert await host2.subscribes("_INBOX.host2.>", calls)
        for own in OWN_LOOPS:
            for lie in NAMED_AS_REPLY:
                assert await host2.publishes(own, b"", lie)
                assert (await heard(calls)).reply == lie
                assert not await host2.publishes(lie, b"lie"), (own, lie)
        assert await controller.publishes("sterna.agent.host1.call.@controller", b"true")
        while (message := await heard(received)).data != b"true":
            assert message.subject == "sterna.event.host.host2"


async def test_a_stranger_is_not_let_in(bus: Guarded, tmp_path: Path) -> None:
    stranger = Guarded(tmp_path / "stranger")
    for own in (None, stranger.enrol(HOST1), stranger.enrol(CONTROLLER)):
        with pytest.raises(REFUSED):
            async with voice(bus, own):
                pass


async def test_a_server_of_the_bus_is_no_client(bus: Guarded) -> None:
    with pytest.raises(REFUSED, match=r"(?i)authorization violation"):
        async with voice(bus, bus.server_files):
            pass
    assert bus.server_files.name() == SERVER.name


async def test_the_certificate_before_the_last_enrolment_is_refused(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path / "fleet")
    earlier = guarded.enrol(HOST1)
    pair = earlier.certificate_file.resolve().parent
    guarded.authority.remove(HOST1)
    present = guarded.enrol(HOST1)
    await guarded.start()
    try:
        async with voice(guarded, present) as host1:
            assert await host1.publishes("sterna.event.host.host1")

        class Earlier(OwnFiles):
            certificate_file = pair / "own.crt"
            key_file = pair / "own.key"

        with pytest.raises(REFUSED, match=r"(?i)authorization violation"):
            async with voice(guarded, Earlier(tmp_path)):
                pass
    finally:
        await guarded.end()


async def test_a_removed_host_is_thrown_out_and_the_others_stay(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path / "fleet")
    certificates = {who: guarded.enrol(who) for who in (HOST1, HOST2, CONTROLLER)}
    await guarded.start()
    assert guarded.process is not None
    reload = ("kill", "-HUP", str(guarded.process.pid))
    listen, folder = f"127.0.0.1:{guarded.port}", guarded.server_files.certificate_file.parents[1]
    settings = BusServerSettings(config_file=guarded.config, listen=listen, folder=folder, reload=reload)
    try:
        async with voice(guarded, certificates[HOST1]) as host1, voice(guarded, certificates[HOST2]) as host2:
            guarded.authority.remove(HOST1)
            BusServerFile(settings, guarded.authority).look()
            async with asyncio.timeout(10):
                while not host1.client.is_closed:  # noqa: ASYNC110 - another process closes it
                    await asyncio.sleep(0.02)
            assert await host2.publishes("sterna.event.host.host2")
        with pytest.raises(REFUSED, match=r"(?i)authorization violation"):
            async with voice(guarded, certificates[HOST1]):
                pass
    finally:
        await guarded.end()


@pytest.mark.parametrize("name", ["x" * 63, "Host_1-a", "controller", "7"])
async def test_every_name_that_a_host_may_have(name: str, tmp_path: Path) -> None:
    guarded, who = Guarded(tmp_path / "fleet"), identity(Kind.AGENT, name)
    own = guarded.enrol(who)
    await guarded.start()
    try:
        async with voice(guarded, own) as host:
            assert await host.publishes(f"sterna.event.host.{name}")
            assert await host.subscribes(f"_INBOX.{name}.>")
            assert not await host.publishes("sterna.agent.host2.call.@controller")
    finally:
        await guarded.end()


async def test_a_renewed_certificate_is_the_same_user(
    enrolled: tuple[Guarded, dict[Identity, OwnFiles]], bus: Guarded
) -> None:
    own = enrolled[1][HOST2]
    renewal = own.renewal()
    serial = next(m for m in bus.authority.register().members if m.identity == HOST2).certificates[0].serial
    made = bus.authority.renew(serial, renewal.request)
    answer = JoinAnswer(certificate=made.pem.decode(), ca=bus.authority.pem.decode())
    own.accept(answer, "host2", bus.authority.fingerprint, SystemClock().now())
    async with voice(bus, own) as host2:  # the server has read nothing again
        assert await host2.publishes("sterna.event.host.host2")


async def test_another_ca_with_names_of_its_own(tmp_path: Path) -> None:
    """As `sterna bus config --host host1=...` writes it: the DNS name in the certificate is the user."""
    guarded = Guarded(tmp_path / "fleet")
    host1, host2 = guarded.enrol(HOST1), guarded.enrol(HOST2)
    guarded.users = [(HOST1, HOST1.dns_name)]
    await guarded.start()
    try:
        async with voice(guarded, host1) as client:
            assert await client.publishes("sterna.event.host.host1")
        with pytest.raises(REFUSED, match=r"(?i)authorization violation"):
            async with voice(guarded, host2):
                pass
    finally:
        await guarded.end()
