"""Writes events for the endpoints that want them, in the transaction that changes what they are about.

Without endpoints nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, insert, select

from sterna.adapters.sql.fleet_schema import attempts, notification_endpoints, notifications
from sterna.domain.model import Value
from sterna.domain.notifications import standing as on_standing
from sterna.domain.notifications.events import EventType, of_migration, of_operation
from sterna.domain.notifications.payload import HostData, MigrationData, OperationData, VmData
from sterna.domain.notifications.standing import Told
from sterna.ports.fleet import MigrationRecord
from sterna.ports.operations import OperationRecord, Standing


def note(c: Connection, subject: str, kind: EventType, at: str, data: Callable[[], Value]) -> None:
    """One event, for each endpoint that wants it."""
    query = select(notification_endpoints.c.name, notification_endpoints.c.document)
    names = [row.name for row in c.execute(query) if kind.value in row.document["events"]]
    if not names:
        return
    values: dict[str, Any] = {"subject": subject, "id": str(uuid4()), "type": kind.value, "at": at}
    document = data().model_dump(mode="json")
    c.execute(insert(notifications), [values | {"endpoint": name, "document": document} for name in sorted(names)])


def _listens(c: Connection) -> bool:
    return c.execute(select(notification_endpoints.c.name).limit(1)).first() is not None


# ---------------------------------------------------------------- migrations


def note_migration(c: Connection, was: MigrationRecord, now: MigrationRecord, at: str) -> None:
    """What has become of a migration. Not of rehearsals, nor of those that only a host's journal knows of."""
    if now.reported_by or now.migration.options.rehearse:
        return
    newly_accepted = now.accepted and not was.accepted
    for kind in of_migration(was.status, now.status, newly_accepted=newly_accepted):
        note(c, f"migrations/{now.id}", kind, at, lambda: _of_migration(c, was, now))


def _of_migration(c: Connection, was: MigrationRecord, now: MigrationRecord) -> MigrationData:
    migration = now.migration
    operation = c.execute(select(attempts.c.operation).where(attempts.c.migration == now.id)).scalar()
    return MigrationData(
        id=now.id,
        vm=VmData(uuid=migration.vm_uuid, name=migration.vm_name),
        source=migration.source,
        destination=migration.destination,
        status=now.status.value,
        previous_status=was.status.value,
        reason=now.reason,
        error=str(now.error.get("message", "")) if now.error else None,
        operation=operation,
        requested_by=migration.requested_by,
        created_at=migration.created_at or None,
        finished_at=now.finished_at,
    )


# ---------------------------------------------------------------- operations


def note_operation(c: Connection, was: OperationRecord | None, now: OperationRecord, at: str) -> None:
    """What has become of an operation."""
    kind = of_operation(was.status if was else None, now.status)
    if kind is not None:
        note(c, f"operations/{now.id}", kind, at, lambda: _of_operation(was, now))


def note_standing(c: Connection, known: OperationRecord, standing: Standing) -> Standing:
    """How an operation stands, with what of it has been reported now. Where there is no endpoint, unchanged."""
    if not _listens(c):
        return standing
    stands = on_standing.Standing(standing.at, standing.waits_for, standing.promised_s)
    found = on_standing.news(known.standing.told, stands)
    now = known.model_copy(update={"standing": standing.model_copy(update={"told": found.told})})
    for kind in found.kinds:
        note(c, f"operations/{known.id}", kind, standing.at, lambda: _of_operation(known, now))
    return now.standing


def _of_operation(was: OperationRecord | None, now: OperationRecord) -> OperationData:
    standing = now.standing
    stands = on_standing.Standing(standing.at, standing.waits_for, standing.promised_s)
    before = (was.standing.told if was is not None else Told()).promised_end
    return OperationData(
        id=now.id,
        kind=now.kind.value,
        hosts=now.hosts,
        status=now.status.value,
        previous_status=was.status.value if was is not None else None,
        reason=now.reason,
        requested_by=now.requested_by,
        changed_by=now.changed_by,
        paused_because=now.paused_because,
        waits_for=standing.waits_for,
        vms_left=len(standing.left),
        promised_end=(None if now.status.final else on_standing.promised_end(stands)) or None,
        previous_promised_end=before or None,
        late_s=standing.late_s,
        created_at=now.created_at or None,
        ended_at=now.ended_at or None,
    )


# ---------------------------------------------------------------- hosts


def note_host(c: Connection, host: str, kind: EventType, at: str, why: str = "") -> None:
    """What has become of a host."""
    note(c, f"hosts/{host}", kind, at, lambda: HostData(name=host, reason=why))
