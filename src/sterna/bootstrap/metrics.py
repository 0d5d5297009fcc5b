"""What serves metrics: of both processes."""

from __future__ import annotations

import asyncio
import ssl
from ipaddress import ip_address
from pathlib import Path

import structlog

from sterna.adapters.metrics.listener import Listener
from sterna.config.bus import BusTls, IdentitySettings
from sterna.config.metrics import MetricsSettings, place_of
from sterna.domain.errors import BadRequest, Permanent
from sterna.ports.metrics import Scraped

log = structlog.get_logger(__name__)

_FIX = "see [metrics] in the settings"
AGAIN_S = 30.0
"""A port that is taken is tried again."""


class MetricsServer:
    """The listener of `[metrics]`, where the settings name one."""

    def __init__(self, settings: MetricsSettings, identity: IdentitySettings) -> None:
        """Raises BadRequest for files that cannot be used, or where TLS is needed and there is no certificate."""
        self._settings = settings
        own = identity.bus_tls(BusTls())
        files = (settings.cert_file, settings.key_file) if settings.cert_file else (own.cert_file, own.key_file)
        self._cert_file, self._key_file = files
        self._present: ssl.SSLContext | None = None
        if settings.listen:
            self._check()
            self.read_again()

    def _check(self) -> None:
        address, _ = place_of(self._settings.listen)
        if self._cert_file is not None:
            return
        if self._settings.client_ca_file is not None:
            raise BadRequest("client_ca_file in [metrics] needs a certificate: there is no TLS", fix=_FIX)
        if not is_loopback(address) and not self._settings.insecure:
            raise BadRequest(
                f"metrics would be served without TLS on {address}: anyone who can read the traffic could read "
                "the token",
                fix="set `cert_file` in [metrics], or listen on 127.0.0.1, or accept it with `insecure = true`",
            )

    def read_again(self) -> None:
        """Clients to come are shown what the files have now. From any thread. Raises BadRequest."""
        if self._settings.listen and self._cert_file is not None:
            self._present = _context(self._cert_file, self._key_file, self._settings.client_ca_file)

    async def run(self, scraped: Scraped) -> None:
        """Serve until cancelled, where the settings say so. A port that is taken is tried again: this process has
        more important work."""
        if not self._settings.listen:
            return
        address, port = place_of(self._settings.listen)
        tls = self._outer()
        if not is_loopback(address) and (tls is None or not self._asks()):
            log.warning("INSECURE: anyone who can reach the metrics can read them", address=self._settings.listen)
        listener = Listener(scraped, tls=tls, token_sha256=self._settings.token_sha256)
        try:
            started = False
            while True:
                started = started or await self._has_started(listener, address, port)
                await asyncio.sleep(AGAIN_S)
        finally:
            listener.stop()

    async def _has_started(self, listener: Listener, address: str, port: int) -> bool:
        try:
            await listener.start(address, port)
        except Permanent as error:
            log.error("metrics are not served yet; retrying", why=error.message, fix=error.fix)
            return False
        return True

    def _asks(self) -> bool:
        return self._settings.client_ca_file is not None or self._settings.token_sha256 is not None

    def _outer(self) -> ssl.SSLContext | None:
        """TLS that begins with whichever certificate is the present one."""
        if self._present is None or self._cert_file is None:
            return None
        outer = _context(self._cert_file, self._key_file, self._settings.client_ca_file)

        def choose(connection: ssl.SSLObject, _name: str | None, _given: ssl.SSLContext) -> None:
            if self._present is not None:
                connection.context = self._present

        outer.sni_callback = choose
        return outer


def is_loopback(address: str) -> bool:
    """Is it reached from this machine only?"""
    return ip_address(address).is_loopback


def _context(cert_file: Path, key_file: Path | None, client_ca_file: Path | None) -> ssl.SSLContext:
    try:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(cert_file, key_file)
        if client_ca_file is not None:
            tls.load_verify_locations(client_ca_file)
            tls.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:  # ssl's own errors are OSErrors
        raise BadRequest(f"TLS for metrics cannot be set up with {cert_file}: {error}", fix=_FIX) from error
    return tls
