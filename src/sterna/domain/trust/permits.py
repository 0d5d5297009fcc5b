"""A permit: a controller's signed word that it has asked for a migration. Pure.

A destination takes a migration of which it has not heard before only with one. The source hands it on, so that the
destination needs no message of the controller's, and nothing has to be remembered before the migration is. By what
the cloud's services call the source the destination looks whether a port or a volume comes from there.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sterna.domain.journal import Migration
from sterna.domain.model import Value

VALID = timedelta(hours=24)
"""A source that dies in between may ask that much later; clocks may be wrong by as much."""


class Permit(Value):
    """What is signed."""

    v: int = 1
    id: str
    vm_uuid: str
    source: str
    destination: str
    network_hosts: tuple[str, str]
    """Both as the cloud's services call them."""
    until: datetime


def permit_for(migration: Migration, now: datetime) -> Permit:
    """Of a migration that the source is about to be asked for."""
    return Permit(
        id=migration.id,
        vm_uuid=migration.vm_uuid,
        source=migration.source,
        destination=migration.destination,
        network_hosts=migration.network_hosts,
        until=now + VALID,
    )


def against(permit: Permit, migration: Migration, now: datetime) -> str:
    """Why it does not permit this migration now; '' where it does."""
    for what in ("id", "vm_uuid", "source", "destination", "network_hosts"):
        if getattr(permit, what) != getattr(migration, what):
            return f"the permit is for another migration: its {what} is {getattr(permit, what)}"
    if now >= permit.until:
        return f"the permit has expired at {permit.until:%Y-%m-%d %H:%M} UTC"
    if permit.until - now > 2 * VALID:
        return f"the permit is from the future: it is valid until {permit.until:%Y-%m-%d %H:%M} UTC"
    return ""
