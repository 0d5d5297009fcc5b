"""Who receives the traces of migrations."""

from __future__ import annotations

from typing import Protocol


class TraceReceiver(Protocol):
    """By the settings of one controller."""

    async def send(self, body: bytes) -> None:
        """A request of OTLP, as JSON. Raises Undelivered where the receiver has certainly not taken it: it may be
        sent again. Raises Permanent where it was refused, Unreachable where that is not known."""
