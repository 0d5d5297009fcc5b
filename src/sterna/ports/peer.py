"""Messages of a migration: calls and casts to the other agent, and hints to all who listen."""

from __future__ import annotations

from typing import Protocol

from sterna.domain.model import Data


class Peer(Protocol):
    """The other side of one migration. Every message carries its id and epoch."""

    async def call(self, method: str, params: Data) -> Data:
        """Ask and wait. Raises Undelivered if it did not arrive, Unknown if the answer was lost, or the error the
        other side raised."""

    def cast(self, method: str, params: Data, *, key: str) -> None:
        """Journaled in the outbox at once, delivered when the other side is there. The same `key` of the same
        migration is sent once."""


class Hints(Protocol):
    """Fire-and-forget messages; what they say can be read elsewhere as well."""

    async def announce(self, topic: str, data: Data) -> None:
        """Send; a failure is ignored."""
