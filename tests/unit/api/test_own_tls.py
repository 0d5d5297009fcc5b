"""A controller that is enrolled shows its own certificate: to hosts always, to others where it has no other one."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from structlog.testing import capture_logs

from sterna.adapters.identity.authority import Authority
from sterna.adapters.identity.own import OwnFiles
from sterna.adapters.identity.x509 import seen
from sterna.api.listeners import listening, own_tls, tls_of
from sterna.config import ControllerSettings
from sterna.config.access import AccessSettings
from sterna.config.bus import IdentitySettings
from sterna.domain.errors import BadRequest
from sterna.domain.trust.identities import CONTROLLER_SERVICE, Identity, Kind
from tests.unit.adapters.identities import controller, issue

PUBLIC = Identity(kind=Kind.CONTROLLER, name="public")
"""Stands for a certificate that everybody's browser knows."""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path / "ca", ["sterna"])


def enrolled(authority: Authority, folder: Path) -> IdentitySettings:
    controller(authority, folder, "127.0.0.1")
    return IdentitySettings(enrol="sterna", folder=folder)


@asynccontextmanager
async def served(tls: ssl.SSLContext) -> AsyncIterator[int]:
    server = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0, ssl=tls)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def shown(port: int, name: str | None) -> x509.Certificate:
    """The certificate that a client is shown that asks for this name."""
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=anybody, server_hostname=name or "")
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(der)


async def test_hosts_are_shown_its_own_and_others_the_one_of_the_settings(
    authority: Authority, tmp_path: Path
) -> None:
    own = own_tls(enrolled(authority, tmp_path / "own"))
    cert_file, key_file = issue(authority, PUBLIC, tmp_path)
    both = tls_of(AccessSettings(cert_file=cert_file, key_file=key_file), own)
    assert both is not None
    async with served(both) as port:
        assert "c1.controllers.sterna" in seen(await shown(port, CONTROLLER_SERVICE)).dns_names
        for name in ("sterna.example", None, "bus.sterna"):
            assert "public.controllers.sterna" in seen(await shown(port, name)).dns_names


async def test_without_another_everybody_is_shown_its_own_and_the_next_one_once_it_is_there(
    authority: Authority, tmp_path: Path
) -> None:
    identity = enrolled(authority, tmp_path / "own")
    own = own_tls(identity)
    served_with = tls_of(AccessSettings(), own)
    assert own is not None and served_with is not None
    async with served(served_with) as port:
        first = await shown(port, None)
        enrolled(authority, tmp_path / "own")
        own.read_again()
        assert (await shown(port, None)).serial_number != first.serial_number


async def test_a_certificate_without_its_key_takes_no_others_place(authority: Authority, tmp_path: Path) -> None:
    identity = enrolled(authority, tmp_path / "own")
    own = own_tls(identity)
    served_with = tls_of(AccessSettings(), own)
    assert own is not None and served_with is not None
    files = OwnFiles(identity.folder, Kind.CONTROLLER)
    async with served(served_with) as port:
        first = await shown(port, None)
        key = files.key_file.read_bytes()
        enrolled(authority, tmp_path / "own")
        files.key_file.write_bytes(key)
        with pytest.raises(BadRequest):
            own.read_again()
        for name in (None, CONTROLLER_SERVICE):
            assert (await shown(port, name)).serial_number == first.serial_number


def settings(tmp_path: Path, enrol: str, **access: object) -> ControllerSettings:
    identity = IdentitySettings.model_construct(enrol=enrol, folder=tmp_path / "own")
    section = AccessSettings.model_validate({"socket": ""} | access)
    return ControllerSettings.model_construct(listen="0.0.0.0:0", access=section, identity=identity)


def test_an_enrolled_controller_may_listen_everywhere(tmp_path: Path) -> None:
    with listening(settings(tmp_path, "sterna"), None) as (made,):
        assert made.family == socket.AF_INET
    with pytest.raises(BadRequest, match="without TLS") as caught, listening(settings(tmp_path, ""), None):
        pass
    assert "enrol this controller" in caught.value.fix


def test_no_tls_is_what_one_has_to_ask_for(authority: Authority, tmp_path: Path) -> None:
    own = own_tls(enrolled(authority, tmp_path / "own"))
    given = settings(tmp_path, "sterna", insecure=True)
    assert tls_of(given.access, own) is None
    with capture_logs() as logs, listening(given, None):
        assert [line["log_level"] for line in logs] == ["warning"]
    with pytest.raises(ValueError, match="secrets of their tokens"):
        AccessSettings(insecure=True, ca_folder=tmp_path)


def test_files_that_will_not_do_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"own\.crt") as caught:
        own_tls(IdentitySettings(enrol="sterna", folder=tmp_path))
    assert "[identity]" in caught.value.fix
    assert own_tls(IdentitySettings()) is None
