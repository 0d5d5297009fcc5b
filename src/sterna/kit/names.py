"""Host names as addresses that can be bound. A socket's own `bind` resolves a name without a limit."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

from sterna.domain.errors import Permanent, Unreachable
from sterna.kit.threads import in_thread

Numeric = IPv4Address | IPv6Address
"""An address that no resolver is asked about."""

RESOLVE_S = 10.0
"""glibc asks a server twice, for 5 s. A host's own name is answered at once where all is well."""
_DENIED = (socket.EAI_NONAME, socket.EAI_NODATA)


async def resolved(address: str, *, setting: str) -> tuple[Numeric, ...]:
    """The addresses of a name, as the resolver orders them; an address, without brackets, is its own.
    `setting`: where it was written.

    Raises Permanent where the name has none, Unreachable where the resolver does not say.
    """
    try:
        return (ip_address(address),)
    except ValueError:
        pass
    fix = f"check that this host resolves it, or write an address in {setting}"
    try:
        found = await in_thread(
            lambda: socket.getaddrinfo(address, None, type=socket.SOCK_STREAM),
            name="sterna-names",
            of=address,
            limit_s=RESOLVE_S,
        )
    except OSError as error:  # TimeoutError is one
        kind = Permanent if isinstance(error, socket.gaierror) and error.errno in _DENIED else Unreachable
        raise kind(f"{address} cannot be resolved: {error}", fix=fix) from error
    return tuple(dict.fromkeys(ip_address(str(where[0])) for *_, where in found))


def family_of(address: Numeric) -> socket.AddressFamily:
    """What a socket of this address is."""
    return socket.AF_INET6 if address.version == 6 else socket.AF_INET
