"""Which addresses a controller calls for its users: those that its settings name, and what is below them.

Whoever may begin an operation must not make the controller a proxy into its own network. So an address has plain
characters only, and it is put together again from its parts before it is called.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

LONGEST = 1000
"""Characters."""
_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?|[0-9a-f:.]*:[0-9a-f:.]*")
_PATH = re.compile(r"(/[A-Za-z0-9._~-]*)*")


class Address(NamedTuple):
    """Of a webhook."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def server(self) -> str:
        """Without its path."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def url(self) -> str:
        """The whole."""
        return self.server + (self.path or "/")

    def is_below(self, other: Address) -> bool:
        """Is it on the same server, in the same folder or a deeper one?"""
        folder = other.path.rstrip("/")
        return self[:3] == other[:3] and (self.path.rstrip("/") == folder or self.path.startswith(folder + "/"))


def address_of(url: str) -> Address:
    """Raises ValueError, which says what is wrong with it."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise ValueError(f"it is no address: {error}") from error
    if len(url) > LONGEST or parts.scheme not in _PORTS or not _HOST.fullmatch(host):
        raise ValueError("it is no http or https address of a server")
    if parts.username is not None or parts.password is not None:
        raise ValueError("it has a user or a password: the controller's settings have a place for a token")
    if "?" in url or "#" in url:
        raise ValueError("it has a query or a fragment")
    if not _PATH.fullmatch(parts.path) or {".", ".."} & set(parts.path.split("/")) or "//" in parts.path:
        raise ValueError("its path has something else than letters, digits, and `-._~`, or leads upwards")
    if port == 0:
        raise ValueError("its port is 0")
    return Address(parts.scheme, host, port or _PORTS[parts.scheme], parts.path)


def against(url: str, allowed: Iterable[str]) -> str:
    """Why it is not called; '' where it is. `allowed`: addresses that are."""
    try:
        wanted = address_of(url)
    except ValueError as error:
        return str(error)
    if any(wanted.is_below(address_of(one)) for one in allowed):
        return ""
    return "it is not below any address of `webhooks` in [fleet] of the controller's settings"
