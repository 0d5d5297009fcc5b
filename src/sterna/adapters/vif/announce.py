"""Announcing to the network where a guest is, from the host's side: frames sent through the guest's own port. QEMU
does so, too (some 0.3 ms after its RESUME event, and again after 30 to 50 ms), out of the tap; until the network
knows, frames for the guest go to its old host. Called by `ovs.py` while the guest is paused: no process is started
for it. The switch takes a frame as coming from a port by OpenFlow's packet-out; of that protocol (1.3.5) only the
messages it takes are written here.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from sterna.adapters.vif import ovsdb
from sterna.adapters.vif.frames import announcements
from sterna.domain.errors import Permanent, Temporary
from sterna.domain.model import Nic

_LIMIT_S = 5.0
"""It takes about a millisecond."""
_VERSION, _HEADER = 4, struct.Struct("!BBHI")
_HELLO, _ERROR, _PACKET_OUT, _BARRIER, _BARRIER_REPLY = 0, 1, 13, 20, 21
_NORMAL, _NO_BUFFER = 0xFFFFFFFA, 0xFFFFFFFF


def say(api: Any, remote: str, bridge: str, port: str, nic: Nic) -> None:
    """The guest of this port of an Open vSwitch bridge is here. Raises NotFound, Temporary, Permanent."""
    send_as(remote, bridge, ovsdb.number_of(api, port, bridge), announcements(nic))


def send_as(remote: str, bridge: str, ofport: int, frames: Sequence[bytes]) -> None:
    """Hand the switch frames as if they had come in through that port. Raises Temporary, Permanent.

    Blocks, a millisecond as a rule: it runs in a thread, so that nothing that holds the event loop up, such as a
    journal's fsync, holds them up.
    """
    folder = Path(remote.removeprefix("unix:")).parent if remote.startswith("unix:") else Path("/run/openvswitch")
    try:
        with socket.socket(socket.AF_UNIX) as switch:
            switch.settimeout(_LIMIT_S)
            switch.connect(str(folder / f"{bridge}.mgmt"))
            out = b"".join(_message(_PACKET_OUT, _packet_out(ofport, frame)) for frame in frames)
            switch.sendall(_message(_HELLO) + out + _message(_BARRIER))
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
