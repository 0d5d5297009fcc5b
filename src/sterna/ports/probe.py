"""A connection between two hosts as the memory stream will make one, before anything is copied."""

from __future__ import annotations

from typing import Protocol

from sterna.domain.model import Refusal


class StreamProbe(Protocol):
    """One host's half of it."""

    async def expect(self) -> int:
        """Destination: take one connection, for some seconds, on a free port of libvirt's range; 0 where that
        cannot be tried here. Raises Temporary while every port of the range is taken."""

    async def knock(self, address: str, port: int) -> Refusal | None:
        """Source: connect to a host that expects it; None where that succeeds."""
