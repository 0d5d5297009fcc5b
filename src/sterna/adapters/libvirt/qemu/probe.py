"""`ports.probe.StreamProbe`: a TCP connection to a port of the range that libvirt gives to QEMU's streams.

A firewall that drops them costs over two minutes in the copy itself, and libvirt's error then names its own
connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from pathlib import Path

from sterna.adapters.libvirt.qemu.conf import QEMU_CONF, settings_of
from sterna.domain.errors import Temporary, Unreachable
from sterna.domain.model import Refusal
from sterna.domain.untrusted import STREAM_PORTS
from sterna.kit.names import Numeric, family_of, resolved

_BEGINS_S = 10.0
"""From here to QEMU's listening, by when libvirt has taken the ports; it takes a second or two."""
_EXPECT_S = 10.0
"""For the other side to come; it does at once."""
KNOCK_S = 4.0
"""A SYN that is lost is sent again after 1 s and 3 s; hosts that migrate to each other answer in milliseconds."""
_GREETING = b"sterna\n"
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_TAKES = ("01", "0A")
"""Established; listening."""


class PlainProbe:
    """On one host's migration address."""

    def __init__(self, address: str, conf: Path = QEMU_CONF) -> None:
        self._address, self._conf = address, conf
        self._expecting: dict[asyncio.Task[None], int] = {}
        self._promised: dict[str, tuple[float, int]] = {}

    async def expect(self, needed: int = 1, promise_to: str = "") -> int:
        """Take one connection; the port, 0 where the address is not one to listen on, or the resolver is silent.
        `needed`: how many must be free. `promise_to`: this migration will have them. Raises Temporary, Permanent
        for a name that cannot be resolved."""
        try:
            addresses = await resolved(self._address, setting="`address` of [migration]")
        except Unreachable:
            return 0
        first = self._expect(addresses[0], self._promised_to_others(promise_to), needed)
        if promise_to and first:
            self._promised[promise_to] = (asyncio.get_running_loop().time() + _BEGINS_S, needed)
        return first

    def _promised_to_others(self, migration: str) -> int:
        now = asyncio.get_running_loop().time()
        self._promised = {m: promise for m, promise in self._promised.items() if promise[0] > now}
        return sum(count for other, (_, count) in self._promised.items() if other != migration)

    def _expect(self, address: Numeric, promised: int, needed: int) -> int:
        """libvirt hands out the lowest free port, and QEMU listens there half a second later. So the first free
        ones are left to whom they are promised, and nothing is bound to find out which are free."""
        ports = stream_ports(self._conf)
        taken = streams_of(ports) - set(self._expecting.values())
        free = [port for port in ports if port not in taken]
        if len(free) < promised + needed:
            raise _no_port(ports, needed)
        for port in free[promised:]:
            try:
                listening = _listen(address, port)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                return 0  # an address that a router translates: this proves nothing
            waiting = asyncio.create_task(_serve(listening), name="stream probe")
            self._expecting[waiting] = port
            waiting.add_done_callback(self._expecting.pop)
            return port
        raise _no_port(ports, needed)

    async def knock(self, address: str, port: int) -> Refusal | None:
        """Connect; None where the other side's greeting arrives."""
        try:
            async with asyncio.timeout(KNOCK_S):
                reader, writer = await asyncio.open_connection(address, port)
                greeting = await reader.read(len(_GREETING))
                writer.close()
                await writer.wait_closed()  # the port is free at once on the other side
            failure = "" if greeting == _GREETING else "somebody else answers"
        except TimeoutError:
            failure = f"no answer within {KNOCK_S:g} s"
        except OSError as error:
            failure = error.strerror or str(error)
        if not failure:
            return None
        message = f"no memory stream reaches {address}, port {port}: {failure}"
        ports = stream_ports(self._conf)
        fix = (
            f"let TCP ports {ports.start}-{ports.stop - 1} pass from this host to {address} (a firewall there or "
            "between); or, where only SSH is open: --transport ssh"
        )
        return Refusal(code="stream-blocked", message=message, fix=fix)


def stream_ports(conf: Path = QEMU_CONF) -> range:
    """libvirt's range, as `qemu.conf` says."""
    settings = settings_of(conf)
    try:
        first = int(settings.get("migration_port_min", STREAM_PORTS.start))
        last = int(settings.get("migration_port_max", STREAM_PORTS.stop - 1))
    except ValueError:
        return STREAM_PORTS
    return range(first, last + 1) if 0 < first <= last < 2**16 else STREAM_PORTS


def streams_of(ports: range) -> set[int]:
    """Those with a listener, or in use by a connection. QEMU stops listening when the stream has come, and libvirt
    keeps the port for it until the migration ends."""
    found = set()
    for table in _TABLES:
        with contextlib.suppress(OSError):
            for line in table.read_text().splitlines()[1:]:
                _, local, _, state, *_ = line.split()
                if state in _TAKES and (port := int(local.rpartition(":")[2], 16)) in ports:
                    found.add(port)
    return found


def _no_port(ports: range, needed: int) -> Temporary:
    range_ = f"libvirt's range for streams, {ports.start}-{ports.stop - 1}"
    message = f"every port of {range_}, is taken"
    if needed > 1:
        message = f"fewer than {needed} ports of {range_}, are free, as local disks need them"
    fix = "wait for the migrations under way, or widen migration_port_min and migration_port_max in qemu.conf"
    return Temporary(message, fix=fix, delay_s=2.0)


def _listen(address: Numeric, port: int) -> socket.socket:
    listening = socket.socket(family_of(address), socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was closed a moment ago is free
        listening.setblocking(False)
        listening.bind((str(address), port))
        listening.listen(1)
    except OSError:
        listening.close()
        raise
    return listening


async def _serve(listening: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with listening, contextlib.suppress(OSError):  # TimeoutError is one
        async with asyncio.timeout(_EXPECT_S):
            came, _ = await loop.sock_accept(listening)
            listening.close()  # the port is free before the caller learns its number: QEMU is next to use it
            with came:
                came.setblocking(False)
                await loop.sock_sendall(came, _GREETING)
                await loop.sock_recv(came, 1)  # until the other side closes, whose port then rests for a while
