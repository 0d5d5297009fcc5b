"""What a fleet costs a controller: a real controller process and a real NATS server, a thousand simulated agents.

    python -m bench.records [--hosts N] [--vms N] [--copies N] [--watchers N] [--postgres] [PART ...]

Parts: `idle`, `reads`, `starts`, `copies`. Prints one JSON object. CPU is the controller's own CPU time over the
part's length, which a busy machine hardly changes; latencies are as noisy as the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2

from bench.crowd import Crowd
from sterna.adapters.nats.bus import NatsBus

PARTS = ("idle", "reads", "starts", "copies")
IDLE_S = 20.0
READS = 100
CLIENTS = 50
STREAMS_PER_TOKEN = 60
"""The API gives each user 64."""

Row = dict[str, Any]


class Controller:
    """A `sterna controller` process."""

    def __init__(self, folder: Path, bus: str, database: str) -> None:
        self.socket = str(folder / "api.sock")
        settings = folder / "controller.toml"
        settings.write_text(
            f'database = "{database}"\nlog_level = "warning"\n[bus]\nurl = "{bus}"\n'
            f'[access]\nsocket = "{self.socket}"\n'
        )
        with (folder / "controller.log").open("ab") as log:
            command = [sys.executable, "-m", "sterna", "controller", "--config", str(settings)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def cpu_s(self) -> float:
        """User and system time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mib(self) -> int:
        """Resident now."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) // 1024
        return 0


class Cost:
    """CPU seconds and time since it was made."""

    def __init__(self, controller: Controller) -> None:
        self._controller, self._cpu, self._at = controller, controller.cpu_s(), time.monotonic()

    def row(self) -> Row:
        """What it took since."""
        cpu, took = self._controller.cpu_s() - self._cpu, time.monotonic() - self._at
        memory = self._controller.memory_mib()
        return {"took_s": round(took, 2), "cpu_s": round(cpu, 2), "core": round(cpu / took, 3), "rss_mib": memory}


def quantiles(times_s: list[float]) -> Row:
    """In ms."""
    ordered = sorted(times_s)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return {"n": len(ordered), "p50_ms": round(statistics.median(ordered) * 1000), "p99_ms": round(p99 * 1000)}


class Bench:
    """One run."""

    def __init__(self, asked: argparse.Namespace, folder: Path, crowd: Crowd, controller: Controller) -> None:
        self._asked, self._folder, self._crowd, self._controller = asked, folder, crowd, controller
        transport = httpx2.AsyncHTTPTransport(uds=controller.socket)
        self._http = httpx2.AsyncClient(transport=transport, base_url="http://localhost", timeout=300)
        self._vms = [vm.uuid for host in crowd.hosts.values() for vm in host.vms.values()]
        self._next = iter(self._vms)
        self._chance = random.Random(17)  # noqa: S311

    async def ready(self) -> Row:
        """Until the controller has all hosts up."""
        cost = Cost(self._controller)
        while True:
            try:
                health = (await self._http.get("/v1/health")).json()
                if health.get("hosts_up") == len(self._crowd.hosts):
                    break
            except httpx2.HTTPError:
                pass
            await asyncio.sleep(1)
        await self._http.get("/v1/vms")
        return cost.row()

    async def idle(self) -> Row:
        """Nothing happens."""
        before = dict(self._crowd.calls)
        cost = Cost(self._controller)
        await asyncio.sleep(IDLE_S)
        calls = {k: v - before.get(k, 0) for k, v in self._crowd.calls.items() if v != before.get(k, 0)}
        return cost.row() | {"calls": calls}

    async def reads(self) -> Row:
        """One client, one thing after the other."""
        names = list(self._crowd.hosts)
        rows: Row = {}
        paths: tuple[tuple[str, Callable[[], str]], ...] = (
            ("vms", lambda: "/v1/vms?limit=50"),
            ("vm", lambda: f"/v1/vms/{self._chance.choice(self._vms)}"),
            ("hosts", lambda: "/v1/hosts?limit=50"),
            ("host", lambda: f"/v1/hosts/{self._chance.choice(names)}"),
            ("migrations", lambda: "/v1/migrations"),
        )
        for what, path in paths:
            times: list[float] = []
            cost, until = Cost(self._controller), time.monotonic() + 30
            while len(times) < READS and time.monotonic() < until:
                began = time.monotonic()
                (await self._http.get(path())).raise_for_status()
                times.append(time.monotonic() - began)
            rows[what] = quantiles(times) | {"cpu_ms_each": round(cost.row()["cpu_s"] / len(times) * 1000, 1)}
        return rows

    async def starts(self) -> Row:
        """Many clients want migrations at once."""
        times: list[float] = []
        before = dict(self._crowd.calls)
        wanted = iter(range(self._asked.copies))
        cost = Cost(self._controller)

        async def client() -> None:
            for _ in wanted:
                began = time.monotonic()
                await self._start()
                times.append(time.monotonic() - began)

        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        row = cost.row()
        calls = {k: v - before.get(k, 0) for k, v in self._crowd.calls.items() if v != before.get(k, 0)}
        return row | quantiles(times) | {"per_s": round(len(times) / row["took_s"], 1), "calls": calls}

    async def _start(self) -> None:
        vm = next(self._next)
        source = next(h.name for h in self._crowd.hosts.values() if vm in h.vms)
        to = self._chance.choice([name for name in self._crowd.hosts if name != source])
        body = {"id": str(uuid4()), "vm": vm, "destination": to}
        (await self._http.post("/v1/migrations", json=body)).raise_for_status()

    async def copies(self) -> Row:
        """They run and are watched; then all end at once."""
        watchers = Watchers(self._controller.socket, self._asked.watchers)
        await watchers.start(self._http)
        await asyncio.sleep(5)
        watchers.lags.clear()
        cost = Cost(self._controller)
        await asyncio.sleep(IDLE_S)
        running = cost.row() | {"lag": quantiles(watchers.lags or [0.0]), "read_bytes": watchers.read}
        watchers.lags.clear()
        cost = Cost(self._controller)
        ended = await self._crowd.finish()
        while (await self._http.get("/v1/migrations?status=completed&limit=500")).json()["next_cursor"] is None:
            found = (await self._http.get("/v1/migrations?status=completed&limit=500")).json()["migrations"]
            if len(found) >= ended:
                break
            await asyncio.sleep(0.5)
        ending = cost.row() | {"ended": ended, "lag": quantiles(watchers.lags or [0.0])}
        await watchers.stop()
        return {"running": running, "ending": ending}


class Watchers:
    """Clients of the fleet's event stream; one of them looks at what it reads."""

    def __init__(self, socket: str, number: int) -> None:
        self._socket, self._number = socket, number
        self._tasks: list[asyncio.Task[None]] = []
        self.lags: list[float] = []
        self.read = 0

    async def start(self, http: httpx2.AsyncClient) -> None:
        """Connect, with enough tokens."""
        token = ""
        for number in range(self._number):
            if number % STREAMS_PER_TOKEN == 0:
                body = {"name": f"watcher{number}-{uuid4().hex[:6]}", "role": "viewer", "days": 1}
                token = (await http.post("/v1/tokens", json=body)).raise_for_status().json()["token"]
            reader, writer = await asyncio.open_unix_connection(self._socket)
            head = f"GET /v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
            writer.write(head.encode())
            self._tasks.append(asyncio.create_task(self._drain(reader, looks=number == 0)))

    async def _drain(self, reader: asyncio.StreamReader, *, looks: bool) -> None:
        while chunk := (await reader.readline() if looks else await reader.read(65536)):
            self.read += len(chunk)
            if looks and chunk.startswith(b"data: ") and (at := json.loads(chunk[6:]).get("at")):
                self.lags.append((datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds())

    async def stop(self) -> None:
        """Hang up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@asynccontextmanager
async def fleet(asked: argparse.Namespace) -> AsyncIterator[Bench]:
    """NATS server, agents, controller."""
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="sterna-bench-") as made:
        folder, port = Path(made), _free_port()
        url = f"nats://127.0.0.1:{port}"
        postgres = None
        try:
            command = ["nats-server", "-a", "127.0.0.1", "-p", str(port), "-l", str(folder / "nats.log")]
            processes.append(subprocess.Popen(command))  # noqa: ASYNC220 - a moment
            database = f"sqlite:///{folder}/controller.db"
            if asked.postgres:
                from tests.postgres import Postgres

                postgres = Postgres()
                postgres.start()
                database = postgres.database()
            bus = await NatsBus.connect(url, name="crowd")
            await bus.wait_connected()
            crowd = Crowd(bus, asked.hosts, asked.vms)
            tasks = await crowd.start()
            controller = Controller(folder, url, database)
            processes.append(controller.process)
            yield Bench(asked, folder, crowd, controller)
            for task in tasks:
                task.cancel()
            print((folder / "controller.log").read_text()[-3000:], file=sys.stderr)
        finally:
            for process in reversed(processes):
                process.terminate()
                process.wait(20)
            if postgres is not None:
                postgres.end()


async def main() -> None:
    """Run the parts in their order."""
    parser = argparse.ArgumentParser(prog="bench.records", description=__doc__)
    parser.add_argument("part", nargs="*", help=f"of {', '.join(PARTS)}; all where none is named")
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--vms", type=int, default=10, help="on each host")
    parser.add_argument("--copies", type=int, default=500)
    parser.add_argument("--watchers", type=int, default=100)
    parser.add_argument("--postgres", action="store_true")
    asked = parser.parse_args()
    async with fleet(asked) as bench:
        print(json.dumps({"ready": await bench.ready()}), flush=True)
        for part in PARTS:
            if part in asked.part or not asked.part:
                print(json.dumps({part: await getattr(bench, part)()}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
