"""Listens to the beacons of other hosts, but only of those that the outbox holds casts for.

Each host sends a beacon every second: to receive those of a thousand hosts would take much of an agent's time.
"""

from __future__ import annotations

import asyncio

from sterna.domain.model import Data
from sterna.ports.bus import Subscription
from sterna.rpc.client import RpcClient
from sterna.rpc.outbox import Outbox
from sterna.rpc.subjects import host_topic


class SignsOfLife:
    """Makes the outbox send at once when a host is back."""

    def __init__(self, client: RpcClient, outbox: Outbox) -> None:
        self._client, self._outbox = client, outbox
        self._listening: dict[str, asyncio.Task[Subscription]] = {}

    def want(self, host: str) -> None:
        """Listen to this host: a cast waits for it, or was refused by it."""
        if host not in self._listening:

            async def receive(topic: str, data: Data) -> None:
                await self._received(host, data)

            listening = self._client.listen(host_topic(host), receive)
            self._listening[host] = asyncio.create_task(listening, name=f"beacons of {host}")

    async def stop(self) -> None:
        """End all subscriptions."""
        tasks, self._listening = list(self._listening.values()), {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _received(self, host: str, data: Data) -> None:
        if self._outbox.waits_for(host):
            self._outbox.hurry(host, str(data.get("boot", "")))
        elif (listening := self._listening.pop(host, None)) is not None:
            await (await listening).close()
