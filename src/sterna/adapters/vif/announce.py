"""Telling the network where a guest is, from the host's side: one RARP, sent through the guest's own port.

QEMU tells it, too (some 0.3 ms after its RESUME event, and again after 30 to 50 ms), out of the tap; until the
network knows, frames for the guest go to its old host. Called by `ovs.py` while the guest stands still: no process
is started for it. The switch takes a frame as coming from a port by OpenFlow's packet-out; of that protocol (1.3.5)
only the messages it takes are written here.
"""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import Any, BinaryIO

from sterna.adapters.vif import ovsdb
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


def say(api: Any, remote: str, bridge: str, port: str, mac: str) -> None:
    """The guest of this port of an Open vSwitch bridge is here. Raises NotFound, Temporary, Permanent."""
    send_as(remote, bridge, ovsdb.number_of(api, port, bridge), rarp(mac))


def send_as(remote: str, bridge: str, ofport: int, frame: bytes) -> None:
    """Hand the switch a frame as if it had come in through that port. Raises Temporary, Permanent.

    Blocks, a millisecond as a rule: it runs in a thread, so that nothing that holds the event loop up, such as a
    journal's fsync, holds the frame up.
    """
    folder = Path(remote.removeprefix("unix:")).parent if remote.startswith("unix:") else Path("/run/openvswitch")
    try:
        with socket.socket(socket.AF_UNIX) as switch:
            switch.settimeout(_LIMIT_S)
            switch.connect(str(folder / f"{bridge}.mgmt"))
            switch.sendall(
                _message(_HELLO) + _message(_PACKET_OUT, _packet_out(ofport, frame)) + _message(_BARRIER)
            )
            with switch.makefile("rb") as answers:
                _until_done(answers, f"port {ofport} of {bridge}")
    except (OSError, EOFError) as error:
        raise Temporary(f"Open vSwitch does not take a frame for port {ofport} of {bridge}: {error!r}") from error


def _message(kind: int, body: bytes = b"") -> bytes:
    return _HEADER.pack(_VERSION, kind, _HEADER.size + len(body), kind) + body


def _packet_out(ofport: int, frame: bytes) -> bytes:
    normal = struct.pack("!HHIH6x", 0, 16, _NORMAL, 0)
    return struct.pack("!IIH6x", _NO_BUFFER, ofport, len(normal)) + normal + frame


def _until_done(answers: BinaryIO, where: str) -> None:
    """Read until the switch has done all it was asked. Raises Permanent where it refuses, EOFError, OSError."""
    while True:
        _, kind, length, _ = _HEADER.unpack(_exactly(answers, _HEADER.size))
        body = _exactly(answers, length - _HEADER.size)
        if kind == _ERROR:
            raise Permanent(f"Open vSwitch does not send through {where}: OpenFlow error {body[:4].hex()}")
        if kind == _BARRIER_REPLY:
            return


def _exactly(answers: BinaryIO, size: int) -> bytes:
    found = answers.read(size)
    if len(found) < size:
        raise EOFError("it hung up")
    return found
