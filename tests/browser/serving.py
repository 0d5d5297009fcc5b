"""Serves the scene on this machine: `python -m tests.browser.serving`, and a browser at what it prints."""

from __future__ import annotations

import asyncio
import socket
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import uvicorn

from sterna.domain.access import UserRole
from tests.browser import stories
from tests.browser.scene import Bus, Scene, set_up
from tests.unit.api.clients import TOKENS, served

Answer = TypeVar("Answer")
READY_S = 60.0


class Served:
    """The scene, its address, and what is done to it while browsers look."""

    def __init__(self, scene: Scene, loop: asyncio.AbstractEventLoop, port: int) -> None:
        self.scene, self._loop = scene, loop
        self.address = f"http://localhost:{port}"

    def do(self, work: Callable[[], Awaitable[Answer]]) -> Answer:
        """Something in the server's own thread; its result."""

        async def working() -> Answer:
            return await work()

        future: Future[Answer] = asyncio.run_coroutine_threadsafe(working(), self._loop)
        return future.result(READY_S)


def _act(scene: Scene) -> None:
    """From now on migrations that browsers ask for are prepared, and copy until somebody aborts them."""
    acting = set[asyncio.Task[None]]()

    def later(work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        acting.add(task)
        task.add_done_callback(acting.discard)

    async def copying(id: str) -> None:
        stories.begin_copy(scene, id)
        await scene.refresh()
        await stories.copy_on(scene, id, stories.SAMPLES[:20])

    async def aborted(id: str) -> None:
        stories.abort(scene, id)
        await scene.refresh()

    assert isinstance(scene.bus, Bus)
    scene.bus.on_accept = lambda migration: later(copying(migration.id))
    scene.bus.on_abort = lambda id: later(aborted(id))


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """While the block lasts. `folder`: where its database may be."""
    ready: Future[Served] = Future()
    ending = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(folder, ready, ending)), name="server")
    thread.start()
    try:
        yield ready.result(READY_S)
    finally:
        ending.set()
        thread.join(READY_S)


async def _serve(folder: Path, ready: Future[Served], ending: threading.Event) -> None:
    try:
        scene = await set_up(f"sqlite:///{folder}/controller.db")
        _act(scene)
        listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(
            served(scene.controller), lifespan="off", log_level="warning", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        ready.set_result(Served(scene, asyncio.get_running_loop(), listener.getsockname()[1]))
    except BaseException as error:
        ready.set_exception(error)
        raise
    running = asyncio.create_task(server.serve([listener]))
    await asyncio.to_thread(ending.wait)
    scene.controller.prepare_to_stop()
    server.should_exit = True
    await running
    await scene.controller.stop()


def main() -> None:
    """Until it is interrupted."""
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as found:
        print(f"{found.address} - sign in with: {TOKENS[UserRole.ADMIN]}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
