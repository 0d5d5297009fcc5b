"""Leases in the records: what one controller does at a time.

A holder shows signs of life by a number that grows. Whoever sees the same number for too long, by its own clock,
may take the lease: the clocks of two controllers are never compared.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from uuid import uuid4

from sterna.domain.errors import SternaError
from sterna.ports.clock import Clock
from sterna.ports.notifications import NotificationRecords

Seen = tuple[str, int, int]
"""Holder, epoch and beat."""


class LeaseWatch:
    """Leases that other controllers hold."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[Seen, float]] = {}
        """As last seen, and since when (monotonic ms)."""

    def is_over(self, name: str, lease: Seen, after_ms: float) -> bool:
        """Has its holder shown no sign of life for so long?"""
        now = self._clock.monotonic_ms()
        seen, since = self._seen.get(name, (lease, now))
        if seen != lease:
            since = now
        self._seen[name] = lease, since
        return now - since >= after_ms

    def forget(self, name: str) -> None:
        """It is held here."""
        self._seen.pop(name, None)

    def forget_all_but(self, names: Collection[str]) -> None:
        """There are no others any more."""
        for name in self._seen.keys() - set(names):
            del self._seen[name]


class OwnLease:
    """One lease of the records that this controller would hold."""

    AFTER_MS = 15_000.0
    """A holder that shows no sign of life for so long has died or is cut off."""

    def __init__(self, name: str, records: NotificationRecords, clock: Clock) -> None:
        self.name, self._records = name, records
        self._watch, self._holder, self._epoch = LeaseWatch(clock), str(uuid4()), 0

    async def hold(self) -> bool:
        """Take or keep it. False where another controller has it. Raises Unreachable."""
        if self._epoch and await self._records.keep_lease(self.name, self._epoch):
            return True
        self._epoch = 0
        known = await self._records.lease(self.name)
        lease = known.holder, known.epoch, known.beat
        if known.holder and not self._watch.is_over(self.name, lease, self.AFTER_MS):
            return False
        taken = await self._records.take_lease(self.name, known, self._holder)
        if taken is None:
            return False
        self._epoch = taken.epoch
        self._watch.forget(self.name)
        return True

    async def release(self) -> None:
        """Another controller need not wait."""
        epoch, self._epoch = self._epoch, 0
        if epoch:
            with contextlib.suppress(SternaError):  # it ends by itself
                await self._records.release_lease(self.name, epoch)
