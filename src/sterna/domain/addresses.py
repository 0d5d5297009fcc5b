"""Addresses of hosts as settings and messages have them, and as URIs need them. Pure."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address


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


def filled(template: str, address: str) -> str:
    """A URI template with this address. One written with brackets around `{address}` keeps them."""
    written = template.replace("[{address}]", "{address}")
    return written.format(address=in_uri(address))
