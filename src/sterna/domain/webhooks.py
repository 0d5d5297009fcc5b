"""Which addresses a controller calls for its users: those that its settings name, and what is below them.

Whoever may begin an operation must not make the controller a proxy into its own network. So an address has plain
characters only, and it is put together again from its parts before it is called.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

LONGEST = 1000
"""Characters."""
_PORTS = {"http": 80, "https": 443}
_ADDRESS = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]*:[0-9a-f:.]*\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>(?:/[A-Za-z0-9._~-]+)*/?)"
)
_SERVER = re.compile(r"[^/]*//[^/]*")


class Address(NamedTuple):
    """Of a webhook."""

    scheme: str
    host: str
    """An IPv6 address has brackets."""
    port: int
    path: str

    @property
    def server(self) -> str:
        """Without its path."""
        return f"{self.scheme}://{self.host}:{self.port}"

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
    if "@" in url:
        raise ValueError("it has a user or a password: the controller's settings have a place for a token")
    if "?" in url or "#" in url:
        raise ValueError("it has a query or a fragment")
    server = _SERVER.match(url)
    plain = server[0].lower() + url[server.end() :] if server else url
    found = _ADDRESS.fullmatch(plain) if len(url) <= LONGEST else None
    if found is None or {".", ".."} & set(found["path"].split("/")):
        raise ValueError(
            "it is not the http or https address of a server, with a path of letters, digits and `-._~` that leads "
            "downwards only"
        )
    port = int(found["port"] or _PORTS[found["scheme"]])
    if not 0 < port < 65536:
        raise ValueError(f"there is no port {port}")
    return Address(found["scheme"], found["host"], port, found["path"])


def against(url: str, allowed: Iterable[str]) -> str:
    """Why it is not called; '' where it is. `allowed`: addresses that are."""
    try:
        wanted = address_of(url)
    except ValueError as error:
        return str(error)
    if any(wanted.is_below(address_of(one)) for one in allowed):
        return ""
    return "it is not below any address of `webhooks` in [fleet] of the controller's settings"
