"""The other agent, and anyone who listens: what a migration may say to the rest of the world."""

from __future__ import annotations

from typing import Protocol

from sterna.domain.model import Data


class Peer(Protocol):
    """The other side of one migration. Every message carries its id and epoch."""

    async def call(self, method: str, params: Data) -> Data:
        """Ask and wait. Raises Undelivered if it reached nobody, Unknown if the answer was lost, or the
        error the other side raised."""

    def cast(self, method: str, params: Data, *, key: str) -> None:
        """Journaled in the outbox at once, delivered when the other side is there. The same `key` of the same
        migration is sent once."""


class Hints(Protocol):
    """Fire-and-forget news for whoever listens; never the record of anything."""

    async def announce(self, topic: str, data: Data) -> None:
        """Send; failure is nobody's concern."""
