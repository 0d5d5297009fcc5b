"""The addresses of this host's network devices, from the kernel's own tables. Blocking."""

from __future__ import annotations

import ctypes
import ipaddress
import socket
import struct
from collections.abc import Iterator

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


class _Ifaddrs(ctypes.Structure):
    """`struct ifaddrs` of Linux."""


_Ifaddrs._fields_ = [
    ("next", ctypes.POINTER(_Ifaddrs)),
    ("name", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("address", ctypes.c_void_p),
    ("mask", ctypes.c_void_p),
    ("broadcast", ctypes.c_void_p),
    ("data", ctypes.c_void_p),
]


def interface_addresses() -> tuple[Interface, ...]:
    """Each with its network's length. Raises OSError."""
    return tuple(address for _, address in named_addresses())


def named_addresses() -> tuple[tuple[str, Interface], ...]:
    """The same, each with its device. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    first = ctypes.POINTER(_Ifaddrs)()
    if libc.getifaddrs(ctypes.byref(first)) != 0:
        raise OSError(ctypes.get_errno(), "getifaddrs")
    try:
        return tuple(_each(first))
    finally:
        libc.freeifaddrs(first)


def _each(first: object) -> Iterator[tuple[str, Interface]]:
    at = first
    while at:
        entry = at.contents  # type: ignore[attr-defined]
        address, mask = _bytes(entry.address), _bytes(entry.mask)
        if address and mask:
            length = sum(byte.bit_count() for byte in mask)
            yield (entry.name or b"").decode(errors="replace"), ipaddress.ip_interface((address, length))
        at = entry.next


def _bytes(where: int | None) -> bytes:
    """The address in a sockaddr; b'' for one that is neither IPv4 nor IPv6."""
    if not where:
        return b""
    (family,) = struct.unpack("=H", ctypes.string_at(where, 2))
    if family == socket.AF_INET:
        return ctypes.string_at(where + 4, 4)
    return ctypes.string_at(where + 8, 16) if family == socket.AF_INET6 else b""
