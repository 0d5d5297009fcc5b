"""A connection between two hosts as the memory stream will make one, before anything is copied."""

from __future__ import annotations

from typing import Protocol

from sterna.domain.model import Refusal


class StreamProbe(Protocol):
    """One host's half of it."""

    async def expect(self, needed: int = 1, promise_to: str = "") -> int:
        """Destination: take one connection, for some seconds, on a free port of libvirt's range; 0 where that
        cannot be tried here. `promise_to`: for some seconds the ports of this migration are promised to no other.
        Raises Temporary while fewer than `needed` ports of the range are free, Permanent where this host's own
        address is a name that cannot be resolved."""

    async def knock(self, address: str, port: int) -> Refusal | None:
        """Source: connect to a host that expects it; None where that succeeds."""
