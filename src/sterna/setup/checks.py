"""Checks of typed values. Each returns the value in its stored form, or raises BadRequest with a fix."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from sterna.domain.addresses import bare, is_address
from sterna.domain.errors import BadRequest
from sterna.domain.trust.bus_config import listening_at
from sterna.domain.trust.identities import Kind, identity

_SHORT = re.compile(r"[^A-Za-z0-9_-]+")
DATABASES = ("sqlite", "postgresql+psycopg")


def host_name(text: str) -> str:
    """A host's name in Sterna."""
    try:
        return identity(Kind.AGENT, text).name
    except BadRequest:
        fix = "use 1 to 63 letters, digits, - and _, with a letter or a digit first; no dots"
        raise BadRequest(f"{text[:80]!r} cannot be the name of a host", fix=fix) from None


def suggested_name(machine: str) -> str:
    """A name for this machine; '' where its own cannot be one."""
    short = _SHORT.sub("-", machine).strip("-_")[:63]
    return short if short.lower() != "localhost" else ""


def address(text: str) -> str:
    """An address that other hosts can use."""
    plain = bare(text)
    if not is_address(plain) or plain.lower() == "localhost" or plain.startswith("127.") or plain == "::1":
        fix = "give an IP address of this host that other hosts can reach, e.g. 10.0.0.11, or a host name"
        raise BadRequest(f"{text[:80]!r} is not an address at which other hosts can reach this one", fix=fix)
    return plain


def bus_url(text: str) -> str:
    """One or several addresses of the bus. `10.0.0.1` is `nats://10.0.0.1:4222`."""
    return ",".join(_one_bus(one.strip()) for one in text.split(","))


def _one_bus(text: str) -> str:
    url = text if "://" in text else f"nats://{text}"
    fix = "give one like nats://10.0.0.1:4222"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise BadRequest(f"{text[:80]!r} is not the address of a bus", fix=fix) from None
    if parts.scheme not in ("nats", "tls") or not parts.hostname or not is_address(parts.hostname):
        raise BadRequest(f"{text[:80]!r} is not the address of a bus", fix=fix)
    if parts.username is not None:
        raise BadRequest("the address of the bus has a user or a password", fix="set user and password in [bus]")
    return url if port is not None else f"{url.rstrip('/')}:4222"


def listening(text: str) -> str:
    """An address and a port to listen on."""
    colon, port = text.rpartition(":")[1:]
    if not colon or not port.isdigit():
        raise BadRequest(f"{text[:80]!r} is not an address and a port", fix="give one like 10.0.0.1:8774")
    return listening_at(text)


def host_to_reach(listen: str) -> str:
    """The address in one to listen on; '' where that is every address of the machine."""
    host = bare(listen.rpartition(":")[0])
    return host if is_address(host) and host not in ("0.0.0.0", "::") else ""  # noqa: S104 - it is left out


def database(text: str) -> str:
    """A database that controllers can use."""
    driver, colon, _ = text.partition("://")
    if driver in ("postgres", "postgresql") and colon:
        fix = f"write postgresql+psycopg:// instead of {driver}://"
        raise BadRequest("this PostgreSQL URL has no driver", fix=fix)
    if driver not in DATABASES or not colon:
        fix = "give sqlite:////var/lib/sterna/controller.db, or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"
        raise BadRequest("this is not the URL of a database that Sterna supports", fix=fix)
    if driver == "sqlite" and not text.startswith("sqlite:////"):
        fix = "give the absolute path of the file: sqlite:////var/lib/sterna/controller.db"
        raise BadRequest("the path of the database file is not absolute", fix=fix)
    return text


def host_of(url: str) -> str:
    """The host in an address; '' for none."""
    try:
        return urlsplit(url.partition(",")[0]).hostname or ""
    except ValueError:
        return ""
