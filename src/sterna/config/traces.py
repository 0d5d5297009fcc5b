"""`[traces]` of a controller's settings: where the traces of ended migrations are sent."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, SecretStr, model_validator

from sterna.config.section import Section
from sterna.domain.webhooks import Address, address_of

TRACES = "/v1/traces"
"""The path that OTLP has for them."""
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")


def _endpoint(url: str) -> str:
    """Raises ValueError for what cannot be called, and does not show it: it may have a password."""
    if url:
        address_of(url)
    return url


def _headers(headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
    """Raises ValueError for what no request can have, and does not show it."""
    for name, value in headers.items():
        if not _NAME.fullmatch(name):
            raise ValueError("a name has a character that no header's name has")
        content = value.get_secret_value()
        if not content.strip() or any(not " " <= sign <= "~" for sign in content):
            raise ValueError(f"{name} is empty, or has a line break or a character that is not ASCII in it")
    return headers


class TracesSettings(Section):
    """Where a trace of each migration is sent after it has ended, over OTLP/HTTP with JSON. Each is sent by one of
    the controllers, so give all of a fleet the same settings. The names of VMs and hosts are in traces."""

    endpoint: Annotated[str, AfterValidator(_endpoint)] = ""
    """URL of an OpenTelemetry collector, or of another receiver of OTLP/HTTP, e.g. `http://127.0.0.1:4318`. Without
    a path, `/v1/traces` is added. '': traces are not sent."""
    headers: Annotated[dict[str, SecretStr], AfterValidator(_headers)] = {}
    """Sent with each request: `Authorization = "Bearer TOKEN"`. Only over https, or to this machine. Better in the
    environment, as JSON: `STERNA_TRACES__HEADERS`. Never logged."""
    ca_file: Path | None = None
    """CA certificates for the receiver. Not set: the system's."""

    @property
    def address(self) -> Address:
        """The endpoint with its path."""
        found = address_of(self.endpoint)
        return found._replace(path=TRACES) if found.path in ("", "/") else found

    @model_validator(mode="after")
    def _keeps_headers_secret(self) -> Self:
        if not self.endpoint or not self.headers:
            return self
        if self.address.scheme == "http" and not _is_this_machine(self.address.host):
            where = self.address.host
            raise ValueError(f"headers would be sent to {where} unencrypted: use https, or 127.0.0.1")
        return self


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
