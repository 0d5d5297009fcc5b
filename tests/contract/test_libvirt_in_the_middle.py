"""Somebody between two libvirts: with `qemu+tls` the client, which dials the other host, says nothing to them.

No libvirtd is needed: the client is a library. What it would say first is the driver's name and path.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import libvirt
import pytest

from sterna.adapters.identity.authority import Authority
from sterna.adapters.identity.own import OwnFiles
from tests.contract.middleman import Heard, showing, web_server
from tests.unit.adapters.identities import HOST1, HOST2, join


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path / "ca", ["sterna"])


@pytest.fixture
def pki(authority: Authority, tmp_path: Path) -> Path:
    """An enrolled host's files, under the names that libvirt wants."""
    own, folder = join(authority, HOST1, tmp_path / "host1"), tmp_path / "pki"
    folder.mkdir()
    names = {"cacert.pem": own.ca_file, "clientcert.pem": own.certificate_file, "clientkey.pem": own.key_file}
    for name, file in names.items():
        (folder / name).write_bytes(file.read_bytes())
    return folder


def tls_of(own: OwnFiles) -> ssl.SSLContext:
    return showing(own.certificate_file, own.key_file)


async def dialled(heard: Heard, pki: Path, name: str = "127.0.0.1") -> str:
    """What libvirt says when it is to reach the other host there."""
    uri = f"qemu+tls://{name}:{heard.port}/system?pkipath={pki}"
    with pytest.raises(libvirt.libvirtError) as caught:
        await asyncio.wait_for(asyncio.to_thread(libvirt.open, uri), 30)
    await heard.came.wait()
    return str(caught.value)


async def test_nothing_is_said_without_tls(pki: Path) -> None:
    async with web_server(b"no TLS here\r\n") as heard:
        why = await dialled(heard, pki)
    assert heard.plain[:2] == b"\x16\x03" and b"system" not in heard.plain  # a ClientHello, and no more
    assert "TLS" in why


async def test_nor_to_another_cas_host(pki: Path, tmp_path: Path) -> None:
    stranger = join(Authority.make(tmp_path / "other-ca", ["sterna"]), HOST2, tmp_path / "other")
    async with web_server(b"", tls_of(stranger)) as heard:
        why = await dialled(heard, pki)
    assert heard.inside == b"" and "certificate" in why.lower()


TAKEN = b"\1"
"""libvirtd's word that it takes the client's certificate; the client waits for it."""


async def test_nor_to_a_host_whose_certificate_has_another_address(
    authority: Authority, pki: Path, tmp_path: Path
) -> None:
    async with web_server(b"", tls_of(join(authority, HOST2, tmp_path / "host2")), TAKEN) as heard:
        why = await dialled(heard, pki, name="localhost")
    assert heard.inside == b"" and "verify peer's certificate" in why


async def test_to_the_right_host_it_speaks(authority: Authority, pki: Path, tmp_path: Path) -> None:
    """The listener above would notice."""
    async with web_server(b"", tls_of(join(authority, HOST2, tmp_path / "host2")), TAKEN) as heard:
        why = await dialled(heard, pki)  # it is cut off before it has an answer
    assert heard.inside, why
