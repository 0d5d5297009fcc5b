"""Which hosts are down is only in each controller's memory: one of them writes the changes, as events."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from sterna.controller.leases import OwnLease
from sterna.controller.records.registry import Registry
from sterna.ports.bus import BusState
from sterna.ports.clock import Clock
from sterna.ports.notifications import NotificationRecords

log = structlog.get_logger(__name__)

DOWN_MS = 30_000.0
"""A host is reported as down after that long without a heartbeat that was seen to be missing: an agent that is
upgraded restarts within seconds."""


class HostWatch:
    """One controller's part in it."""

    def __init__(
        self, records: NotificationRecords, registry: Registry, bus: Callable[[], BusState], clock: Clock
    ) -> None:
        self._records, self._registry, self._bus, self._clock = records, registry, bus, clock
        self._lease = OwnLease("hosts", records, clock)
        self._missing: dict[str, float] = {}
        """Since when each host has been seen to be down (monotonic ms)."""

    async def look(self) -> None:
        """Write which hosts have gone down or come up. Without the bus all seem to be down: then nothing is
        written, and another controller may. Raises Unreachable."""
        if not self._bus().connected:
            self._missing.clear()
            await self._lease.release()
            return
        away, up = await self._registry.away()
        now = self._clock.monotonic_ms()
        down = {host.name: host for host in away if host.state == "down" and not host.removed}
        self._missing = {name: self._missing.get(name, now) for name in down}
        if not await self._lease.hold():
            return
        known, at = await self._records.hosts_down(), self._clock.now().isoformat()
        for name, since in self._missing.items():
            if name not in known and now - since >= DOWN_MS:
                why = f"nothing received from its agent since {down[name].seen_at[:19]} UTC"
                await self._records.note_reach(name, True, at, why)
        for name in known & set(up):
            await self._records.note_reach(name, False, at)

    async def leave(self) -> None:
        """Another controller may go on at once."""
        await self._lease.release()
