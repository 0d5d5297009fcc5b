"""Notifications that wait in the records, the endpoints they are for, and what sends them.

A notification is written in the transaction that changes what it is about, once for each endpoint that wants it. It
is removed when its endpoint has accepted it, or when it is given up.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from sterna.domain.model import Data, Value
from sterna.domain.notifications.events import EventType


class Notification(Value):
    """One event for one endpoint."""

    number: int = 0
    """In order of the events, over all endpoints."""
    endpoint: str = ""
    subject: str
    """What it is about, by its path below `/v1/`: `migrations/ID`, `operations/ID` or `hosts/NAME`."""
    id: str
    """The same for each try, and for each endpoint."""
    type: str
    """An EventType, or one that only a newer controller knows."""
    at: str
    """ISO 8601 UTC, the clock of the controller that wrote it."""
    data: Data = {}


class EndpointRecord(Value):
    """An endpoint as the records know it."""

    name: str
    events: tuple[EventType, ...] = ()
    since: str = ""
    """ISO 8601 UTC: events from then on are for it."""
    seen_at: str = ""
    """When a controller has last had it in its settings."""
    last_success_at: str = ""
    last_error: str = ""
    """Of the last failed try; '' where there was none."""
    last_error_at: str = ""
    pending: int = 0
    """Notifications that wait for it."""
    oldest_at: str = ""
    """Of these, when the oldest was written."""


class Lease(Value):
    """Who does something that one controller does at a time."""

    holder: str = ""
    """'': nobody does now."""
    epoch: int = 0
    """Grows with each holder."""
    beat: int = 0
    """Grows with each sign of life."""


class NotificationRecords(Protocol):
    """Every method is one transaction and raises as `ports.fleet.Fleet` does."""

    async def put_endpoints(self, wanted: Mapping[str, Collection[EventType]], at: str) -> None:
        """These endpoints are in a controller's settings now. A new one gets what happens from now on. Others are
        left as they are."""

    async def endpoints(self) -> list[EndpointRecord]:
        """All of them, by name."""

    async def due(self, endpoint: str, held_back: Collection[str], limit: int) -> list[Notification]:
        """The oldest that waits of each subject, but for these subjects, oldest first."""

    async def delivered(self, notification: Notification, at: str) -> None:
        """Its endpoint has accepted it. Repeated, nothing changes."""

    async def not_delivered(self, endpoint: str, why: str, at: str) -> None:
        """The endpoint has not accepted something."""

    async def give_up(self, endpoint: str, before: str, subject: str = "") -> int:
        """Remove what was written before then and waits for the endpoint; how many. `subject`: only about that."""

    async def note_reach(self, host: str, down: bool, at: str, why: str = "") -> bool:
        """The host is down, or up again: an event, where it was not known yet (then: True)."""

    async def hosts_down(self) -> frozenset[str]:
        """Those of which it was last noted that they are down."""

    async def lease(self, name: str) -> Lease:
        """Who holds it."""

    async def take_lease(self, name: str, known: Lease, holder: str) -> Lease | None:
        """Hold it from now on, if it is still as `known` says; None where somebody was faster."""

    async def keep_lease(self, name: str, epoch: int) -> bool:
        """Show a sign of life. False where another one holds it."""

    async def release_lease(self, name: str, epoch: int) -> None:
        """Hold it no more: another controller need not wait."""


class Answer(Value):
    """What an endpoint has answered."""

    status: int
    """HTTP status."""
    text: str = ""
    """The beginning of its body, where that was wanted."""

    @property
    def accepted(self) -> bool:
        """Does it have the message?"""
        return 200 <= self.status < 300


class Sender(Protocol):
    """Calls the endpoints of the settings."""

    async def send(self, notification: Notification, *, read: bool = False) -> Answer:
        """Once, to its endpoint. `read`: also what the body says. Raises Unreachable where no answer came,
        Permanent where it cannot be called at all."""
