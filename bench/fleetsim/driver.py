"""One run: processes and hosts, the operation that a scenario is about, and what was seen of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

from bench.fleetsim.api import Api
from bench.fleetsim.audit import MAINTENANCE, Closed
from bench.fleetsim.crowd import Crowd
from bench.fleetsim.made import GBIT_S, Made
from bench.fleetsim.processes import Process, Settings, controller, free_port, nats_server
from bench.fleetsim.truth import What
from bench.fleetsim.webhook import Webhook
from sterna.adapters.nats.bus import NatsBus
from sterna.kit.clock import SystemClock

LOOK_S = 0.5
READY_S = 900.0
"""For each controller, until it has all hosts up."""
REBOOT_S = 300.0
"""Of a host, uncompressed."""
SPACE = UUID("6a1f0c2e-3b5d-4c8e-9f70-5d1e2a3b4c5d")
ENDED = frozenset({"done", "incomplete", "stopped", "undone", "paused"})
CLOSED_STAGES = frozenset({"draining", "empty", "between", "back"})


@dataclass(frozen=True)
class Options:
    """What a run is given beside its fleet."""

    seed: int = 1
    controllers: int = 2
    postgres: bool = False
    stream_gbit_s: float = 0.0
    """What one copy reaches on an idle link. 0: the link, which several connections fill."""
    limit_s: float = 1800.0
    """After so long the run is given up."""


@dataclass
class Seen:
    """What a watcher of the operation has seen. Times are monotonic seconds."""

    operation: dict[str, Any] = field(default_factory=dict)
    """As the API showed it last."""
    preview: dict[str, Any] = field(default_factory=dict)
    begun_s: float = 0.0
    ended_s: float = 0.0
    cpu_s: list[float] = field(default_factory=list)
    """Of each controller, when it began."""
    promises: list[tuple[float, float]] = field(default_factory=list)
    """(when it was looked at, the end that was promised then)"""
    carried: list[tuple[float, dict[str, int]]] = field(default_factory=list)
    """(when, bytes so far by link)"""
    events: list[tuple[float, str]] = field(default_factory=list)
    """What the scenario has done."""
    closed: dict[str, list[float]] = field(default_factory=dict)
    """Host -> when it was closed, opened, closed, ..."""


class Run:
    """What a scenario works with."""

    def __init__(self, made: Made, options: Options, crowd: Crowd, api: Api, webhook: Webhook) -> None:
        self.made, self.options, self.crowd, self.api, self.webhook = made, options, crowd, api, webhook
        self.controllers: list[Process] = []
        self.bus_server: Process | None = None
        self.folder = Path()
        """Of settings, sockets and logs."""
        self.seen = Seen()
        self._wall_s = time.time() - time.monotonic()

    # ------------------------------------------------------------ what scenarios do

    def note(self, what: str) -> None:
        """It happens now."""
        self.seen.events.append((time.monotonic(), what))
        print(f"  {time.monotonic() - self.seen.begun_s:6.1f} s  {what}", flush=True)

    def moved(self) -> int:
        """How many VMs have gone on on another host so far."""
        return sum(fact.what is What.RUNS and fact.why != "" for fact in self.crowd.truth.facts)

    async def until(self, reached: Callable[[], bool]) -> None:
        """Look at the truth until it is so."""
        while True:
            if reached():
                return
            await asyncio.sleep(0.05)

    async def lose(self, host: str) -> None:
        """It has no power any more."""
        self.note(f"{host} loses power")
        await self.crowd.power_off(host, "power lost")

    async def declare_dead(self, host: str) -> None:
        """As an operator does, once the host has fallen silent; asked again where it is refused."""
        while True:
            shown = await self.api.ask("GET", f"/v1/hosts/{host}")
            if shown["state"] not in ("up", "degraded"):
                break
            await asyncio.sleep(LOOK_S)
        await self.api.ask("POST", f"/v1/hosts/{host}/declare-dead", {"fenced": True})
        self.note(f"{host} is declared dead")

    # ------------------------------------------------------------ before the operation

    async def ready(self) -> None:
        """All controllers run and have all hosts up, and the rules are written. They are started one after the
        other: the first makes the tables, and takes all hosts and VMs into them."""
        for number, process in enumerate(self.controllers):
            process.start()
            await self._has_all_hosts(number)
        await self._has_all_vms()
        for name, vms in self.made.apart.items():
            await self.api.ask("PUT", f"/v1/rules/{name}", {"kind": "apart", "vms": sorted(vms)})
        for rack, hosts in self.made.racks().items():
            await self.api.ask("PUT", f"/v1/rules/{rack}", {"kind": "failure-domain", "hosts": hosts})

    async def _has_all_hosts(self, number: int) -> None:
        """Raises TimeoutError."""
        until = time.monotonic() + READY_S
        while True:
            health = await self.api.one(number, "/v1/health") or {}
            if health.get("hosts_up") == len(self.made.hosts):
                return
            if time.monotonic() > until:
                raise TimeoutError(f"controller {number} has {health.get('hosts_up')} hosts up")
            await asyncio.sleep(LOOK_S)

    async def _has_all_vms(self) -> None:
        """Raises TimeoutError."""
        until = time.monotonic() + READY_S
        while (known := await self._known_vms()) != len(self.made.vms):
            if time.monotonic() > until:
                raise TimeoutError(f"of {len(self.made.vms)} VMs the controllers know {known}")
            await asyncio.sleep(LOOK_S)

    async def _known_vms(self) -> int:
        found, cursor = 0, ""
        while True:
            page = await self.api.ask("GET", f"/v1/vms?limit=500{cursor}")
            found += len(page["vms"])
            if page["next_cursor"] is None:
                return found
            cursor = f"&cursor={page['next_cursor']}"

    # ------------------------------------------------------------ the operation

    async def begin(self, body: dict[str, Any]) -> None:
        """Ask for a preview, and for the operation."""
        self.seen.preview = await self.api.ask("POST", "/v1/operations/preview", body)
        id = str(uuid5(SPACE, f"{self.options.seed} {body}"))
        self.seen.cpu_s = [process.cpu_s() for process in self.controllers]
        self.crowd.longest_tick_s = 0.0
        self.seen.begun_s = time.monotonic()
        begun = await self.api.ask("POST", "/v1/operations", body | {"id": id, "reason": "make fleet"})
        self.seen.operation = begun
        if body["kind"] == "drain":
            self.seen.closed = {host: [time.monotonic()] for host in body["hosts"]}
        self.note(f"{body['kind']} of {len(begun['hosts'])} hosts")

    async def watch(self) -> None:
        """Until it has ended, or time is over."""
        until = self.seen.begun_s + self.options.limit_s
        path = f"/v1/operations/{self.seen.operation['id']}"
        while time.monotonic() < until:
            now, shown = time.monotonic(), await self.api.ask("GET", path)
            self.seen.operation = shown
            self.seen.carried.append((now, dict(self.crowd.links.carried)))
            if shown["promised_end_s"] is not None and shown["seen_at"]:
                at = self._monotonic(shown["seen_at"])
                if not self.seen.promises or self.seen.promises[-1][0] != at:
                    self.seen.promises.append((at, at + shown["promised_end_s"]))
            self._look_at_steps(shown["host_steps"])
            if shown["status"] in ENDED:
                break
            await asyncio.sleep(LOOK_S)
        ended = self.seen.operation["ended_at"]
        self.seen.ended_s = self._monotonic(ended) if ended else time.monotonic()
        self.note(f"the operation is {self.seen.operation['status']}")

    def _look_at_steps(self, steps: Collection[dict[str, Any]]) -> None:
        for step in steps:
            times = self.seen.closed.setdefault(step["host"], [])
            is_closed = step["stage"] in CLOSED_STAGES
            if is_closed is not bool(len(times) % 2) and (is_closed or times):
                times.append(self._monotonic(step["since"]))

    def _monotonic(self, at: str) -> float:
        return datetime.fromisoformat(at).timestamp() - self._wall_s

    def closings(self) -> list[Closed]:
        """For the auditor."""
        found = []
        for host, times in self.seen.closed.items():
            for start, end in zip(times[::2], [*times[1::2], float("inf")], strict=False):
                found.append(Closed(host, start, end))
        return found

    async def settled(self, limit_s: float = 60.0) -> None:
        """Until no migration is under way on any host that has power, or time is over."""
        until = time.monotonic() + limit_s
        while time.monotonic() < until:
            if not any(host.tasks for host in self.crowd.hosts.values()):
                return
            await asyncio.sleep(LOOK_S)


async def reboot(crowd: Crowd, host: str) -> None:
    """Its maintenance."""
    await crowd.power_off(host, MAINTENANCE)
    await asyncio.sleep(crowd.about(REBOOT_S / crowd.compress))
    await crowd.power_on(host)


@asynccontextmanager
async def run_of(made: Made, options: Options, folder: Path) -> AsyncIterator[Run]:
    """All processes, and the hosts."""
    port, hook_port = free_port(), free_port()
    url = f"nats://127.0.0.1:{port}"
    server = nats_server(folder, port)
    postgres, database = None, f"sqlite:///{folder}/controller.db"
    processes = [server]
    try:
        server.start()
        if options.postgres:
            from tests.postgres import Postgres

            postgres = Postgres()
            postgres.start()
            database = postgres.database()
        bus = await NatsBus.connect(url, name="crowd")
        await bus.wait_connected()
        stream = options.stream_gbit_s * GBIT_S or float("inf")
        crowd = Crowd(bus, made, SystemClock(), options.seed, stream)
        await crowd.start()
        settings = Settings(url, database, f"http://127.0.0.1:{hook_port}")
        made_controllers = [controller(folder, n, settings) for n in range(options.controllers)]
        api = Api([path for _, path in made_controllers])
        webhook = Webhook(hook_port, partial(reboot, crowd))
        await webhook.start()
        run = Run(made, options, crowd, api, webhook)
        run.folder, run.bus_server, run.controllers = folder, server, [process for process, _ in made_controllers]
        processes += run.controllers
        yield run
        await webhook.stop()
        await api.close()
        await crowd.stop()
        await bus.close()
    finally:
        for process in reversed(processes):
            process.stop()
        if postgres is not None:
            postgres.end()
