"""The real adapters of a lab host, usable from a test outside the host's namespaces."""

import asyncio
import base64
import itertools
import json
import pickle
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sterna.lab import Lab
from sterna.lab.places import INSTANCES, TGT_SOCKET, initiator_name
from sterna.ports.hypervisor import GuestEvent

WORKER = Path(__file__).with_name("inside_host.py")


class Port:
    """One adapter over there: any method, awaited."""

    def __init__(self, adapters: "HostAdapters", name: str) -> None:
        self._adapters = adapters
        self._name = name

    def events(self, uuid: str) -> Any:
        """`Hypervisor.events`, over there; the iterator ends with the context."""
        return self._adapters.follow(uuid)

    def __getattr__(self, method: str) -> Any:
        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._adapters.call(self._name, method, args, kwargs)

        return call


class HostAdapters:
    """`hypervisor`, `events`, `vif`, `tgt`, `files` and `storage` of one host."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._reading = asyncio.create_task(self._read())
        self.instances = INSTANCES
        self.hypervisor = Port(self, "hypervisor")
        self.events = Port(self, "events")
        self.vif = Port(self, "vif")
        self.tgt = Port(self, "tgt")
        self.files = Port(self, "files")
        self.storage = Port(self, "storage")

    async def call(self, name: str, method: str, args: Any, kwargs: Any) -> Any:
        """Ask and wait for the answer, or its exception."""
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        assert self._process.stdin is not None
        line = base64.b64encode(pickle.dumps((number, name, method, args, kwargs)))
        self._process.stdin.write(line + b"\n")
        return await self._waiting[number]

    @asynccontextmanager
    async def follow(self, uuid: str) -> AsyncIterator[AsyncIterator[GuestEvent]]:
        """Events of a guest, polled from where they are collected."""
        await self.events.start(uuid)

        async def seen() -> AsyncIterator[GuestEvent]:
            given = 0
            while True:
                for _at_ms, event in (await self.events.seen(uuid))[given:]:
                    given += 1
                    yield event
                await asyncio.sleep(0.02)

        yield seen()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            number, result, error = pickle.loads(base64.b64decode(line))
            future = self._waiting.pop(number)
            if not future.done():
                future.set_exception(error) if error is not None else future.set_result(result)
        for future in self._waiting.values():
            future.set_exception(RuntimeError("the worker inside the host ended"))


@asynccontextmanager
async def adapters_on(lab: Lab, name: str) -> AsyncIterator[HostAdapters]:
    """The adapters of host `name`, as its agent would have them."""
    host = lab.host(name)
    own = {
        "name": name,
        "address": host.address,
        "initiator": initiator_name(name),
        "instances_dir": INSTANCES,
    }
    argv = [sys.executable, str(WORKER), json.dumps({"host": own, "tgt_socket": TGT_SOCKET})]
    process = await asyncio.create_subprocess_exec(
        *host.inside.command(argv),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 24,
    )
    adapters = HostAdapters(process)
    try:
        yield adapters
    finally:
        process.kill()
        await process.wait()
