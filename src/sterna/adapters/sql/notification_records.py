"""The notifications of the controller's records: the part of `SqlFleet` that implements NotificationRecords."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sterna.adapters.sql import notification_statements as on_notifications
from sterna.adapters.sql.transactions import Transactions
from sterna.domain.notifications.events import EventType
from sterna.ports.notifications import EndpointRecord, Lease, Notification


class SqlNotifications(Transactions):
    """Notifications and their endpoints."""

    async def put_endpoints(self, wanted: Mapping[str, Collection[EventType]], at: str) -> None:
        """These are in a controller's settings now."""
        await self._write(on_notifications.put_endpoints, wanted, at)

    async def endpoints(self) -> list[EndpointRecord]:
        """All of them, by name."""
        return await self._run(on_notifications.endpoints)

    async def prune_endpoints(self, before: str) -> int:
        """Remove those that no settings have had since then; how many."""
        return await self._write(on_notifications.prune_endpoints, before)

    async def due(self, endpoint: str, held_back: Collection[str], limit: int) -> list[Notification]:
        """The oldest of each subject."""
        return await self._run(on_notifications.due, endpoint, held_back, limit)

    async def delivered(self, notification: Notification, at: str) -> None:
        """Its endpoint has accepted it."""
        await self._write(on_notifications.delivered, notification, at)

    async def not_delivered(self, endpoint: str, why: str, at: str) -> None:
        """The endpoint has not accepted something."""
        await self._write(on_notifications.not_delivered, endpoint, why, at)

    async def give_up(self, endpoint: str, before: str, subject: str = "") -> int:
        """Remove what is too old; how many."""
        return await self._write(on_notifications.give_up, endpoint, before, subject)

    async def note_reach(self, host: str, down: bool, at: str, why: str = "") -> bool:
        """The host is down, or up again. Was that news?"""
        return await self._write(on_notifications.note_reach, host, down, at, why)

    async def hosts_down(self) -> frozenset[str]:
        """Those that were last noted as down."""
        return await self._run(on_notifications.all_hosts_down)

    async def lease(self, name: str) -> Lease:
        """Who holds it."""
        return await self._run(on_notifications.lease, name)

    async def take_lease(self, name: str, known: Lease, holder: str) -> Lease | None:
        """Hold it, unless somebody was faster."""
        return await self._write(on_notifications.take_lease, name, known, holder)

    async def keep_lease(self, name: str, epoch: int) -> bool:
        """Still hold it."""
        return await self._write(on_notifications.keep_lease, name, epoch)

    async def release_lease(self, name: str, epoch: int) -> None:
        """Hold it no more."""
        await self._write(on_notifications.release_lease, name, epoch)
