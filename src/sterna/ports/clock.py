"""Time, so that tests can own it."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Wall time for people, monotonic time for durations, and sleep."""

    def now(self) -> datetime:
        """Aware UTC."""

    def monotonic_ms(self) -> float:
        """Milliseconds; only differences on one host mean anything."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""
