"""A TLS handshake with the certificates of two hosts' memory streams, without a stream."""

from __future__ import annotations

from typing import Protocol

from sterna.domain.model import Refusal


class Handshake(Protocol):
    """One host's half of it."""

    async def expect(self) -> int:
        """Destination: take one connection on this host's migration address within some seconds; the port.

        Raises Permanent where the certificates cannot be used, Temporary where they cannot be read now."""

    async def shake(self, address: str, port: int) -> Refusal | None:
        """Source: connect to a host that expects it; None where both trust each other. Raises Temporary."""
