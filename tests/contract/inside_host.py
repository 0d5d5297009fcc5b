"""Runs inside a lab host: does what the test outside asks of the real adapters, one pickle per line.

    python inside_host.py SETTINGS-JSON

In: base64 of (number, object name, method, args, kwargs). Out: base64 of (number, result, error). Calls run side
by side. `events.start(uuid)` and `events.seen(uuid)` stand for the `events` context.
"""

import asyncio
import base64
import json
import pickle
import sys
import time
from typing import Any

from sterna.adapters.files.storage import FileStorage
from sterna.adapters.libvirt.hypervisor import HostSettings, LibvirtHypervisor
from sterna.adapters.stderr import log_to_stderr
from sterna.adapters.vif.plugs import Plugs
from sterna.adapters.volumes.shared_file import SharedFileVolumes
from sterna.adapters.volumes.tgt import TgtVolumes
from sterna.ports.hypervisor import GuestEvent

log_to_stderr()  # stdout is for answers


class Events:
    """Collects events of guests, each with this machine's monotonic time in ms."""

    def __init__(self, hypervisor: LibvirtHypervisor) -> None:
        self._hypervisor = hypervisor
        self._seen: dict[str, list[tuple[float, GuestEvent]]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def start(self, uuid: str) -> None:
        if uuid in self._tasks:
            self._tasks.pop(uuid).cancel()
        self._seen[uuid] = []
        open_now = asyncio.Event()
        self._tasks[uuid] = asyncio.create_task(self._collect(uuid, open_now))
        await open_now.wait()

    async def seen(self, uuid: str) -> list[tuple[float, GuestEvent]]:
        return self._seen.get(uuid, [])

    async def failure(self, uuid: str) -> str:
        task = self._tasks[uuid]
        return repr(task.exception()) if task.done() else ""

    async def _collect(self, uuid: str, open_now: asyncio.Event) -> None:
        async with self._hypervisor.events(uuid) as events:
            open_now.set()
            async for event in events:
                self._seen[uuid].append((time.monotonic() * 1000, event))


async def answer(objects: dict[str, Any], line: bytes) -> None:
    number, name, method, args, kwargs = pickle.loads(base64.b64decode(line))
    reply: tuple[int, Any, Exception | None]
    try:
        result = getattr(objects[name], method)(*args, **kwargs)
        reply = (number, await result if asyncio.iscoroutine(result) else result, None)
    except Exception as error:
        reply = (number, None, error)
    sys.stdout.write(base64.b64encode(pickle.dumps(reply)).decode() + "\n")
    sys.stdout.flush()


async def main() -> None:
    given = json.loads(sys.argv[1])
    hypervisor = LibvirtHypervisor(settings=HostSettings(**given["host"]))
    objects: dict[str, Any] = {
        "hypervisor": hypervisor,
        "events": Events(hypervisor),
        "vif": Plugs(),
        "tgt": TgtVolumes(given["host"]["initiator"], tgt_socket=given["tgt_socket"], keyring=hypervisor),
        "files": SharedFileVolumes(),
        "storage": FileStorage(given["host"]["instances_dir"]),
    }
    reader = asyncio.StreamReader(limit=1 << 24)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    running = set()
    while line := await reader.readline():
        task = asyncio.create_task(answer(objects, line))
        running.add(task)
        task.add_done_callback(running.discard)


asyncio.run(main())
