"""The arms of the benchmark: one way each to move guests between the same two hosts.

Called by the experiments. Each arm has guests of its own, as Sterna plugs NICs another way than virsh does; those
that are not being measured are paused. Both copy over the same link with the same downtime limit.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from sterna.cli.api_address import ApiAddress
from sterna.cli.client import Client
from sterna.lab.errors import LabError
from sterna.lab.guest_view import Guest
from sterna.lab.lab import Lab
from sterna.lab.record import Pace

MAX_DOWNTIME_MS = 100
LONGEST_S = 90.0


@dataclass
class Load:
    """What the guests are and how many."""

    guests: int = 1
    memory_mib: int = 512
    dirty_mib_s: int = 20
    disks: Sequence[str] = ("shared",)
    pace: Pace = "busy"
    """See `Lab.create_vm`."""


@dataclass
class Sample:
    """One move of all of an arm's guests as seen from outside. Times in ms; of several guests the worst."""

    arm: str
    number: int
    total_ms: float
    """From the request to the end of the command (virsh), to the end of the event stream (Sterna)."""
    job_ms: float
    """libvirt's own job, as the destination tells."""
    downtime_ms: float
    """As the destination's libvirt tells."""
    blackout_ms: float
    """The longest gap between two replies to pings sent every `Arm.ping_ms`."""
    lost: int
    """Of those pings, how many were never answered."""
    agents_cpu_ms: float | None
    """Processor time of both agents over the whole migration; None for virsh."""

    def row(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


class Arm:
    """Guests and a way to move them."""

    name = ""
    ping_ms = 5.0
    """How often the first guest is pinged."""

    def __init__(self, lab: Lab, load: Load) -> None:
        self.lab, self.load = lab, load
        self.guests: list[Guest] = []
        self.here = "host1"
        for number in range(load.guests):
            name = f"bench-{self.name}-{number}"
            made_of = asdict(load)
            del made_of["guests"]
            self.guests.append(lab.create_vm(name, "host1", **made_of))
            self.rest()

    @property
    def there(self) -> str:
        """Where the guests are not."""
        return next(name for name in self.lab.hosts if name != self.here)

    def rest(self) -> None:
        """Pause the guests, those that run: they cost the other arm nothing."""
        host = self.lab.hosts[self.here]
        running = host.virsh("list", "--name", "--state-running").split()
        for guest in self.guests:
            if guest.name in running:
                host.virsh("suspend", guest.name)

    def wake(self) -> None:
        """Let them run again."""
        for guest in self.guests:
            self.lab.hosts[self.here].virsh("resume", guest.name)

    def measure(self, number: int) -> Sample:
        """Move the guests to the other host. Raises LabError if anything about them is wrong afterwards."""
        there = self.there
        self.wake()
        before = [guest.status() for guest in self.guests]
        cpu = self.agents_cpu_ms()
        with self.pinging() as pings:
            began = time.monotonic()
            self.move(there)
            total_ms = (time.monotonic() - began) * 1000
            for guest in self.guests[:1]:  # the one that is pinged
                guest.status(timeout=LONGEST_S)
        spent = self.agents_cpu_ms()
        for guest, was in zip(self.guests, before, strict=True):
            after = guest.status()
            if self.runs_on(guest) != [there] or not after.clean or after.boot_id != was.boot_id:
                raise LabError(f"{guest.name} is not whole after {self.name} moved it: {after}")
        self.here = there
        jobs = [self.job(guest) for guest in self.guests]
        self.rest()
        return Sample(
            arm=self.name,
            number=number,
            total_ms=total_ms,
            job_ms=max(job["Time elapsed"] for job in jobs),
            downtime_ms=max(job["Total downtime"] for job in jobs),
            blackout_ms=max(ping.longest_gap_ms for ping in pings),
            lost=max(ping.lost for ping in pings),
            agents_cpu_ms=None if cpu is None or spent is None else spent - cpu,
        )

    def runs_on(self, guest: Guest) -> list[str]:
        """The hosts where it runs."""
        return self.lab.hosts_running(guest.name)

    @contextmanager
    def pinging(self) -> Iterator[list[Any]]:
        """Ping the first guest: pinging all of them would be a load of its own."""
        with self.lab.ping(self.guests[0], self.ping_ms) as ping:
            yield [ping]

    def move(self, there: str) -> None:
        """Return when all have moved and everything is cleaned up."""
        raise NotImplementedError

    def agents_cpu_ms(self) -> float | None:
        """Processor time that both agents have used so far."""
        return None

    def job(self, guest: Guest) -> dict[str, float]:
        """The last finished job's numbers of milliseconds."""
        text = self.lab.hosts[self.here].virsh("domjobinfo", "--completed", guest.name)
        lines = (line.partition(":") for line in text.splitlines())
        return {key.strip(): float(value.split()[0]) for key, _, value in lines if value.strip().endswith(" ms")}


class Virsh(Arm):
    """`virsh migrate --live --p2p`, one guest after another, and nothing around it."""

    name = "virsh"

    def move(self, there: str) -> None:
        """One command each on the source."""
        for guest in self.guests:
            self.migrate(guest, there)

    def migrate(self, guest: Guest, there: str, *, longest_s: float = LONGEST_S) -> None:
        """One command. Raises LabError where virsh fails, or is not done in time."""
        here, to = self.lab.hosts[self.here], self.lab.hosts[there]
        here.virsh("migrate-setmaxdowntime", guest.name, str(MAX_DOWNTIME_MS))
        flags = ("--live", "--p2p", "--persistent", "--undefinesource")
        stream = ("--migrateuri", f"tcp://{to.address}", *(() if to.insecure else ("--tls",)))
        here.virsh("migrate", *flags, guest.name, to.peer_uri, *stream, timeout=longest_s)


class Sterna(Arm):
    """A request to the API for each, all at once, until both halves of each are reported done."""

    name = "sterna"

    def __init__(self, lab: Lab, load: Load) -> None:
        super().__init__(lab, load)
        self.api = Client.of(ApiAddress(lab.controller_url or "", lab.controller_token, lab.controller_ca or None))

    def move(self, there: str) -> None:
        """Ask, and listen until each has ended: as `sterna migrate` does."""
        asked = [self.ask(guest, there) for guest in self.guests]
        for migration in asked:
            self.await_end(migration)

    def ask(self, guest: Guest, there: str, **more: Any) -> str:
        """The new migration's id."""
        request = {"id": str(uuid.uuid4()), "vm": guest.name, "destination": there}
        objective = {"max_downtime_ms": MAX_DOWNTIME_MS} | more
        return str(self.api.post("/v1/migrations", request | objective)["id"])

    def await_end(self, migration: str) -> None:
        """Raises LabError where it ends as anything but `completed`."""
        for event, data in self.api.events(migration):
            if event == "end" and data["status"] != "completed":
                told = self.api.get(f"/v1/migrations/{migration}")
                raise LabError(f"migration {migration} is {data['status']}: {told.get('reason')}")

    def agents_cpu_ms(self) -> float:
        """Of both agents, from the kernel: user and system time."""
        tick_ms = 1000 / os.sysconf("SC_CLK_TCK")
        total = 0.0
        for host in self.lab.hosts:
            with open(f"/proc/{self.lab.agent_pid(host)}/stat", encoding="utf-8") as stat:
                fields = stat.read().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) * tick_ms
        return total
