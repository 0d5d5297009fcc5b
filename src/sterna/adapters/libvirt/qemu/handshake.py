"""`ports.handshake.Handshake` with the certificates libvirt gives to QEMU: what TLS would say, before M4."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path

from sterna.adapters.libvirt.qemu.certificates import Certificates, of_migration
from sterna.adapters.libvirt.qemu.conf import QEMU_CONF
from sterna.domain.errors import Permanent
from sterna.domain.model import Refusal
from sterna.kit.mounts import on_disk
from sterna.kit.names import resolved

_PATIENCE_S = 10.0
"""For the other side to come, and for it to answer; a handshake takes milliseconds."""
_GREETING = b"sterna\n"


class TlsHandshake:
    """On one host's migration address."""

    def __init__(self, address: str, conf: Path = QEMU_CONF) -> None:
        self._address, self._conf = address, conf
        self._expecting: set[asyncio.Task[None]] = set()

    async def expect(self) -> int:
        """Take one connection; the port. Raises Permanent where the certificates or the address cannot be used,
        Temporary where their file system, or the resolver, does not answer."""
        addresses = await resolved(self._address, setting="`address` of [migration]")
        context = await _loaded(of_migration(self._conf), ssl.PROTOCOL_TLS_SERVER)
        came = asyncio.Event()

        async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                writer.write(_GREETING)
                await writer.drain()
                writer.close()
            came.set()

        server = await asyncio.start_server(greet, str(addresses[0]), 0, ssl=context)
        waiting = asyncio.create_task(_wait(server, came), name="tls handshake")
        self._expecting.add(waiting)
        waiting.add_done_callback(self._expecting.discard)
        return int(server.sockets[0].getsockname()[1])

    async def shake(self, address: str, port: int) -> Refusal | None:
        """Connect; None where both trust each other. Raises Temporary where the certificates' file system does not
        answer."""
        certificates = of_migration(self._conf)
        fix = f"see to the certificates in {certificates.folder}, here and on the other host"
        try:
            context = await _loaded(certificates, ssl.PROTOCOL_TLS_CLIENT)
            async with asyncio.timeout(_PATIENCE_S):
                reader, writer = await asyncio.open_connection(address, port, ssl=context)
                # in TLS 1.3 the other side's refusal of our certificate comes with the first read
                greeting = await reader.read(len(_GREETING))
                writer.close()
        except (OSError, Permanent) as error:  # ssl.SSLError and TimeoutError are OSErrors
            reason = getattr(error, "verify_message", "") or str(error) or f"no answer within {_PATIENCE_S:g} s"
            return Refusal(code="tls-handshake", message=f"TLS with {address} fails: {reason}", fix=fix)
        if greeting != _GREETING:
            message = f"TLS with {address} fails: it hung up, as it does on a certificate it distrusts"
            return Refusal(code="tls-handshake", message=message, fix=fix)
        return None


async def _wait(server: asyncio.Server, came: asyncio.Event) -> None:
    async with server:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                await came.wait()


async def _loaded(certificates: Certificates, side: int) -> ssl.SSLContext:
    """Raises Permanent, Temporary."""
    return await on_disk(lambda: _context(certificates, side), str(certificates.folder), limit_s=_PATIENCE_S)


def _context(certificates: Certificates, side: int) -> ssl.SSLContext:
    """As QEMU's `tls-creds-x509`. Raises Permanent."""
    folder, role = certificates.folder, "server" if side is ssl.PROTOCOL_TLS_SERVER else "client"
    if certificates.missing:
        fix = "put them there, or where qemu.conf's migrate_tls_x509_cert_dir says"
        raise Permanent(f"{', '.join(certificates.missing)} cannot be read in {folder}", fix=fix)
    context = ssl.SSLContext(side)
    try:
        context.load_verify_locations(folder / "ca-cert.pem")
        if role == "server" or certificates.verify:
            context.load_cert_chain(folder / f"{role}-cert.pem", folder / f"{role}-key.pem")
    except (OSError, ssl.SSLError) as error:
        raise Permanent(f"the certificates in {folder} cannot be used: {error}") from error
    if role == "server":
        context.verify_mode = ssl.CERT_REQUIRED if certificates.verify else ssl.CERT_NONE
    return context
