"""Pings one address at a fixed interval until its stdin ends, then prints one line of JSON.

Run as a process of its own (`python pinger.py ADDRESS INTERVAL_MS`) with the standard library only, so that a busy
test does not disturb the measurement. Replies are timed by the kernel, not when Python gets round to them.
A gap is the time between two replies that follow each other; the pinger's own late sends are counted apart.
"""

import itertools
import json
import os
import select
import socket
import struct
import sys
import time
from typing import Any

GAP_WORTH_NOTING_MS = 25.0
FIRST_REPLY_SECONDS = 10.0
LINGER_SECONDS = 0.5
SO_TIMESTAMPNS = 35
ECHO_REQUEST, ECHO_REPLY = 8, 0


def echo_request(identifier: int, sequence: int) -> bytes:
    """An ICMP echo request with its checksum."""
    body = struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, identifier, sequence & 0xFFFF) + b"sterna!!"
    total = sum(struct.unpack(f"!{len(body) // 2}H", body))
    total = (total >> 16) + (total & 0xFFFF)
    total += total >> 16
    return body[:2] + struct.pack("!H", ~total & 0xFFFF) + body[4:]


class Pinger:
    """The state of one run."""

    def __init__(self, address: str, interval: float) -> None:
        self.address = address
        self.interval = interval
        self.identifier = os.getpid() & 0xFFFF
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.sent = 0
        self.late = 0
        self.answered: set[int] = set()
        self.arrivals: list[float] = []
        self.started = time.time()

    def send(self) -> None:
        """Sends the next ping."""
        try:
            self.socket.sendto(echo_request(self.identifier, self.sent), (self.address, 0))
        except OSError:
            return
        self.sent += 1

    def receive(self) -> None:
        """Takes one packet; counts it if it answers one of ours."""
        packet, control, _, peer = self.socket.recvmsg(2048, 64)
        header = (packet[0] & 15) * 4
        kind, _, _, identifier, sequence = struct.unpack("!BBHHH", packet[header : header + 8])
        if kind != ECHO_REPLY or identifier != self.identifier or peer[0] != self.address:
            return
        seconds, nanoseconds = struct.unpack("qq", control[0][2][:16])
        full = sequence + (self.sent - 1 - sequence) // 65536 * 65536
        if full not in self.answered:
            self.answered.add(full)
            self.arrivals.append(seconds + nanoseconds / 1e9)

    def wait(self, until: float, stop_fd: int | None) -> bool:
        """Receives until the monotonic time `until`; True when stdin has ended."""
        watched: list[Any] = [self.socket] if stop_fd is None else [self.socket, stop_fd]
        while (left := until - time.monotonic()) > 0:
            ready = select.select(watched, [], [], left)[0]
            if self.socket in ready:
                self.receive()
            if stop_fd in ready:
                return True
        return False

    def run(self) -> bool:
        """Pings until stdin ends; False when there was no first reply."""
        begin = due = time.monotonic()
        announced = False
        while True:
            self.send()
            due += self.interval
            if due < time.monotonic() - 2 * self.interval:
                self.late += 1
                due = time.monotonic()
            if self.wait(due, 0 if announced else None):
                break
            if self.arrivals and not announced:
                announced = True
                # what was lost before the first reply (address resolution) is not this run's
                self.started, self.sent, self.answered, self.arrivals = time.time(), 0, set(), []
                self.identifier ^= 0x8000
                print("first reply", flush=True)
            if not announced and time.monotonic() - begin > FIRST_REPLY_SECONDS:
                return False
        self.wait(time.monotonic() + LINGER_SECONDS, None)
        return True

    def summary(self, ended: float) -> dict[str, object]:
        """The result; see `PingResult`."""
        # replies that came after the last ping was sent end no gap that this run was there to see
        arrivals = sorted(arrival for arrival in self.arrivals if arrival <= ended)
        times = [self.started, *arrivals, ended]
        spans = [(start, (end - start) * 1000) for start, end in itertools.pairwise(times)]
        gaps = [
            {"start_ms": (start - self.started) * 1000, "length_ms": length}
            for start, length in spans
            if length > GAP_WORTH_NOTING_MS
        ]
        return {
            "sent": self.sent,
            "lost": self.sent - len(self.answered),
            "longest_gap_ms": max(length for _, length in spans),
            "gaps": gaps,
            "unsent": self.late,
        }


def main() -> int:
    """Runs until stdin ends."""
    pinger = Pinger(sys.argv[1], float(sys.argv[2]) / 1000)
    if not pinger.run():
        return 1
    print(json.dumps(pinger.summary(time.time() - LINGER_SECONDS)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
