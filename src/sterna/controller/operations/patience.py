"""How long what cannot be moved is looked at before it is left: hosts may be silent for a moment."""

from __future__ import annotations

from collections.abc import Collection

from sterna.ports.clock import Clock

PATIENCE_MS = 30_000.0


class Patience:
    """With operations (key: their id, and ''), and with single hosts of theirs."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: dict[tuple[str, str], float] = {}
        """Monotonic ms."""

    def is_over(self, operation: str, host: str = "") -> bool:
        """It cannot be moved now: has that been so for long?"""
        now = self._clock.monotonic_ms()
        return now - self._since.setdefault((operation, host), now) >= PATIENCE_MS

    def renew(self, operation: str, host: str = "") -> None:
        """Something can be moved."""
        self._since.pop((operation, host), None)

    def forget(self, unfinished: Collection[str]) -> None:
        """All other operations have ended."""
        for key in [key for key in self._since if key[0] not in unfinished]:
            del self._since[key]
