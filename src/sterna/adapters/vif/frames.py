"""The frames by which a guest's own NIC would tell a network where it is. Pure.

Who has a MAC learns from any frame's sender; a fabric that routes on addresses (EVPN, say) learns from ARP and
neighbour discovery, so these are sent for the addresses that are known.
"""

from __future__ import annotations

import ipaddress
import struct

from sterna.domain.model import Nic

_BROADCAST = b"\xff" * 6
_ALL_NODES = ipaddress.IPv6Address("ff02::1")
_ALL_NODES_MAC = bytes.fromhex("333300000001")
_SHORTEST = 60
"""Bytes of an Ethernet frame without its checksum."""
_ARP, _RARP, _IPV6 = bytes.fromhex("0806"), bytes.fromhex("8035"), bytes.fromhex("86dd")
_ICMPV6, _HOPS, _ADVERTISEMENT, _OVERRIDE, _TARGET_LINK = 58, 255, 136, 0x20000000, b"\x02\x01"


def announcements(nic: Nic) -> list[bytes]:
    """A RARP, then for each of `nic.addresses` a gratuitous ARP or an unsolicited neighbour advertisement."""
    frames = [rarp(nic.mac)]
    for address in map(ipaddress.ip_address, nic.addresses):
        if isinstance(address, ipaddress.IPv4Address):
            frames.append(gratuitous_arp(nic.mac, address))
        else:
            frames.append(advertisement(nic.mac, address))
    return frames


def rarp(mac: str) -> bytes:
    """A reverse ARP request (RFC 903)."""
    own = _octets(mac)
    asked = bytes.fromhex("0001 0800 06 04 0003") + own + bytes(4) + own + bytes(4)
    return (_BROADCAST + own + _RARP + asked).ljust(_SHORTEST, b"\0")


def gratuitous_arp(mac: str, address: ipaddress.IPv4Address) -> bytes:
    """An ARP request for the sender's own address (RFC 5227's announcement)."""
    own = _octets(mac)
    asked = bytes.fromhex("0001 0800 06 04 0001") + own + address.packed + bytes(6) + address.packed
    return (_BROADCAST + own + _ARP + asked).ljust(_SHORTEST, b"\0")


def advertisement(mac: str, address: ipaddress.IPv6Address) -> bytes:
    """An unsolicited neighbour advertisement to all nodes (RFC 4861)."""
    own = _octets(mac)
    body = struct.pack("!I", _OVERRIDE) + address.packed + _TARGET_LINK + own
    pseudo = address.packed + _ALL_NODES.packed + struct.pack("!I3xB", 4 + len(body), _ICMPV6)
    icmp = (
        struct.pack("!BBH", _ADVERTISEMENT, 0, _checksum(pseudo + bytes([_ADVERTISEMENT, 0, 0, 0]) + body)) + body
    )
    header = struct.pack("!IHBB", 6 << 28, len(icmp), _ICMPV6, _HOPS) + address.packed + _ALL_NODES.packed
    return _ALL_NODES_MAC + own + _IPV6 + header + icmp


def _octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
