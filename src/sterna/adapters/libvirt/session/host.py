"""What the parts of `LibvirtHypervisor` share: settings of this host, the connections for questions, the events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from sterna.adapters.libvirt.session.connection import Connect, Connection
from sterna.adapters.libvirt.session.events import EventHub
from sterna.adapters.libvirt.session.per_guest import PerGuest
from sterna.domain.hosts import Transport

T = TypeVar("T")


@dataclass(frozen=True)
class HostSettings:
    """What libvirt cannot know of this host."""

    name: str = ""
    address: str = ""
    initiator: str | None = None
    instances_dir: str = ""
    link_bytes_s: int | None = None
    """What the migration network carries, in bytes/s."""
    transport: Transport | None = None
    """How memory is to travel to and from this host."""
    insecure: bool = False
    """May it travel unencrypted?"""


class LibvirtHost:
    """Base of the three parts: connections for what may wait for a guest's lock and for what must not wait for it,
    one for events, and more as migrations need them."""

    def __init__(self, uri: str = "qemu:///system", settings: HostSettings | None = None) -> None:
        self._uri = uri
        self._settings = settings or HostSettings()
        self._query = PerGuest(uri, "sterna-libvirt-query")
        # Apart: libvirt waits 30 s, again and again, for the lock of a guest that comes in by post-copy. That must
        # neither make its host look down nor hold up the looks at its own migration.
        self._facts = Connection(uri, "sterna-libvirt-facts")
        self._looks = PerGuest(uri, "sterna-libvirt-looks")
        self._details = PerGuest(uri, "sterna-libvirt-details")
        self._passes = Connection(uri, "sterna-libvirt-passes")
        """For what reads the definitions of all guests: it may wait for some of them, and a list must not."""
        self._events = EventHub(uri)

    def close(self) -> None:
        """Close the connections. A copy that runs goes on: libvirtd drives it."""
        for connections in (self._query, self._facts, self._looks, self._details, self._passes):
            connections.close()
        self._events.close()

    async def _ask(self, act: Callable[[Connect], T]) -> T:
        """A short call about the host. Raises Unreachable, NotFound, Permanent."""
        return await self._query.run(act)

    async def _ask_of(self, uuid: str, act: Callable[[Connect], T]) -> T:
        """A short call about one guest. Raises Unreachable, NotFound, Temporary, Permanent."""
        return await self._query.run(act, uuid)
