"""A real nats-server with the configuration that `sterna bus config` writes, and clients with certificates."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from nats.aio.client import Client

from sterna.adapters.identity.authority import Authority
from sterna.adapters.identity.own import OwnFiles
from sterna.adapters.identity.x509 import new_request, pem_of, read_key
from sterna.domain.trust.bus_config import BusServer, bus_config
from sterna.domain.trust.certificates import VALID
from sterna.domain.trust.enrolment import on_the_bus
from sterna.domain.trust.identities import BUS_SERVICE, Identity, Kind
from sterna.domain.trust.joining import JoinAnswer
from sterna.kit.clock import SystemClock

NATS_SERVER = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin:/usr/local/bin")
SERVER = Identity(kind=Kind.BUS, name="n1")


class Guarded:
    """One server, its CA, and the certificates of who was enrolled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority.make(folder / "ca", ["sterna"])
        self.server_files = self.enrol(SERVER)
        self.config = folder / "nats.conf"
        self.users: list[tuple[Identity, str]] | None = None
        """None: those who are enrolled."""
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"tls://127.0.0.1:{self.port}"

    def let_expire(self, who: Identity) -> None:
        """It has a certificate whose time is over, in the place of its own."""
        long_ago = datetime.now(UTC) - VALID - timedelta(hours=1)
        own = OwnFiles(self.folder / f"{who.kind}-{who.name}", who.kind)
        key = read_key(own.key_file.read_bytes(), "its key")
        ca = Authority.open(self.folder / "ca", lambda: long_ago)
        made = ca.issue(who, ["127.0.0.1"], pem_of(new_request(key, who.name)))
        own.certificate_file.write_bytes(made.pem)

    def enrol(self, who: Identity) -> OwnFiles:
        """Its key and its certificate, of a new enrolment for a host."""
        own = OwnFiles(self.folder / f"{who.kind}-{who.name}", who.kind)
        if who.kind is Kind.AGENT:
            self.authority.invite(who, ["127.0.0.1"])
            made = self.authority.sign(own.request(who.name).encode(), who.name)
        else:
            made = self.authority.issue(who, ["127.0.0.1"], own.request(who.name).encode())
        answer = JoinAnswer(certificate=made.pem.decode(), ca=self.authority.pem.decode())
        own.accept(answer, who.name, self.authority.fingerprint, SystemClock().now())
        return own

    def configure(self) -> None:
        """Write the configuration for everybody who is enrolled now."""
        own = self.server_files
        server = BusServer(
            listen=f"127.0.0.1:{self.port}",
            cert_file=str(own.certificate_file),
            key_file=str(own.key_file),
            ca_file=str(own.ca_file),
        )
        self.config.write_text(bus_config(server, self.users or on_the_bus(self.authority.register())))

    async def start(self) -> None:
        assert NATS_SERVER is not None, "nats-server is not installed (Debian: apt-get install nats-server)"
        self.configure()
        # pdeathsig: a test run that is killed takes its server along
        command = ("setpriv", "--pdeathsig", "KILL", NATS_SERVER, "-c", str(self.config))
        quiet = asyncio.subprocess.DEVNULL
        self.process = await asyncio.create_subprocess_exec(*command, stdout=quiet, stderr=quiet)
        async with asyncio.timeout(20):
            while not await self._listens():  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.02)

    def reload(self) -> None:
        """Have the running server read its configuration for everybody who is enrolled now."""
        assert self.process is not None
        self.configure()
        self.process.send_signal(signal.SIGHUP)

    async def end(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True


class Voice:
    """A client of NATS, with nothing of ours in it but the certificate, and what the server refused it."""

    def __init__(self, client: Client, errors: list[str]) -> None:
        self.client = client
        self._errors = errors

    async def refused(self) -> bool:
        """Has the server refused what was sent since the last question?"""
        for _ in range(2):  # the first PING may be ahead of what is still in nats-py's buffer
            await self.client.flush(timeout=10)
        found, self._errors[:] = list(self._errors), []
        assert all("permissions violation" in error.lower() for error in found), found
        return bool(found)

    async def publishes(self, subject: str, payload: bytes = b"x", reply: str = "") -> bool:
        """May it?"""
        await self.client.publish(subject, payload, reply=reply)
        return not await self.refused()

    async def subscribes(self, pattern: str, heard: asyncio.Queue[Any] | None = None) -> bool:
        """May it? `heard` gets the messages."""

        async def take(message: Any) -> None:
            if heard is not None:
                heard.put_nowait(message)

        await self.client.subscribe(pattern, cb=take)
        return not await self.refused()


def tls_of(own: OwnFiles | None, ca_file: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file)
    if own is not None:
        context.load_cert_chain(own.certificate_file, own.key_file)
    return context


@asynccontextmanager
async def voice(guarded: Guarded, own: OwnFiles | None) -> AsyncIterator[Voice]:
    """A client with this certificate. Raises what nats-py raises where it is not let in."""
    errors: list[str] = []

    async def on_error(error: Exception) -> None:
        errors.append(str(error))

    client = Client()
    try:
        await client.connect(
            guarded.url,
            tls=tls_of(own, guarded.server_files.ca_file),
            tls_hostname=BUS_SERVICE,
            allow_reconnect=False,
            connect_timeout=10,
            error_cb=on_error,
        )
        yield Voice(client, errors)
    finally:
        if not client.is_closed:
            await client.close()
