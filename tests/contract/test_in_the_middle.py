"""Somebody between an agent (or a controller, or a command) and its server offers no TLS, or another's certificate.

Nothing is said to them: no user, no password, no subject, no token. The error says what is wrong.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pydantic import SecretStr

from sterna.adapters.identity.own import OwnFiles
from sterna.adapters.nats.bus import NatsBus
from sterna.bootstrap.process import join_bus
from sterna.config.bus import BusSettings, BusTls, IdentitySettings
from sterna.domain.errors import Unreachable
from sterna.domain.trust.identities import Identity, Kind
from sterna.ports.bus import Incoming
from sterna.rpc.envelope import Request, encode
from tests.contract.guarded import Guarded
from tests.contract.middleman import Heard, bus_with, bus_without_tls, injecting, stripping
from tests.narrowing import not_none
from tests.rights import CONTROLLER, HOST1, HOST2

OTHER_BUS = Identity(kind=Kind.BUS, name="n2")
SECRET = "a-password-that-nobody-may-read"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Guarded:
    guarded = Guarded(tmp_path_factory.mktemp("fleet"))
    for who in (HOST1, HOST2, CONTROLLER):
        guarded.enrol(who)
    return guarded


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Guarded:
    """Another CA, with a server of the bus of the very same name."""
    return Guarded(tmp_path_factory.mktemp("strangers"))


@asynccontextmanager
async def joining(
    fleet: Guarded, heard: Heard, who: Identity = HOST1, *, scheme: str = "nats", password: bool = True
) -> AsyncIterator[NatsBus]:
    """As `bootstrap` joins the bus."""
    identity = IdentitySettings(enrol="sterna", folder=fleet.folder / f"{who.kind}-{who.name}")
    secret = {"user": "agent", "password": SecretStr(SECRET)} if password else {}
    settings = BusSettings.model_validate({"url": f"{scheme}://{heard.url}"} | secret)
    bus = await join_bus(settings, who.name, who.bus_token, identity)
    try:
        yield bus
    finally:
        await bus.close()


async def refused(bus: NatsBus) -> str:
    """Why it could not be joined; nothing can be sent."""
    assert not bus.connected
    with pytest.raises(Unreachable):
        await bus.publish("sterna.event.host.host1", b"a beacon")
    with pytest.raises(Unreachable):
        async with bus.request("sterna.agent.host2.call.host1", b"a call"):
            pass
    return bus.state().why


@pytest.mark.parametrize("scheme", ["nats", "tls"])
@pytest.mark.parametrize("who", [HOST1, CONTROLLER], ids=["agent", "controller"])
async def test_a_bus_without_tls_is_told_nothing(fleet: Guarded, who: Identity, scheme: str) -> None:
    async with bus_without_tls(auth_required=True) as heard, joining(fleet, heard, who, scheme=scheme) as bus:
        why = await refused(bus)
        await heard.came.wait()
    assert heard.plain == b"" and heard.connections > 0
    assert "does not offer TLS" in why


async def test_nor_is_one_that_takes_the_word_tls_from_the_real_ones_mouth(fleet: Guarded) -> None:
    await fleet.start()
    try:
        async with stripping(fleet.port) as heard, joining(fleet, heard) as bus:
            why = await refused(bus)
            await heard.came.wait()
    finally:
        await fleet.end()
    assert heard.plain == b"" and "does not offer TLS" in why


async def test_nor_without_a_certificate_of_our_own(fleet: Guarded) -> None:
    """`[bus.tls] ca_file` alone, and a password: the bus of others."""
    tls = BusTls(ca_file=fleet.folder / "agent-host1" / "current" / "ca.crt")
    async with bus_without_tls(auth_required=True) as heard:
        settings = BusSettings(url=f"nats://{heard.url}", user="agent", password=SecretStr(SECRET), tls=tls)
        bus = await join_bus(settings, "host1", "host1", IdentitySettings())
        why = await refused(bus)
        await heard.came.wait()
        await bus.close()
    assert heard.plain == b"" and "does not offer TLS" in why


async def test_an_address_that_begins_with_tls_asks_for_it(fleet: Guarded) -> None:
    """Without `[bus.tls]` the system's CAs count."""
    async with bus_without_tls(auth_required=True) as heard:
        settings = BusSettings(url=f"tls://{heard.url}", user="agent", password=SecretStr(SECRET))
        bus = await join_bus(settings, "host1", "host1", IdentitySettings())
        why = await refused(bus)
        await heard.came.wait()
        await bus.close()
    assert heard.plain == b"" and "does not offer TLS" in why


async def test_the_certificate_of_another_ca_is_told_nothing(fleet: Guarded, strangers: Guarded) -> None:
    shown = strangers.server_files
    async with bus_with(shown.certificate_file, shown.key_file) as heard, joining(fleet, heard) as bus:
        why = await refused(bus)
        await heard.came.wait()
    assert (heard.plain, heard.inside) == (b"", b"")
    assert "certificate verify failed" in why.lower().replace("_", " ")


@pytest.mark.parametrize("who", [HOST2, CONTROLLER], ids=["a host", "a controller"])
async def test_the_right_ca_with_another_name_is_told_nothing(fleet: Guarded, who: Identity) -> None:
    """Every host has a certificate with which it could serve."""
    shown = OwnFiles(fleet.folder / f"{who.kind}-{who.name}")
    async with bus_with(shown.certificate_file, shown.key_file) as heard, joining(fleet, heard) as bus:
        why = await refused(bus)
        await heard.came.wait()
    assert (heard.plain, heard.inside) == (b"", b"")
    assert "bus.sterna" in why and "mismatch" in why.lower()


async def test_what_is_said_before_tls_is_not_taken_for_the_servers_word(fleet: Guarded) -> None:
    """In the name of a controller, behind INFO: an answer to our PING, and calls for whatever is subscribed to."""
    call = encode(Request(kind="call", id="forged", method="list_vms", sender="@controller"))
    words = b"PONG\r\n"
    for sid in range(1, 6):
        words += b"MSG sterna.agent.host1.call.@controller %d %d\r\n%b\r\n" % (sid, len(call), call)
    got: asyncio.Queue[bytes] = asyncio.Queue()

    async def take(incoming: Incoming) -> None:
        got.put_nowait(incoming.payload)

    await fleet.start()
    try:
        async with (
            injecting(fleet.port, words) as heard,
            joining(fleet, heard, password=False) as bus,
            joining(fleet, _at(fleet.port), CONTROLLER, password=False) as controller,
        ):
            async with asyncio.timeout(20):
                await bus.subscribe("sterna.agent.host1.call.*", take)
                await bus.wait_connected()
                await controller.wait_connected()
                await controller.publish("sterna.agent.host1.call.@controller", b"the true one")
                assert await got.get() == b"the true one"
            assert got.empty()
            assert not_none(bus._client)._received() == 1
    finally:
        await fleet.end()


def _at(port: int) -> Heard:
    return Heard(port=port)


async def test_addresses_from_the_middle_are_no_way_around_tls(fleet: Guarded) -> None:
    """INFO may name other servers of the bus: they must prove the same."""
    async with bus_without_tls(auth_required=True) as second:
        async with (
            bus_without_tls(auth_required=True, connect_urls=[second.url]) as first,
            joining(fleet, first) as bus,
        ):
            await refused(bus)
            await first.came.wait()
        assert first.plain == second.plain == b""


def test_what_is_sent_where_nobody_is_in_the_middle(fleet: Guarded) -> None:
    """The listeners above would notice: without TLS in the settings the very same client says all of it."""

    async def inside() -> bytes:
        async with bus_without_tls(auth_required=True) as heard:
            settings = BusSettings(url=f"nats://{heard.url}", user="agent", password=SecretStr(SECRET))
            bus = await join_bus(settings, "host1", "host1", IdentitySettings())
            await bus.close()
            await heard.came.wait()
            return heard.plain

    said = asyncio.run(inside())
    assert json.loads(said.split(b"\r\n")[0].removeprefix(b"CONNECT "))["pass"] == SECRET
