"""The arms of the benchmark: one way each to move the same kind of guest between the same two hosts.

Called by `__main__.py`. Each arm has a guest of its own, as Sterna plugs NICs another way than virsh does; the one
that is not being measured is paused. Both copy with the same bandwidth and downtime limits.
"""

from __future__ import annotations

import os
import time
import uuid
from dataclasses import asdict, dataclass
from typing import Any

import httpx2

from sterna.lab.errors import LabError
from sterna.lab.guest_view import Guest
from sterna.lab.lab import Lab

BANDWIDTH_MIB_S = 100
MAX_DOWNTIME_MS = 100
POLL_S = 0.005
"""Between two looks at a migration's record: the most that it adds to Sterna's time."""
LONGEST_S = 60.0


@dataclass
class Sample:
    """One migration as seen from outside. Times in ms."""

    arm: str
    number: int
    total_ms: float
    """From the request to the end of the command (virsh), to `completed` in the records (Sterna)."""
    job_ms: float
    """libvirt's own job, as the destination tells."""
    downtime_ms: float
    """As the destination's libvirt tells."""
    blackout_ms: float
    """The longest gap between two replies to pings sent every 5 ms."""
    agents_cpu_ms: float | None
    """Processor time of both agents over the whole migration; None for virsh."""

    def row(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


class Arm:
    """A guest and a way to move it."""

    name = ""

    def __init__(self, lab: Lab, *, memory_mib: int, dirty_mib_s: int) -> None:
        self.lab = lab
        self.guest: Guest = lab.create_vm(
            f"bench-{self.name}", "host1", memory_mib=memory_mib, dirty_mib_s=dirty_mib_s, disks=("shared",)
        )
        self.here = "host1"
        self.rest()

    def rest(self) -> None:
        """Pause the guest: it costs the other arm nothing."""
        self.lab.hosts[self.here].virsh("suspend", self.guest.name)

    def measure(self, number: int) -> Sample:
        """Move the guest to the other host. Raises LabError if anything about it is wrong afterwards."""
        there = next(name for name in self.lab.hosts if name != self.here)
        self.lab.hosts[self.here].virsh("resume", self.guest.name)
        before = self.guest.status()
        cpu = self.agents_cpu_ms()
        with self.lab.ping(self.guest) as ping:
            began = time.monotonic()
            self.move(there)
            total_ms = (time.monotonic() - began) * 1000
        spent = self.agents_cpu_ms()
        after = self.guest.status()
        if self.lab.hosts_running(self.guest.name) != [there] or not after.clean or after.boot_id != before.boot_id:
            raise LabError(f"{self.guest.name} is not whole after {self.name} moved it: {after}")
        self.here = there
        job = self._job()
        self.rest()
        return Sample(
            arm=self.name,
            number=number,
            total_ms=total_ms,
            job_ms=job["Time elapsed"],
            downtime_ms=job["Total downtime"],
            blackout_ms=ping.longest_gap_ms,
            agents_cpu_ms=None if cpu is None or spent is None else spent - cpu,
        )

    def move(self, there: str) -> None:
        """Return when it has moved and everything is cleaned up."""
        raise NotImplementedError

    def agents_cpu_ms(self) -> float | None:
        """Processor time that both agents have used so far."""
        return None

    def _job(self) -> dict[str, float]:
        """The last finished job's numbers of milliseconds."""
        text = self.lab.hosts[self.here].virsh("domjobinfo", "--completed", self.guest.name)
        lines = (line.partition(":") for line in text.splitlines())
        return {key.strip(): float(value.split()[0]) for key, _, value in lines if value.strip().endswith(" ms")}


class Virsh(Arm):
    """`virsh migrate --live --p2p`, and nothing around it."""

    name = "virsh"

    def move(self, there: str) -> None:
        """One command on the source."""
        here, to = self.lab.hosts[self.here], self.lab.hosts[there]
        here.virsh("migrate-setmaxdowntime", self.guest.name, str(MAX_DOWNTIME_MS))
        flags = ("--live", "--p2p", "--persistent", "--undefinesource", "--bandwidth", str(BANDWIDTH_MIB_S))
        here.virsh(
            "migrate",
            *flags,
            self.guest.name,
            to.peer_uri,
            "--migrateuri",
            f"tcp://{to.address}",
            timeout=LONGEST_S,
        )


class Sterna(Arm):
    """A request to the API, until both halves are reported done."""

    name = "sterna"

    def __init__(self, lab: Lab, *, memory_mib: int, dirty_mib_s: int) -> None:
        super().__init__(lab, memory_mib=memory_mib, dirty_mib_s=dirty_mib_s)
        self.api = httpx2.Client(base_url=lab.controller_url or "", timeout=30)

    def move(self, there: str) -> None:
        """Ask, and look until it is `completed`."""
        objective = {"max_downtime_ms": MAX_DOWNTIME_MS, "bandwidth_bytes_s": BANDWIDTH_MIB_S << 20}
        request = {"id": str(uuid.uuid4()), "vm": self.guest.name, "destination": there} | objective
        answer = self.api.post("/v1/migrations", json=request)
        if answer.status_code != 202:
            raise LabError(f"refused: {answer.text}")
        deadline = time.monotonic() + LONGEST_S
        while (seen := self.api.get(f"/v1/migrations/{request['id']}").json())["status"] != "completed":
            if seen["status"] in ("failed", "cancelled", "error") or time.monotonic() > deadline:
                raise LabError(f"migration {request['id']} is {seen['status']}: {seen.get('reason')}")
            time.sleep(POLL_S)

    def agents_cpu_ms(self) -> float | None:
        """Of both agents, from the kernel: user and system time."""
        tick_ms = 1000 / os.sysconf("SC_CLK_TCK")
        total = 0.0
        for host in self.lab.hosts:
            with open(f"/proc/{self.lab.agent_pid(host)}/stat", encoding="utf-8") as stat:
                fields = stat.read().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) * tick_ms
        return total
