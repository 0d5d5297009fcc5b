"""`[metrics]` of the settings: where metrics are served, and to whom."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx2
import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from sterna.adapters.identity.authority import Authority
from sterna.bootstrap import metrics as subject
from sterna.bootstrap.metrics import MetricsServer
from sterna.config.bus import IdentitySettings
from sterna.config.metrics import MetricsSettings
from sterna.domain.errors import BadRequest
from sterna.kit.digests import digest_of
from tests.unit.adapters.identities import HOST1, join

TOKEN = "a-token-of-thirty-two-characters"
NONE = IdentitySettings()


class Fixed:
    """One text."""

    async def text(self) -> bytes:
        return b"sterna_bus_connected 1.0\n"


def free_port(family: socket.AddressFamily = socket.AF_INET) -> int:
    with socket.socket(family) as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


@asynccontextmanager
async def serving(server: MetricsServer) -> AsyncIterator[None]:
    task = asyncio.create_task(server.run(Fixed()))
    await asyncio.sleep(0)
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def reached(port: int, use: Callable[[], httpx2.AsyncClient]) -> int:
    """The answer's status; 0 where the connection is refused by TLS."""
    async with use() as http:
        try:
            return (
                await http.get(f"http{'s' if http.headers.get('tls') else ''}://127.0.0.1:{port}/metrics")
            ).status_code
        except httpx2.TransportError:
            return 0


async def test_nowhere_by_default() -> None:
    async with asyncio.timeout(5):
        await MetricsServer(MetricsSettings(), NONE).run(Fixed())


async def test_on_loopback_any_user_of_the_machine_may_read() -> None:
    port = free_port()
    async with serving(MetricsServer(MetricsSettings(listen=f"127.0.0.1:{port}"), NONE)):
        assert await reached(port, httpx2.AsyncClient) == 200


@pytest.mark.parametrize(
    ("listen", "why"),
    [
        ("9177", "no port"),
        ("127.0.0.1:0", "no port"),
        ("127.0.0.1:65536", "no port"),
        ("localhost:9177", "not an IP address"),
        ("::1:9177", "in brackets"),
        ("0.0.0.0:9177", "anyone who can reach"),
        ("[::]:9177", "anyone who can reach"),
    ],
)
def test_a_place_that_cannot_be(listen: str, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        MetricsSettings(listen=listen)


def test_an_address_that_others_reach_needs_tls_or_the_operators_word() -> None:
    with pytest.raises(BadRequest, match="without TLS"):
        MetricsServer(MetricsSettings(listen="0.0.0.0:9177", token_sha256=digest_of(TOKEN)), NONE)
    MetricsServer(MetricsSettings(listen="0.0.0.0:9177", insecure=True), NONE)
    with pytest.raises(BadRequest, match="needs a certificate"):
        MetricsServer(MetricsSettings(listen="127.0.0.1:9177", client_ca_file=Path("/ca.crt")), NONE)
    with pytest.raises(BadRequest, match=r"cannot be set up with /none\.crt"):
        MetricsServer(MetricsSettings(listen="127.0.0.1:9177", cert_file=Path("/none.crt")), NONE)


async def test_insecure_says_so_in_the_log() -> None:
    port = free_port()
    with capture_logs() as logs:
        async with serving(MetricsServer(MetricsSettings(listen=f"0.0.0.0:{port}", insecure=True), NONE)):
            assert await reached(port, httpx2.AsyncClient) == 200
    assert any(line["event"].startswith("INSECURE") for line in logs)


async def test_with_the_hosts_own_certificate_and_one_of_the_client(tmp_path: Path) -> None:
    authority = Authority.make(tmp_path / "ca", ["sterna"])
    own = join(authority, HOST1, tmp_path / "host1")
    port = free_port()
    settings = MetricsSettings(listen=f"127.0.0.1:{port}", client_ca_file=own.ca_file)
    server = MetricsServer(settings, IdentitySettings(enrol="sterna", folder=tmp_path / "host1"))

    def client(*, with_certificate: bool) -> httpx2.AsyncClient:
        tls = ssl.create_default_context(cafile=str(own.ca_file))
        if with_certificate:
            tls.load_cert_chain(own.certificate_file, own.key_file)
        return httpx2.AsyncClient(verify=tls, headers={"tls": "yes"})

    async with serving(server):
        assert await reached(port, lambda: client(with_certificate=False)) == 0
        assert await reached(port, lambda: client(with_certificate=True)) == 200
        server.read_again()
        assert await reached(port, lambda: client(with_certificate=True)) == 200


async def test_a_port_that_is_taken_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "AGAIN_S", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as taken, capture_logs() as logs:
        port = taken.getsockname()[1]
        server = MetricsServer(MetricsSettings(listen=f"127.0.0.1:{port}"), NONE)
        async with serving(server), asyncio.timeout(10):
            assert len(logs) == 1
            taken.close()
            while await reached(port, httpx2.AsyncClient) != 200:
                pass
    assert logs[0]["event"] == "metrics are not served yet; retrying" and logs[0]["fix"]
