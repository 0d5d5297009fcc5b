"""Addresses of hosts as settings and messages have them, and as URIs need them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

LONGEST_HOST_NAME = 253
_URI = re.compile(r"[a-z]+(\+(?P<transport>[a-z0-9]+))?://([^/@]*@)?[^/?@]+/[^?]*(\?(?P<query>.*))?")
_ENCRYPTED = frozenset({"", "tls", "ssh", "libssh", "libssh2"})
"""Transports of libvirt's URIs; "" is TLS."""
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DNS_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?")


def bare(text: str) -> str:
    """Without the brackets that an IPv6 address has in a URI."""
    return text[1:-1] if text.startswith("[") and text.endswith("]") else text


def in_uri(address: str) -> str:
    """With the brackets that an IPv6 address needs in front of a port or in a URI."""
    return f"[{bare(address)}]" if is_ipv6(address) else address


def is_ipv6(address: str) -> bool:
    """Is it an IPv6 address (and not a name, or an IPv4 one)?"""
    try:
        return isinstance(ip_address(bare(address)), IPv6Address)
    except ValueError:
        return False


def normal(address: str) -> str:
    """One spelling for each address: two that are written alike are one."""
    try:
        return str(ip_address(bare(address)))
    except ValueError:
        return address.lower().rstrip(".")


def network_of(address: str) -> str:
    """What one client can be taken to have for itself: an IPv4 address, or the first 64 bits of an IPv6 one."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, IPv4Address):
        return str(found)
    return str(found.ipv4_mapped or ip_network((found, 64), strict=False))


def is_among(address: str, others: Iterable[str]) -> bool:
    """Is it one of these addresses, however it is written?"""
    return normal(address) in map(normal, others)


def filled(template: str, address: str) -> str:
    """A URI template with this address. One written with brackets around `{address}` keeps them."""
    written = template.replace("[{address}]", "{address}")
    return written.format(address=in_uri(address))


def encrypts(uri: str) -> bool:
    """Does libvirt encrypt what it says to this URI, or to one made of this template, and check who answers?

    Source: libvirt's docs/uri.rst; a URI with a host and no transport is TLS.
    """
    matched = _URI.fullmatch(filled(uri, "192.0.2.1"))
    if matched is None:
        return False
    options = (pair.partition("=")[::2] for pair in (matched["query"] or "").split("&"))
    unchecked = any(key == "no_verify" and value != "0" for key, value in options)
    return (matched["transport"] or "") in _ENCRYPTED and not unchecked


def is_address(text: object) -> bool:
    """An IPv4 or IPv6 address, or a host name: nothing else that a URI could be made of.

    Not one with a zone (`fe80::1%eth0`): a zone names a device of the host that dials, which the other cannot know.
    Nor in brackets: those belong to URIs, and are put there.
    """
    if not isinstance(text, str) or not 0 < len(text) <= LONGEST_HOST_NAME:
        return False
    try:
        return "%" not in text and bool(ip_address(text))
    except ValueError:
        return bool(_DNS_NAME.fullmatch(text))
