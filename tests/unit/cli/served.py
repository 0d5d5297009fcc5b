"""A real controller and a real HTTP server on 127.0.0.1, over agents that only play their part.

`python -m tests.unit.cli.served` keeps one up for looking at the commands by hand.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import tempfile
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import structlog
import uvicorn

from sterna.adapters.sql.fleet import SqlFleet
from sterna.api.app import create_app
from sterna.controller.controller import Controller
from sterna.domain.access import UserRole
from sterna.domain.copying import JobSample
from sterna.domain.errors import Permanent
from sterna.domain.journal import Kind, Migration, Role
from sterna.domain.model import GuestState
from sterna.kit.clock import SystemClock

from ..api.clients import ACCESS, TOKENS
from ..controller.fakes import FakeAgent, FakeBus
from ..domain.journals import JOB, Book

MIB = 2**20


class Served:
    """Hosts a, b, c; VM `web1` runs and `idle` is paused, both on a."""

    def __init__(self, folder: Path, pace_s: float = 0.0) -> None:
        self.agents = FakeAgent("a", 1), FakeAgent("b", 2), FakeAgent("c", 3, free=4 * 2**30)
        self.a, self.b, self.c = self.agents
        self.a.add_vm("web1", 1)
        self.a.add_vm("idle", 2, GuestState.PAUSED)
        self.bus = FakeBus(*self.agents)
        self.bus.on_accept = self._accepted
        self.outcome = "completed"
        self.pace_s = pace_s
        self.aborted = asyncio.Event()
        self.cut: list[int] = []
        """Numbers of events after which the stream is cut off, once each."""
        self._folder = folder
        self._tasks: set[asyncio.Task[None]] = set()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.api = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.token = TOKENS[UserRole.ADMIN]
        self.loop = asyncio.new_event_loop()
        self._up = threading.Event()
        self._log = structlog.get_config()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Served:
        structlog.configure(logger_factory=structlog.ReturnLoggerFactory())  # stdout belongs to the command
        self._thread.start()
        assert self._up.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.loop.call_soon_threadsafe(self.controller.events.close)
        self._thread.join(10)
        structlog.configure(**self._log)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        fleet = SqlFleet.open(f"sqlite:///{self._folder}/controller.db")
        self.controller = Controller(fleet, self.bus, SystemClock())
        self._cut_streams()
        app = create_app(self.controller, ACCESS)
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
        self.loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        await self.bus.beat(self.controller)
        self._up.set()
        beating = asyncio.create_task(self._beat())
        await self.server.serve(sockets=[self._socket])
        beating.cancel()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(1)
            await self.bus.beat(self.controller)

    def _cut_streams(self) -> None:
        whole = self.controller.event_batches

        async def event_batches(migration_id: str | None, after: int | None):  # type: ignore[no-untyped-def]
            limit = self.cut.pop(0) if self.cut else None
            seen = 0
            async for batch in whole(migration_id, after):
                if limit is not None and seen + len(batch) > limit:
                    yield batch[: limit - seen]
                    return  # the connection ends, in the middle
                seen += len(batch)
                yield batch

        self.controller.event_batches = event_batches  # type: ignore[method-assign]

    # ------------------------------------------------------------ the play

    def _accepted(self, migration: Migration) -> None:
        acts = {"completed": self._good, "failed": self._bad, "aborted": self._until_aborted}
        task = asyncio.get_running_loop().create_task(acts[self.outcome](migration))
        self._tasks.add(task)
        self.bus._abort_migration = self._abort  # type: ignore[method-assign]

    def _abort(self, agent: FakeAgent, params: dict[str, Any]) -> dict[str, Any]:
        self.aborted.set()
        return {"accepted": True}

    async def _write(self, book: Book) -> None:
        agent = self._source(book.migration) if book.role is Role.SOURCE else self._target(book.migration)
        for entry in book.entries:
            agent.write(Book(book.role, migration=book.migration, entries=[entry]))
            await self.bus.hint(f"journal.{agent.name}", {"last": len(agent.journal)})
            await asyncio.sleep(self.pace_s)

    def _source(self, migration: Migration) -> FakeAgent:
        return self.bus.agents[migration.source]

    def _target(self, migration: Migration) -> FakeAgent:
        return self.bus.agents[migration.destination]

    async def _prepare(self, migration: Migration, source: Book, target: Book) -> None:
        await self._write(source.status("preparing", "taken up").step("P1", "P2").intent("P3"))
        await self._write(target.accepted().step("P4", "P5", "P6", "P7", "P8", "P9"))
        source.entries, target.entries = [], []

    async def _copy(self, migration: Migration, source: Book) -> None:
        source.status("migrating", "copying").step("M1", "M2").intent("M4")
        await self._write(source)
        source.entries = []
        for n in range(1, 6):
            sample = JobSample(
                elapsed_ms=n * 500,
                memory_total=512 * MIB,
                memory_processed=n * 100 * MIB,
                memory_remaining=(5 - n) * 100 * MIB,
                memory_rate=200 * MIB,
                dirty_rate=20 * MIB,
                iteration=1 + n // 3,
            )
            data = {"sample": sample.model_dump(), "at": ""}
            await self.bus.hint(f"progress.{migration.source}.{migration.id}", data)
            await asyncio.sleep(self.pace_s * 3 or 0.01)

    async def _good(self, migration: Migration) -> None:
        source, target = Book(Role.SOURCE, migration=migration), Book(Role.DESTINATION, migration=migration)
        await self._prepare(migration, source, target)
        await self._write(target.step("P10").note("P11"))
        await self._write(source.done("P3").note("P11").step("P12"))
        source.entries, target.entries = [], []
        await self._copy(migration, source)
        vm = self._source(migration).vms.pop(migration.vm_uuid)
        self._target(migration).vms[migration.vm_uuid] = vm
        source.done("M4").note("M5").status("post-migrating", f"the guest runs on {migration.destination}")
        await self._write(source.step("F1", "F2", "F3", "F4", "F5"))
        f8 = {"host": migration.destination, "power_state": "running", "task_state": None, "job": JOB.model_dump()}
        await self._write(target.step("F6", "F7").step("F8", data=f8).step("F9").end())
        source.entries = []
        await self._write(
            source.step("F10", "F11")
            .status("completed", f"complete on {migration.destination} and {migration.source}")
            .end(),
        )

    async def _bad(self, migration: Migration) -> None:
        error = Permanent("b has no bridge br-int", fix="create br-int there")
        source, target = Book(Role.SOURCE, migration=migration), Book(Role.DESTINATION, migration=migration)
        await self._prepare(migration, source, target)
        await self._write(target.intent("P10").failed("P10", error, final=True))
        source.failed("P3", error, final=True).write(Kind.COMPENSATING, data={"error": error.to_wire()})
        await self._write(source)
        await self._roll_back(source, target, "failed", error.message)

    async def _until_aborted(self, migration: Migration) -> None:
        source, target = Book(Role.SOURCE, migration=migration), Book(Role.DESTINATION, migration=migration)
        await self._prepare(migration, source, target)
        await self.aborted.wait()
        await self._roll_back(source, target, "cancelled", "aborted on request")

    async def _roll_back(self, source: Book, target: Book, end: str, why: str) -> None:
        source.entries, target.entries = [], []
        await self._write(source.status("rolling-back", why).step("R0", "R1", "R2", "R3", "R4"))
        await self._write(target.step("R5", "R6", "R7").end())
        source.entries = []
        await self._write(source.step("R8").status(end, why).end())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do something in the controller's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)


@contextlib.contextmanager
def served(pace_s: float = 0.0) -> Iterator[Served]:
    with tempfile.TemporaryDirectory() as folder, Served(Path(folder), pace_s) as one:
        yield one


if __name__ == "__main__":
    with served(pace_s=0.15) as shown:
        shown.outcome = sys.argv[1] if len(sys.argv) > 1 else "completed"
        print(f"export STERNA_API={shown.api} STERNA_TOKEN={shown.token}", flush=True)
        sys.stdin.read()
