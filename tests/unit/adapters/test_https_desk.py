"""Joining over HTTPS: the CA is compared first, and the secret goes to a controller of that CA only."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import uvicorn

from sterna.adapters.identity.authority import Authority
from sterna.adapters.identity.desk import LocalDesk
from sterna.adapters.identity.https_desk import HttpsDesk
from sterna.adapters.identity.own import OwnFiles
from sterna.adapters.identity.x509 import fingerprint, read_certificates
from sterna.api.app import create_app
from sterna.controller.controller import Controller
from sterna.domain.errors import BadRequest, Conflict, Unreachable
from sterna.domain.trust.identities import Identity, Kind
from sterna.domain.trust.joining import JoinAnswer, JoinRequest, RenewalRequest
from sterna.joining import Renewal, join
from tests.unit.adapters.identities import HOST1, HOST2, Calendar, issue
from tests.unit.adapters.identities import join as joined
from tests.unit.controller.conftest import World, world  # noqa: F401 - a fixture

CONTROLLER = Identity(kind=Kind.CONTROLLER, name="c1")


def fingerprint_of(pem: str) -> str:
    return fingerprint(read_certificates(pem, "it")[0])


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path / "ca", ["sterna"])


class Desk(LocalDesk):
    """Notes who got so far as to ask."""

    secrets: list[str]

    def __init__(self, authority: Authority) -> None:
        super().__init__(authority)
        self.secrets = []

    async def join(self, request: JoinRequest, ca: str) -> JoinAnswer:
        self.secrets.append(request.secret)
        return await super().join(request, ca)


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/controller.db"


Served = Callable[[LocalDesk, Path, Path], AbstractAsyncContextManager[str]]


@pytest.fixture
def served(world: World) -> Served:  # noqa: F811
    """A controller with that desk, which shows that certificate."""
    return lambda desk, certificate, key: serving(world.controller, desk, certificate, key)


@asynccontextmanager
async def serving(controller: Controller, desk: LocalDesk, certificate: Path, key: Path) -> AsyncIterator[str]:
    app = create_app(controller, desk=desk)
    settings = uvicorn.Config(
        app, host="127.0.0.1", port=0, ssl_certfile=certificate, ssl_keyfile=key, log_config=None, lifespan="off"
    )
    server = uvicorn.Server(settings)
    running = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(30):
            while not server.started:  # noqa: ASYNC110 - nothing else tells
                await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"https://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await running


async def test_a_host_joins_and_renews(served: Served, authority: Authority, tmp_path: Path) -> None:
    desk, own, calendar = Desk(authority), OwnFiles(tmp_path / "host"), Calendar()
    async with served(desk, *issue(authority, CONTROLLER, tmp_path)) as url:
        token = authority.invite(HOST1, ["127.0.0.1"])
        await join(token, HttpsDesk(url), own, calendar, fingerprint_of)
        before = own.certificate_file.read_bytes()
        calendar.at += timedelta(days=61)
        assert await Renewal(HttpsDesk(url), own, calendar, lambda: None).look() is True
    assert own.name() == "host1"
    assert own.certificate_file.read_bytes() != before


async def test_the_secret_goes_to_no_other_ca(served: Served, authority: Authority, tmp_path: Path) -> None:
    stranger = Authority.make(tmp_path / "stranger", ["sterna"])
    desk = Desk(stranger)
    token = authority.invite(HOST1, [])
    async with served(desk, *issue(stranger, CONTROLLER, tmp_path)) as url:
        with pytest.raises(BadRequest, match="nothing was sent"):
            await join(token, HttpsDesk(url), OwnFiles(tmp_path / "host"), Calendar(), fingerprint_of)
    assert desk.secrets == []


async def test_the_secret_goes_to_no_ca_that_comes_behind_the_right_one(
    served: Served, authority: Authority, tmp_path: Path
) -> None:
    """The fingerprint is that of the first certificate; TLS would trust all that come with it."""
    stranger = Authority.make(tmp_path / "stranger", ["sterna"])
    both = authority.pem.decode() + stranger.pem.decode()

    class Behind(Desk):
        async def ca(self) -> str:
            return both

    desk = Behind(stranger)
    token = authority.invite(HOST1, [])
    async with served(desk, *issue(stranger, CONTROLLER, tmp_path)) as url:
        with pytest.raises(BadRequest, match="2 certificates") as caught:
            await join(token, HttpsDesk(url), OwnFiles(tmp_path / "host"), Calendar(), fingerprint_of)
    assert desk.secrets == [] and caught.value.fix


async def test_the_secret_goes_to_no_host_that_poses_as_a_controller(
    served: Served, authority: Authority, tmp_path: Path
) -> None:
    """Its certificate is of the right CA, which is public: it can say the right CA's certificate as well."""
    desk = Desk(authority)
    token = authority.invite(HOST1, [])
    other = joined(authority, HOST2, tmp_path / "other")
    async with served(desk, other.certificate_file, other.key_file) as url:
        with pytest.raises(BadRequest, match="does not prove to be a controller"):
            await join(token, HttpsDesk(url), OwnFiles(tmp_path / "host"), Calendar(), fingerprint_of)
    assert desk.secrets == []


async def test_a_refusal_arrives_with_its_reason_and_fix(
    served: Served, authority: Authority, tmp_path: Path
) -> None:
    async with served(Desk(authority), *issue(authority, CONTROLLER, tmp_path)) as url:
        request = JoinRequest(host="host1", secret="0" * 32, request=OwnFiles(tmp_path / "h").request("host1"))
        with pytest.raises(Conflict, match="not valid") as caught:
            await HttpsDesk(url).join(request, authority.pem.decode())
        assert "sterna host add host1" in caught.value.fix
        nonsense = RenewalRequest(certificate="x", request="y", signature="z")
        with pytest.raises(BadRequest, match="no certificate"):
            await HttpsDesk(url).renew(nonsense, authority.pem.decode())


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", "no JSON"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", "no certificate"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]", "no JSON object"),
        (b"HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\n{}", "status 500"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2**20, "too long"),
    ],
)
async def test_something_else_that_answers(authority: Authority, tmp_path: Path, answer: bytes, said: str) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(*issue(authority, CONTROLLER, tmp_path))
    server = await asyncio.start_server(babble, "127.0.0.1", 0, ssl=tls)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    with pytest.raises(BadRequest, match=said) as caught:
        await HttpsDesk(url).ca()
    assert caught.value.fix
    server.close()


async def test_nobody_answers() -> None:
    with pytest.raises(Unreachable) as caught:
        await HttpsDesk("https://127.0.0.1:1").ca()
    assert "sterna agent request" in caught.value.fix


@pytest.mark.parametrize(
    "server",
    [
        "",
        "10.0.0.1",
        "http://10.0.0.1",
        "https://",
        "https://a:b@c",
        "https://c/path",
        "https://c:x",
        "https://c?q",
        "https://[::1",
        "https://[x]:1",
    ],
)
def test_what_is_no_address(server: str) -> None:
    with pytest.raises(BadRequest, match="not the address of a controller"):
        HttpsDesk(server)
