"""What happens at a switch-over, by one clock: QEMU's own events, and frames by the kernel's time."""

from __future__ import annotations

import re
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from sterna.lab.lab import Lab
from sterna.lab.pinger import SO_TIMESTAMPNS

ALL_FRAMES, RARP = 0x0003, 0x8035
_LINE = re.compile(r"event (\w+) at (\d+\.\d+) ")


class QemuEvent(NamedTuple):
    """`at`: seconds since the epoch, as QEMU says."""

    host: str
    kind: str
    at: float


class Frame(NamedTuple):
    """On the network between the hosts; `at`: seconds since the epoch, as the kernel says."""

    at: float
    data: bytes

    @property
    def protocol(self) -> int:
        """Its EtherType."""
        return int.from_bytes(self.data[12:14])

    @property
    def sender(self) -> str:
        """MAC address."""
        return self.data[6:12].hex(":")


@contextmanager
def qemu_events(
    lab: Lab, kinds: str = "STOP|RESUME", *, then: Callable[[QemuEvent], None] | None = None
) -> Iterator[list[QemuEvent]]:
    """All that come, of every host's guests, in order; `then` is called with each in a thread of its host's own."""
    heard: list[QemuEvent] = []

    def take(host: str, process: subprocess.Popen[str]) -> None:
        for line in process.stdout or ():
            if found := _LINE.search(line):
                heard.append(QemuEvent(host, found[1], float(found[2])))
                if then is not None:
                    then(heard[-1])

    argv = ["stdbuf", "-oL", "virsh", "qemu-monitor-event", "--loop", "--regex", "--event", f"^({kinds})$"]
    listening = []
    for name, host in lab.hosts.items():
        process = subprocess.Popen(host.inside.command(argv), stdout=subprocess.PIPE, text=True)
        listening.append(process)
        threading.Thread(target=take, args=(name, process), daemon=True).start()
    try:
        yield heard
    finally:
        for process in listening:
            process.kill()
            process.wait()


@contextmanager
def frames(lab: Lab, protocol: int = ALL_FRAMES) -> Iterator[list[Frame]]:
    """All of that EtherType that pass between the hosts' guests."""
    seen: list[Frame] = []
    with lab.outer.open_socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        listening.bind(("tenant", protocol))

        def listen() -> None:
            while True:
                try:
                    frame, control, _, _ = listening.recvmsg(2048, 64)
                except OSError:
                    return
                seconds, nanoseconds = struct.unpack("qq", control[0][2][:16])
                seen.append(Frame(seconds + nanoseconds / 1e9, frame))

        threading.Thread(target=listen, daemon=True).start()
        yield seen
