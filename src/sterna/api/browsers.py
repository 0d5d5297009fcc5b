"""Prevents a page of another site from using this API with a browser's credentials."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from sterna.domain.errors import BadRequest, Forbidden

SAFE = {"GET", "HEAD", "OPTIONS"}
_OWN = {"localhost", "sterna"}
"""`sterna` is what clients of the Unix socket say."""


def check_host(scope: Scope, names: frozenset[str]) -> None:
    """The `Host` of a request is an IP address, this machine's name, or one of `names`. With a name of its own that
    points here, a page could get around the rule that it may talk only to where it came from. Raises BadRequest."""
    header = Headers(scope=scope).get("host", "")
    name = _hostname(header)
    own = socket.gethostname().lower()
    if name in {*_OWN, own, own.partition(".")[0], *names} or _is_address(name):
        return
    raise BadRequest(
        f"{header!r} is not a host name of this API",
        fix="use an IP address, or add the name to `[access] names` in the settings",
    )


def check_origin(scope: Scope) -> None:
    """A request that changes something and comes from a page comes from a page of this API. Raises Forbidden."""
    if scope["method"] in SAFE:
        return
    headers = Headers(scope=scope)
    origin = headers.get("origin")
    site = headers.get("sec-fetch-site", "same-origin")
    if (origin is None or _is_same(origin, headers.get("host", ""))) and site in ("same-origin", "none"):
        return
    raise Forbidden("this request comes from a page of another site", fix="do not send it from a browser")


def _is_same(origin: str, host: str) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


def _hostname(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
