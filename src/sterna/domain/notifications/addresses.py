"""Which address an endpoint may have. It is in the settings, so that no user chooses it."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

LONGEST = 1000
"""Characters."""


def checked(url: str, *, insecure: bool) -> str:
    """The address itself. Raises ValueError, which says what is wrong with it and shows only its server.

    `insecure`: plain HTTP is allowed to other machines than this one.
    """
    if not url or len(url) > LONGEST or any(not "!" <= sign <= "~" for sign in url):
        raise ValueError(
            f"an address has 1 to {LONGEST} visible ASCII characters: write others as %XX, and host names as xn--"
        )
    parts = urlsplit(url)
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        raise ValueError("it is not the address of a server, such as https://alerts.example/sterna")
    if "@" in parts.netloc:
        raise ValueError("it has a user or a password: receivers know Sterna by the signature")
    if parts.fragment or "#" in url:
        raise ValueError("it has a fragment (`#`), which is never sent")
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("its port is not a number from 1 to 65535")
    if parts.scheme.lower() == "http" and not insecure and not is_loopback(parts.hostname):
        raise ValueError(
            f"{server_of(url)} would be called without TLS: use https, or set insecure = true in a network that "
            "nobody else can read"
        )
    return url


def server_of(url: str) -> str:
    """Scheme, host and port: the path may be a secret of its own."""
    parts = urlsplit(url)
    return f"{parts.scheme.lower()}://{parts.netloc.rpartition('@')[2]}"


def is_loopback(host: str) -> bool:
    """Is it this machine?"""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
