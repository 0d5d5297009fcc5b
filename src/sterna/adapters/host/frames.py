"""Do packets of full size reach another host? Measured by the kernel's own TCP, without privileges.

Both kernels name their largest packets when they connect (MSS). Where a switch between them takes smaller ones
only, a connection is made, and what fills a packet is lost silently: a copy begins, and hangs.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios

from sterna.domain.doctor.looks import Frames
from sterna.domain.errors import SternaError
from sterna.kit.names import family_of, resolved
from sterna.ports.doctor import Sent

CONNECT_S = 4.0
ACKNOWLEDGED_S = 4.0
"""Hosts that migrate to each other acknowledge within milliseconds. A lost packet is sent again some five times."""
LOOK_EVERY_S = 0.02
PAYLOAD = bytes(64 << 10)
"""Several packets, also of jumbo frames; less than a receiver's buffer."""
_TCP_MAXSEG = socket.TCP_MAXSEG


class TcpPath:
    """Implements ports.doctor.PathProbe."""

    async def resolve(self, address: str) -> str:
        """Why it is not resolved."""
        try:
            await resolved(address, setting="`address` of [migration]")
        except SternaError as error:
            return error.message
        return ""

    async def send(self, address: str, port: int) -> Sent:
        """Whether the first of them arrive. The other side closes as soon as it has read something."""
        try:
            numeric = (await resolved(address, setting="`address` of [migration]"))[0]
            with socket.socket(family_of(numeric), socket.SOCK_STREAM) as sending:
                sending.setblocking(False)
                loop = asyncio.get_running_loop()
                async with asyncio.timeout(CONNECT_S):
                    await loop.sock_connect(sending, (str(numeric), port))
                    await loop.sock_recv(sending, 64)  # its greeting: the way back
                segment = sending.getsockopt(socket.IPPROTO_TCP, _TCP_MAXSEG)
                return Sent(await _outcome(sending), segment)
        except (OSError, TimeoutError, SternaError):
            return Sent(Frames.UNKNOWN)


async def _outcome(sending: socket.socket) -> Frames:
    try:
        sent = sending.send(PAYLOAD)
        before = sent
        loop = asyncio.get_running_loop()
        until = loop.time() + ACKNOWLEDGED_S
        while loop.time() < until:
            if _unacknowledged(sending) < before:
                return Frames.PASSED
            await asyncio.sleep(LOOK_EVERY_S)
    except (ConnectionResetError, BrokenPipeError):
        return Frames.PASSED  # it has read some, and closed
    return Frames.LOST


def _unacknowledged(sending: socket.socket) -> int:
    """Bytes that are sent or wait to be, and are not acknowledged. Raises ConnectionResetError."""
    failed = sending.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if failed:
        raise ConnectionResetError(failed, "reset")
    return int(struct.unpack("i", fcntl.ioctl(sending, termios.TIOCOUTQ, bytes(4)))[0])
