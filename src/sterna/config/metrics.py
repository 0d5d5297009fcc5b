"""`[metrics]` of both processes' settings: a listener for Prometheus."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator

from sterna.config.section import Section
from sterna.domain.tokens import DIGEST


def place_of(listen: str) -> tuple[str, int]:
    """Address and port of `10.0.0.1:9177` or `[::1]:9177`. Raises ValueError for anything else, a host name too."""
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 2**16:
        raise ValueError(f"{listen!r} has no port from 1 to 65535: write 127.0.0.1:9177")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if ":" in bare and bare == host:
        raise ValueError(f"{listen!r}: write an IPv6 address in brackets, e.g. [::1]:9177")
    try:
        return str(ip_address(bare)), int(port)
    except ValueError:
        raise ValueError(f"{host!r} is not an IP address: write 127.0.0.1:9177") from None


class MetricsSettings(Section):
    """Listener for Prometheus. It serves only this process's metrics, `GET /metrics`. On an address that others
    can reach it needs TLS, and a token or a client certificate. Metrics contain names of hosts, and of VMs that
    are being copied."""

    listen: str = ""
    """IP address and port, e.g. `127.0.0.1:9177`. On a loopback address any user of this machine can read the
    metrics. '': no listener; a controller also serves `/metrics` with its API."""
    cert_file: Path | None = None
    """Certificate for TLS, with its chain. Not set: that of `[identity]`; without either, no TLS."""
    key_file: Path | None = None
    """The key of `cert_file`. Not set: it is in the same file."""
    client_ca_file: Path | None = None
    """Clients need a certificate signed by one of these CAs. Not set: they need none."""
    token_sha256: str | None = Field(default=None, pattern=DIGEST)
    """Clients need a token, `Authorization: Bearer TOKEN`, with this SHA-256 in hexadecimal: `printf %s "$TOKEN" |
    sha256sum`. Use a random token of at least 32 characters. Not set: they need none."""
    insecure: bool = False
    """True: allow an address that others can reach without TLS, or without a token and a client certificate."""

    @field_validator("listen")
    @classmethod
    def _is_a_place(cls, listen: str) -> str:
        if listen:
            place_of(listen)
        return listen

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("key_file needs cert_file")
        if not self.listen or self.insecure or ip_address(place_of(self.listen)[0]).is_loopback:
            return self
        if self.client_ca_file is None and self.token_sha256 is None:
            raise ValueError(
                f"anyone who can reach {self.listen} could read the metrics: set token_sha256 or client_ca_file, "
                "or "
                "listen on 127.0.0.1, or accept it with insecure = true"
            )
        return self
