"""Telling the network where a guest is, from the host's side: one RARP, sent through the guest's own port.

QEMU tells it, too (first after its `announce-initial`, 50 ms by default); until the network knows, frames for the
guest go to its old host. Called by `ovs.py`, in the moment in which the guest begins to run: no process is started
for it. The switch takes a frame as coming from a port by OpenFlow's packet-out; of that protocol (1.3.5) only the
messages it takes are written here.
"""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path

from sterna.domain.errors import Permanent, Temporary

_LIMIT_S = 5.0
"""It takes about a millisecond."""
_BROADCAST = b"\xff" * 6
_SHORTEST = 60
"""Bytes of an Ethernet frame without its checksum."""
_VERSION, _HEADER = 4, struct.Struct("!BBHI")
_HELLO, _ERROR, _PACKET_OUT, _BARRIER, _BARRIER_REPLY = 0, 1, 13, 20, 21
_NORMAL, _NO_BUFFER = 0xFFFFFFFA, 0xFFFFFFFF


def rarp(mac: str) -> bytes:
    """A reverse ARP request as the guest's own NIC would send it (RFC 903): who has it learns from its sender."""
    own = bytes.fromhex(mac.replace(":", ""))
    asked = bytes.fromhex("0001 0800 06 04 0003") + own + bytes(4) + own + bytes(4)
    return (_BROADCAST + own + bytes.fromhex("8035") + asked).ljust(_SHORTEST, b"\0")


async def send_as(ovsdb: str, bridge: str, ofport: int, frame: bytes) -> None:
    """Hand the switch a frame as if it had come in through that port. Raises Temporary, Permanent."""
    folder = Path(ovsdb.removeprefix("unix:")).parent if ovsdb.startswith("unix:") else Path("/run/openvswitch")
    try:
        async with asyncio.timeout(_LIMIT_S):
            reader, writer = await asyncio.open_unix_connection(folder / f"{bridge}.mgmt")
            try:
                writer.write(
                    _message(_HELLO) + _message(_PACKET_OUT, _packet_out(ofport, frame)) + _message(_BARRIER)
                )
                await _until_done(reader, f"port {ofport} of {bridge}")
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        raise Temporary(f"Open vSwitch does not take a frame for port {ofport} of {bridge}: {error!r}") from error


def _message(kind: int, body: bytes = b"") -> bytes:
    return _HEADER.pack(_VERSION, kind, _HEADER.size + len(body), kind) + body


def _packet_out(ofport: int, frame: bytes) -> bytes:
    normal = struct.pack("!HHIH6x", 0, 16, _NORMAL, 0)
    return struct.pack("!IIH6x", _NO_BUFFER, ofport, len(normal)) + normal + frame


async def _until_done(reader: asyncio.StreamReader, where: str) -> None:
    """Read until the switch has done all it was asked. Raises Permanent where it refuses."""
    while True:
        _, kind, length, _ = _HEADER.unpack(await reader.readexactly(_HEADER.size))
        body = await reader.readexactly(length - _HEADER.size)
        if kind == _ERROR:
            raise Permanent(f"Open vSwitch does not send through {where}: OpenFlow error {body[:4].hex()}")
        if kind == _BARRIER_REPLY:
            return
