"""A lab guest as seen from outside: its own report over UDP, and pings."""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from pydantic import BaseModel

from sterna.lab.errors import LabError
from sterna.lab.namespaces import Namespaces
from sterna.lab.places import GUEST_STATUS_PORT
from sterna.lab.record import DiskRecord, GuestRecord, NicRecord

ANSWER_SECONDS = 0.2


class DiskStatus(BaseModel):
    """What the guest's checker says of one disk. `verified` counts 4 KiB blocks."""

    device: str
    blocks: int
    passes: int
    verified: int
    errors: int
    io_errors: int


class GuestStatus(BaseModel):
    """The guest's own report. Pages and blocks are 4 KiB; every error is one unit found wrong.

    `max_tick_gap_ms` is on the guest's own clock, which stops while the guest is paused: it shows a slow guest, not
    the blackout of a switch-over.
    """

    boot_id: str
    uptime_ms: int
    pages: int
    passes: int
    pages_verified: int
    page_errors: int
    blocks_verified: int
    block_errors: int
    io_errors: int
    last_error: str
    max_tick_gap_ms: float
    dirty_mib_s: int
    disks: list[DiskStatus]

    @property
    def clean(self) -> bool:
        """Whether the checker has found nothing wrong since the guest booted."""
        return self.page_errors == self.block_errors == self.io_errors == 0


class Guest:
    """A guest of the lab, wherever it runs."""

    def __init__(self, record: GuestRecord, outer: Namespaces) -> None:
        self._record = record
        self._outer = outer

    @property
    def uuid(self) -> str:
        """libvirt's UUID of the domain."""
        return self._record.uuid

    @property
    def name(self) -> str:
        """The domain's name."""
        return self._record.name

    @property
    def mac(self) -> str:
        """Of its NIC."""
        return self._record.mac

    @property
    def address(self) -> str:
        """On the tenant network."""
        return self._record.address

    @property
    def port_id(self) -> str:
        """The OVS iface-id of its NIC."""
        return self._record.port_id

    @property
    def disks(self) -> list[DiskRecord]:
        """As it was made, in the order vda, vdb, ..."""
        return self._record.disks

    @property
    def nics(self) -> list[NicRecord]:
        """Besides the first, in the order eth1, eth2, ..."""
        return self._record.nics

    def status(self, timeout: float = 5.0) -> GuestStatus:
        """The guest's report. Raises LabError when it does not answer within `timeout` seconds."""
        return self.send("status", timeout)

    def send(self, word: str, timeout: float = 5.0) -> GuestStatus:
        """Sends a word of those in `guest/workload.c` (`reset`, `corrupt-page`, ...) and returns the report.

        A word other than `status` may arrive twice when an answer is late.
        """
        deadline = time.monotonic() + timeout
        with self._outer.open_socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(ANSWER_SECONDS)
            asking.connect((self.address, GUEST_STATUS_PORT))
            while time.monotonic() < deadline:
                try:
                    asking.send(word.encode())
                    return GuestStatus.model_validate(json.loads(asking.recv(8192)))
                except (TimeoutError, OSError):
                    time.sleep(0.02)
        raise LabError(f"guest {self.name} ({self.address}) does not answer within {timeout:g} s")


class PingGap(BaseModel):
    """A time without a reply. Milliseconds; `start_ms` counts from the first ping."""

    start_ms: float
    length_ms: float


class PingResult(BaseModel):
    """What `pinger.py` prints at its end."""

    sent: int
    lost: int
    longest_gap_ms: float
    gaps: list[PingGap]
    unsent: int


class Ping:
    """Pings a guest every 5 ms from the tenant side for as long as the `with` block lasts."""

    def __init__(self, guest: Guest, outer: Namespaces, interval_ms: float = 5.0, address: str = "") -> None:
        self._guest = guest
        self._address = address or guest.address
        self._outer = outer
        self._interval_ms = interval_ms
        self._process: subprocess.Popen[str] | None = None
        self._result: PingResult | None = None

    def __enter__(self) -> "Ping":
        pinger = str(Path(__file__).with_name("pinger.py"))
        argv = [sys.executable, "-I", pinger, self._address, str(self._interval_ms)]
        self._process = subprocess.Popen(
            self._outer.command(argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if self._process.stdout is None or self._process.stdout.readline().strip() != "first reply":
            self._process.kill()
            self._process.communicate()
            raise LabError(f"guest {self._guest.name} ({self._address}) does not answer pings")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is None:
            return
        try:
            output, _ = self._process.communicate(timeout=20)
            self._result = PingResult.model_validate_json(output.strip().splitlines()[-1])
        finally:
            self._process.kill()

    @property
    def result(self) -> PingResult:
        """All of it, once the `with` block is over."""
        if self._result is None:
            raise LabError("the pings are not over yet")
        return self._result

    @property
    def sent(self) -> int:
        """Pings sent."""
        return self.result.sent

    @property
    def lost(self) -> int:
        """Pings that got no reply."""
        return self.result.lost

    @property
    def longest_gap_ms(self) -> float:
        """The longest time without a reply, in ms; about the interval when all is well."""
        return self.result.longest_gap_ms

    @property
    def gaps(self) -> list[PingGap]:
        """Every time of over 25 ms without a reply."""
        return self.result.gaps
