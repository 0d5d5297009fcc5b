"""TLS with the certificates libvirt would use: both hosts trust each other, or it is said why not."""

from __future__ import annotations

import asyncio
import ssl
import threading
from pathlib import Path

import pytest

from sterna.adapters.identity.authority import Authority
from sterna.adapters.libvirt.qemu import handshake
from sterna.adapters.libvirt.qemu.certificates import Certificates, of_migration
from sterna.adapters.libvirt.qemu.handshake import TlsHandshake
from sterna.domain.errors import Permanent, Temporary, Unreachable
from sterna.domain.trust.identities import Identity, Kind
from sterna.lab.credentials import link_certificates

from .conftest import NAME, Resolver
from .identities import join

HERE = "127.0.0.1"
LISTENING = "0A"


def host(folder: Path, verify: str = "") -> Path:
    """A qemu.conf whose certificates lie beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    conf = folder / "qemu.conf"
    conf.write_text(f'# a comment\n  migrate_tls_x509_cert_dir = "{folder}/pki"\n{verify}\n')
    return conf


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two hosts of one authority, and a stranger of another."""
    root = tmp_path_factory.mktemp("pki")
    found = {name: host(root / group / name) for group, name in (("x", "a"), ("x", "b"), ("y", "c"))}
    for group, names in (("x", ("a", "b")), ("y", ("c",))):
        authority = Authority.make(root / group / "ca", ["sterna"])
        for name in names:
            join(authority, Identity(kind=Kind.AGENT, name=name), root / group / name / "identity")
            link_certificates(root / group / name / "pki", root / group / name / "identity")
    return found


async def test_two_hosts_of_one_authority_trust_each_other(places: dict[str, Path]) -> None:
    port = await TlsHandshake(HERE, places["b"]).expect()
    assert await TlsHandshake(HERE, places["a"]).shake(HERE, port) is None


@pytest.mark.parametrize(("source", "destination"), [("a", "c"), ("c", "a")])
async def test_a_stranger_is_refused_with_the_reason(
    places: dict[str, Path], source: str, destination: str
) -> None:
    port = await TlsHandshake(HERE, places[destination]).expect()
    refused = await TlsHandshake(HERE, places[source]).shake(HERE, port)
    assert refused is not None and refused.code == "tls-handshake"
    assert "certificate" in refused.message and refused.fix


async def test_a_certificate_for_another_address_is_refused(places: dict[str, Path]) -> None:
    port = await TlsHandshake("127.0.0.5", places["b"]).expect()
    refused = await TlsHandshake(HERE, places["a"]).shake("127.0.0.5", port)
    assert refused is not None and "127.0.0.5" in refused.message


async def test_nobody_there_and_no_certificates(places: dict[str, Path], tmp_path: Path) -> None:
    refused = await TlsHandshake(HERE, places["a"]).shake(HERE, 1)
    assert refused is not None
    without = TlsHandshake(HERE, host(tmp_path))
    with pytest.raises(Permanent, match=r"server-key\.pem"):
        await without.expect()
    refused = await without.shake(HERE, 1)
    assert refused is not None and "ca-cert.pem" in refused.message


async def test_a_peer_that_takes_the_connection_and_says_nothing(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshake, "_PATIENCE_S", 0.2)
    came = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        await reader.read()  # the hello
        await reader.read()  # its end
        writer.close()

    server = await asyncio.start_server(silent, HERE, 0)
    port = server.sockets[0].getsockname()[1]
    async with asyncio.timeout(5):
        refused = await TlsHandshake(HERE, places["a"]).shake(HERE, port)
    server.close()
    assert came.is_set()
    assert refused is not None and refused.code == "tls-handshake"
    assert "no answer within 0.2 s" in refused.message


@pytest.mark.parametrize("half", ["expect", "shake"])
async def test_certificates_on_a_file_system_that_does_not_answer(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch, half: str
) -> None:
    """Neither holds up the event loop."""
    monkeypatch.setattr(handshake, "_PATIENCE_S", 0.2)
    answers, real = threading.Event(), handshake._context

    def hangs(certificates: Certificates, side: int) -> ssl.SSLContext:
        answers.wait(5)
        return real(certificates, side)

    monkeypatch.setattr(handshake, "_context", hangs)
    one = TlsHandshake(HERE, places["a"])
    with pytest.raises(Temporary, match=f"{places['a'].parent}/pki: the file system does not answer"):
        await (one.expect() if half == "expect" else one.shake(HERE, 1))
    answers.set()


@pytest.mark.parametrize("comes", [False, True])
async def test_the_listener_closes_when_nobody_comes_or_says_anything(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch, comes: bool
) -> None:
    monkeypatch.setattr(handshake, "_PATIENCE_S", 1.0)
    port = await TlsHandshake(HERE, places["b"]).expect()
    assert _listens(port)
    writers = [(await asyncio.open_connection(HERE, port))[1]] if comes else []
    async with asyncio.timeout(5):
        while _listens(port):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.05)
    for writer in writers:
        writer.close()


def _listens(port: int) -> bool:
    """As the kernel knows: to connect would be to come."""
    sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(at.endswith(f":{port:04X}") and state == LISTENING for _, at, _, state, *_ in sockets)


def test_where_libvirt_looks(tmp_path: Path) -> None:
    told = of_migration(host(tmp_path, "migrate_tls_x509_verify = 0"))
    assert (told.folder, told.verify) == (tmp_path / "pki", False)
    assert told.missing == ("ca-cert.pem", "server-cert.pem", "server-key.pem")
    common = tmp_path / "common.conf"
    common.write_text(f'default_tls_x509_cert_dir = "{tmp_path}"\n#migrate_tls_x509_cert_dir = "/nowhere"\n')
    assert of_migration(common).folder in (tmp_path, Path("/etc/pki/libvirt-migrate"))
    assert "client-key.pem" in of_migration(common).needed
    assert of_migration(tmp_path / "no.conf").verify


@pytest.mark.parametrize("refused", [True, False])
async def test_a_listener_whose_name_is_not_resolved(
    places: dict[str, Path], resolver: Resolver, refused: bool
) -> None:
    (resolver.refuses if refused else resolver.hangs)()
    with pytest.raises(Permanent if refused else Unreachable, match=f"{NAME} cannot be resolved"):
        await TlsHandshake(NAME, places["b"]).expect()
