"""Beacons, the heartbeats of hosts: a host reports regularly that it is there. Only hints: to be certain, make a
call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from sterna.domain.errors import SternaError
from sterna.domain.model import Data
from sterna.kit.tasks import own_cancellation_only
from sterna.rpc.client import RpcClient

_log = structlog.get_logger()


class Beacon:
    """Announces what `facts` returns on `topic` (subjects.host_topic) every `every_s` seconds."""

    def __init__(
        self, client: RpcClient, topic: str, facts: Callable[[], Awaitable[Data]], every_s: float = 1.0
    ) -> None:
        self._client = client
        self._topic = topic
        self._facts = facts
        self._every_s = every_s
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin, with an announcement at once."""
        self._task = asyncio.create_task(self._shine(), name=f"beacon {self._topic}")

    async def stop(self) -> None:
        """Say nothing more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _shine(self) -> None:
        last_error = ""
        while True:
            began_ms = self._client.clock.monotonic_ms()
            try:
                with own_cancellation_only():
                    await self._client.announce(self._topic, await self._facts())
                last_error = ""
            except Exception as e:
                if str(e) != last_error:  # logged once, not every second for as long as libvirtd is away
                    bug = not isinstance(e, SternaError)
                    _log.warning("this host looks down", topic=self._topic, why=str(e), exc_info=bug)
                last_error = str(e)
            took_s = (self._client.clock.monotonic_ms() - began_ms) / 1000
            await self._client.clock.sleep(max(0.0, self._every_s - took_s))
