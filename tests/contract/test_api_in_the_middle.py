"""Somebody between a command, or a host that joins, and the API: no token and no secret reaches them."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from sterna.adapters.identity.authority import Authority
from sterna.adapters.identity.https_desk import HttpsDesk
from sterna.adapters.identity.own import OwnFiles
from sterna.cli.api_address import ApiAddress
from sterna.cli.client import ApiAway, Client
from sterna.domain.errors import BadRequest, SternaError
from sterna.domain.trust.identities import Identity, Kind
from sterna.domain.trust.joining import JoinRequest, RenewalRequest
from tests.contract.middleman import Heard, showing, web_server
from tests.unit.adapters.identities import HOST2, issue, join

CONTROLLER = Identity(kind=Kind.CONTROLLER, name="c1")
BUS = Identity(kind=Kind.BUS, name="n1")
TOKEN = "sterna-token-that-nobody-may-read"
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path / "ca", ["sterna"])


@pytest.fixture
def ca_file(authority: Authority, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    path.write_bytes(authority.pem)
    return path


def another(tmp_path: Path) -> tuple[Path, Path]:
    """A controller's certificate of another CA."""
    return issue(Authority.make(tmp_path / "other-ca", ["sterna"]), CONTROLLER, tmp_path, "127.0.0.1")


async def asked(heard: Heard, ca_file: Path, *, name: str = "127.0.0.1") -> str:
    """What a command says after it asked there."""
    client = Client.of(ApiAddress(f"https://{name}:{heard.port}", TOKEN, str(ca_file)))
    with pytest.raises(ApiAway) as caught:
        await asyncio.to_thread(client.get, "/v1/hosts")
    await heard.came.wait()
    return str(caught.value)


async def test_a_command_says_nothing_to_an_api_without_tls(ca_file: Path) -> None:
    async with web_server(OK) as heard:
        why = await asked(heard, ca_file)
    assert TOKEN.encode() not in heard.plain and b"GET" not in heard.plain
    assert "does not offer TLS" in why


async def test_nor_to_one_with_another_cas_certificate(ca_file: Path, tmp_path: Path) -> None:
    async with web_server(OK, showing(*another(tmp_path))) as heard:
        why = await asked(heard, ca_file)
    assert heard.inside == b"" and "certificate verify failed" in why


async def test_nor_to_one_of_the_right_ca_with_another_name(
    authority: Authority, ca_file: Path, tmp_path: Path
) -> None:
    async with web_server(OK, showing(*issue(authority, CONTROLLER, tmp_path, "127.0.0.1"))) as heard:
        why = await asked(heard, ca_file, name="localhost")
    assert heard.inside == b"" and "mismatch" in why.lower()


async def test_nor_is_a_command_led_elsewhere(authority: Authority, ca_file: Path, tmp_path: Path) -> None:
    """By the true API, or by whoever has its key: an answer that sends it on is not followed."""
    async with web_server(OK) as elsewhere:
        moved = f"HTTP/1.1 307 Moved\r\nlocation: http://{elsewhere.url}/v1/hosts\r\ncontent-length: 0\r\n\r\n"
        tls = showing(*issue(authority, CONTROLLER, tmp_path, "127.0.0.1"))
        async with web_server(moved.encode(), tls) as heard:
            await asked(heard, ca_file)
        assert TOKEN.encode() in heard.inside
        assert elsewhere.connections == 0


REQUEST = JoinRequest(host="host1", secret="5ec4e7" * 5, request="x")
RENEWAL = RenewalRequest(certificate="c", request="r", signature="the signature")


async def joined(heard: Heard, ca: str) -> list[str]:
    """What a host says after it asked there for its first certificate, and for the next one."""
    desk, said = HttpsDesk(f"https://127.0.0.1:{heard.port}"), []
    for ask in (desk.join(REQUEST, ca), desk.renew(RENEWAL, ca)):
        with pytest.raises(SternaError) as caught:
            await ask
        said.append(caught.value.message)
    await heard.came.wait()
    return said


async def test_a_host_that_joins_says_nothing_without_tls(authority: Authority) -> None:
    async with web_server(OK) as heard:
        said = await joined(heard, authority.pem.decode())
    assert b"POST" not in heard.plain and REQUEST.secret.encode() not in heard.plain
    assert all("does not offer TLS" in why for why in said)


@pytest.mark.parametrize("who", ["another CA's controller", "a server of the bus", "a host"])
async def test_nor_to_anybody_but_a_controller_of_its_ca(authority: Authority, tmp_path: Path, who: str) -> None:
    match who:
        case "another CA's controller":
            shown = another(tmp_path)
        case "a server of the bus":
            shown = issue(authority, BUS, tmp_path, "127.0.0.1")
        case _:
            shown = _host(authority, tmp_path)
    async with web_server(OK, showing(*shown)) as heard:
        said = await joined(heard, authority.pem.decode())
    assert heard.inside == b""
    assert all("does not prove to be a controller" in why for why in said)


def _host(authority: Authority, tmp_path: Path) -> tuple[Path, Path]:
    own: OwnFiles = join(authority, HOST2, tmp_path / "host2")
    return own.certificate_file, own.key_file


def test_a_host_joins_over_https_only() -> None:
    with pytest.raises(BadRequest, match="is not the address of a controller"):
        HttpsDesk("http://10.0.0.1:8774")


async def test_who_is_whom_they_should_be_is_asked(authority: Authority, ca_file: Path, tmp_path: Path) -> None:
    """The listeners above would notice what is sent."""
    tls: ssl.SSLContext = showing(*issue(authority, CONTROLLER, tmp_path, "127.0.0.1"))
    async with web_server(OK, tls) as heard:
        client = Client.of(ApiAddress(f"https://127.0.0.1:{heard.port}", TOKEN, str(ca_file)))
        assert await asyncio.to_thread(client.get, "/v1/hosts") == {}
        await heard.came.wait()
    assert f"Bearer {TOKEN}".encode() in heard.inside
