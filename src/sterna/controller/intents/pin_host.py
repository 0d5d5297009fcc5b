"""The intent "this host has another UUID now": its name belonged to the old one, and its heartbeats are refused."""

from __future__ import annotations

from uuid import UUID

import structlog

from sterna.controller.records.registry import Host, Registry
from sterna.ports.fleet import Fleet

log = structlog.get_logger(__name__)


class PinHost:
    """One controller's."""

    def __init__(self, fleet: Fleet, registry: Registry) -> None:
        self._fleet, self._registry = fleet, registry

    async def pin(self, name: str, host_uuid: UUID) -> Host:
        """Its heartbeats with that UUID are accepted from now on, those with another one refused. May be repeated.
        Raises NotFound; Conflict where the UUID is that of another host."""
        await self._fleet.pin_host(name, str(host_uuid))
        log.info("a host's name belongs to another UUID", host=name, host_uuid=str(host_uuid))
        return await self._registry.host(name)
