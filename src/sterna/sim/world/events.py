"""Guest events of every simulated libvirtd, delivered in order to all who listen."""

from __future__ import annotations

import asyncio
import weakref
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from sterna.domain.errors import Unreachable
from sterna.ports.hypervisor import GuestEvent

Follower = Callable[[str, GuestEvent], None]
Feed = asyncio.Queue[GuestEvent | None]


class EventHub:
    """One queue per open subscription. A libvirtd that goes down ends its subscriptions with Unreachable."""

    def __init__(self) -> None:
        self._feeds: defaultdict[tuple[str, str], list[Feed]] = defaultdict(list)
        self._followers: defaultdict[str, list[weakref.WeakMethod[Follower]]] = defaultdict(list)

    def follow(self, host: str, callback: Follower) -> None:
        """Call a bound method at every event of every guest of the host, for as long as its object lives."""
        self._followers[host].append(weakref.WeakMethod(callback))

    def publish(self, host: str, uuid: str, event: GuestEvent) -> None:
        """Hand an event to everybody who listens to this guest on this host."""
        self._remember(host, uuid, event)
        for feed in (*self._feeds.get((host, uuid), ()), *self._feeds.get((host, ""), ())):
            feed.put_nowait(event)

    def reconnect(self, host: str, running: Iterable[str]) -> None:
        """libvirtd is back: followers look at what runs, as they have missed events."""
        for uuid in running:
            self._remember(host, uuid, GuestEvent(kind="resumed", detail="found running"))

    def _remember(self, host: str, uuid: str, event: GuestEvent) -> None:
        alive = [reference for reference in self._followers[host] if reference() is not None]
        self._followers[host] = alive
        for reference in alive:
            if (callback := reference()) is not None:
                callback(uuid, event)

    def disconnect(self, host: str) -> None:
        """The host's libvirtd is gone: end every subscription to it."""
        for (name, _), feeds in self._feeds.items():
            if name == host:
                for feed in feeds:
                    feed.put_nowait(None)

    @asynccontextmanager
    async def subscribe(self, host: str, uuid: str) -> AsyncIterator[AsyncIterator[GuestEvent]]:
        """Events from now on, none lost while the context is open; of all guests for the UUID ''."""
        feed: Feed = asyncio.Queue()
        self._feeds[host, uuid].append(feed)
        try:
            yield _drain(host, feed)
        finally:
            self._feeds[host, uuid].remove(feed)
            if not self._feeds[host, uuid]:
                del self._feeds[host, uuid]


async def _drain(host: str, feed: Feed) -> AsyncIterator[GuestEvent]:
    while True:
        event = await feed.get()
        if event is None:
            raise Unreachable(f"{host}: End of file while reading data: Input/output error")
        yield event
