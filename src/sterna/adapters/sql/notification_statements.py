"""What each transaction about notifications does, on a connection. Called by `notification_records.py`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from sterna.adapters.sql.fleet_schema import hosts_down, leases, notification_endpoints, notifications
from sterna.adapters.sql.notes import note_host
from sterna.domain.notifications.events import EventType
from sterna.ports.notifications import EndpointRecord, Lease, Notification

LOOKED_AT = 200
"""Of the oldest that wait for an endpoint, among which those that are due are searched."""


def _endpoint(row: Row[Any]) -> EndpointRecord:
    known = {kind.value for kind in EventType}  # another version may know more
    events = [kind for kind in row.document["events"] if kind in known]
    return EndpointRecord.model_validate(
        row.document | {"name": row.name, "seen_at": row.seen_at, "events": events}
    )


def _document(record: EndpointRecord) -> dict[str, Any]:
    return record.model_dump(mode="json", exclude={"name", "seen_at", "pending", "oldest_at"})


def _save(c: Connection, record: EndpointRecord) -> None:
    table = notification_endpoints
    values = {"seen_at": record.seen_at, "document": _document(record)}
    c.execute(update(table).where(table.c.name == record.name).values(**values))


def _known(c: Connection, name: str) -> EndpointRecord | None:
    found = c.execute(select(notification_endpoints).where(notification_endpoints.c.name == name)).first()
    return _endpoint(found) if found else None


def put_endpoints(c: Connection, wanted: Mapping[str, Collection[EventType]], at: str) -> None:
    """See ports.notifications.NotificationRecords."""
    for name, events in wanted.items():
        known = _known(c, name)
        if known is not None:
            _save(c, known.model_copy(update={"events": tuple(events), "seen_at": max(at, known.seen_at)}))
            continue
        new = EndpointRecord(name=name, events=tuple(events), since=at, seen_at=at)
        c.execute(insert(notification_endpoints).values(name=name, seen_at=at, document=_document(new)))


def endpoints(c: Connection) -> list[EndpointRecord]:
    """See ports.notifications.NotificationRecords."""
    n = notifications.c
    waiting = select(n.endpoint, func.count(), func.min(n.number)).group_by(n.endpoint)
    numbers = {row[0]: (int(row[1]), int(row[2])) for row in c.execute(waiting)}
    oldest = select(n.number, n.at).where(n.number.in_([first for _, first in numbers.values()]))
    written = {row.number: row.at for row in c.execute(oldest)}
    found = []
    for row in c.execute(select(notification_endpoints).order_by(notification_endpoints.c.name)):
        pending, first = numbers.get(row.name, (0, 0))
        found.append(_endpoint(row).model_copy(update={"pending": pending, "oldest_at": written.get(first, "")}))
    return found


def prune_endpoints(c: Connection, before: str) -> int:
    """See ports.pruning.PruneRecords.prune_endpoints."""
    table = notification_endpoints
    gone = [row.name for row in c.execute(select(table.c.name).where(table.c.seen_at < before))]
    if gone:
        c.execute(delete(notifications).where(notifications.c.endpoint.in_(gone)))
        c.execute(delete(table).where(table.c.name.in_(gone)))
    return len(gone)


def due(c: Connection, endpoint: str, held_back: Collection[str], limit: int) -> list[Notification]:
    """See ports.notifications.NotificationRecords."""
    n = notifications.c
    query = select(notifications).where(n.endpoint == endpoint, n.subject.not_in(sorted(held_back)))
    first: dict[str, Notification] = {}
    for row in c.execute(query.order_by(n.number).limit(LOOKED_AT)):
        if row.subject not in first and len(first) < limit:
            first[row.subject] = _notification(row)
    return list(first.values())


def _notification(row: Row[Any]) -> Notification:
    columns = {name: getattr(row, name) for name in ("number", "endpoint", "subject", "id", "type", "at")}
    return Notification(**columns, data=row.document)


def delivered(c: Connection, notification: Notification, at: str) -> None:
    """See ports.notifications.NotificationRecords."""
    c.execute(delete(notifications).where(notifications.c.number == notification.number))
    known = _known(c, notification.endpoint)
    if known is not None:
        _save(c, known.model_copy(update={"last_success_at": at}))


def not_delivered(c: Connection, endpoint: str, why: str, at: str) -> None:
    """See ports.notifications.NotificationRecords."""
    known = _known(c, endpoint)
    if known is not None:
        _save(c, known.model_copy(update={"last_error": why, "last_error_at": at}))


def give_up(c: Connection, endpoint: str, before: str, subject: str = "") -> int:
    """See ports.notifications.NotificationRecords."""
    n = notifications.c
    old = delete(notifications).where(n.endpoint == endpoint, n.at < before)
    return c.execute(old.where(n.subject == subject) if subject else old).rowcount


# ---------------------------------------------------------------- hosts


def note_reach(c: Connection, host: str, down: bool, at: str, why: str = "") -> bool:
    """See ports.notifications.NotificationRecords."""
    known = c.execute(select(hosts_down.c.name).where(hosts_down.c.name == host)).first() is not None
    if known is down:
        return False
    c.execute(insert(hosts_down).values(name=host) if down else delete(hosts_down).where(hosts_down.c.name == host))
    note_host(c, host, EventType.HOST_DOWN if down else EventType.HOST_UP, at, why)
    return True


def all_hosts_down(c: Connection) -> frozenset[str]:
    """See ports.notifications.NotificationRecords.hosts_down."""
    return frozenset(c.execute(select(hosts_down.c.name)).scalars())


# ---------------------------------------------------------------- leases


def lease(c: Connection, name: str) -> Lease:
    """See ports.notifications.NotificationRecords."""
    found = c.execute(select(leases).where(leases.c.name == name)).first()
    return Lease() if found is None else Lease(holder=found.holder, epoch=found.epoch, beat=found.beat)


def take_lease(c: Connection, name: str, known: Lease, holder: str) -> Lease | None:
    """See ports.notifications.NotificationRecords."""
    if lease(c, name) != known:
        return None
    new = Lease(holder=holder, epoch=known.epoch + 1)
    if known == Lease():
        c.execute(delete(leases).where(leases.c.name == name))
        c.execute(insert(leases).values(name=name, **new.model_dump()))
    else:
        c.execute(update(leases).where(leases.c.name == name).values(**new.model_dump()))
    return new


def keep_lease(c: Connection, name: str, epoch: int) -> bool:
    """See ports.notifications.NotificationRecords."""
    mine = leases.c.name == name, leases.c.epoch == epoch, leases.c.holder != ""
    return c.execute(update(leases).where(*mine).values(beat=leases.c.beat + 1)).rowcount == 1


def release_lease(c: Connection, name: str, epoch: int) -> None:
    """See ports.notifications.NotificationRecords."""
    c.execute(update(leases).where(leases.c.name == name, leases.c.epoch == epoch).values(holder=""))
