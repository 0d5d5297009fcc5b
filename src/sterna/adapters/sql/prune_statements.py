"""What each transaction that removes old records does, on a connection. Called by `fleet.py`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, or_, select

from sterna.adapters.sql.fleet_schema import (
    answers,
    attempts,
    entries,
    hosts,
    migrations,
    operations,
    requests,
    vms,
)
from sterna.adapters.sql.step_statements import ACTIVE, remove
from sterna.domain.fleet.course import FINAL, OperationKind
from sterna.domain.status import Status

MOST_MIGRATIONS = 20
"""In one transaction, with some 100 entries each: others wait for their turn meanwhile."""
MOST_LINES = 500


def prune_migrations(c: Connection, before: str, spare: int) -> int:
    """See ports.pruning.PruneRecords.prune_migrations."""
    m = migrations.c
    held = exists().where(vms.c.migration_id == m.id)
    awaited = exists().where(attempts.c.migration == m.id, attempts.c.state.in_(ACTIVE))
    newest = select(entries.c.migration_id).order_by(entries.c.id.desc()).limit(1)  # its id is the last event's
    query = select(m.id).where(m.closed_at < before, ~held, ~awaited, _not_spared(c, spare))
    query = query.where(m.id.not_in(newest)).order_by(m.closed_at).limit(MOST_MIGRATIONS)
    found = [row.id for row in c.execute(query)]
    if found:
        c.execute(delete(entries).where(entries.c.migration_id.in_(found)))
        c.execute(delete(migrations).where(m.id.in_(found)))
    return len(found)


def _not_spared(c: Connection, spare: int) -> ColumnElement[bool]:
    """Is it not one of the newest completed ones?"""
    m = migrations.c
    completed = m.status == Status.COMPLETED.value
    if spare <= 0:
        return m.number > 0
    query = select(m.number).where(completed).order_by(m.number.desc()).offset(spare - 1).limit(1)
    oldest = c.execute(query).scalar()
    return ~completed if oldest is None else or_(~completed, m.number < oldest)


def old_operations(c: Connection, before: str) -> list[str]:
    """See ports.pruning.PruneRecords.old_operations."""
    newest: dict[str, str] = {}
    ended: dict[str, list[str]] = {}
    query = select(operations.c.id, operations.c.status, operations.c.document).order_by(operations.c.number)
    for row in c.execute(query):
        names = list(row.document["hosts"])
        if OperationKind(row.document["kind"]).empties:
            newest |= dict.fromkeys(names, row.id)
        if row.status in FINAL and _ended_before(row.document, before):
            ended[row.id] = names
    closed = select(hosts.c.document).where(hosts.c.maintenance)
    needed = {*newest.values(), *(row.document.get("closed_by") for row in c.execute(closed))}
    return [id for id in ended if id not in needed]


def prune_operation(c: Connection, id: str, before: str) -> bool:
    """See ports.pruning.PruneRecords.prune_operation."""
    row = c.execute(select(operations.c.status, operations.c.document).where(operations.c.id == id)).first()
    if row is None or row.status not in FINAL or not _ended_before(row.document, before):
        return False
    c.execute(delete(attempts).where(attempts.c.operation == id))
    remove(c, id)
    c.execute(delete(operations).where(operations.c.id == id))
    return True


def _ended_before(document: dict[str, Any], before: str) -> bool:
    return "" < str(document.get("ended_at") or "") < before


def prune_log(c: Connection, before: str) -> int:
    """See ports.pruning.PruneRecords.prune_log."""
    old = and_(requests.c.at < before, requests.c.at != "")
    found = [
        r.request
        for r in c.execute(select(requests.c.request).where(old).order_by(requests.c.at).limit(MOST_LINES))
    ]
    if found:
        c.execute(delete(requests).where(requests.c.request.in_(found)))
        c.execute(delete(answers).where(answers.c.request.in_(found)))  # not before their requests are gone
    return len(found)
