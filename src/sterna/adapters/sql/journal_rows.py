"""Rows of the journal as values, and which of them may be forgotten. Called by `journal.py`."""

from __future__ import annotations

import json

from sqlalchemy import (
    Connection,
    Row,
    Table,
    delete,
    func,
    select,
)

from sterna.adapters.sql.schema import entries, migrations, outbox
from sterna.domain.errors import Conflict
from sterna.domain.journal import Entry, Migration, Role

_AT_ONCE = 100


def forget_casts(db: Connection, table: Table, keep: int) -> None:
    """Delete those that are done, but for the newest `keep`."""
    newest = select(table.c.n).where(table.c.done.is_(True)).order_by(table.c.n.desc()).offset(keep).limit(1)
    last = db.execute(newest).scalar()
    if last is not None:
        db.execute(delete(table).where(table.c.done.is_(True), table.c.n <= last))


def forgettable(db: Connection, read_to: int, spare: str, keep: int) -> list[str]:
    """Closed, beyond the newest `keep`, read, with every cast delivered, and without that note."""
    closed = select(func.count()).select_from(migrations).where(migrations.c.closed.is_(True))
    if (db.execute(closed).scalar() or 0) <= keep:
        return []
    last = func.max(entries.c.seq)
    ended = (
        select(entries.c.migration_id, last.label("last"))
        .join(migrations, migrations.c.id == entries.c.migration_id)
        .where(migrations.c.closed.is_(True))
        .group_by(entries.c.migration_id)
        .order_by(last.desc())
        .offset(keep)
        .subquery()
    )
    spared = select(entries.c.migration_id).where(entries.c.name == spare)
    pending = select(outbox.c.n).where(outbox.c.done.is_(False), outbox.c.id.startswith(ended.c.migration_id))
    query = select(ended.c.migration_id).where(
        ended.c.last < read_to, ended.c.migration_id.not_in(spared), ~pending.exists()
    )
    return list(db.execute(query.order_by(ended.c.last).limit(_AT_ONCE)).scalars())


def same(asked: Migration, role: Role, known: Row[tuple[object, ...]]) -> Migration:
    """The migration accepted before under this id. Raises Conflict where it was about something else."""
    migration, known_role = migration_of(known)
    if migration.vm_uuid != asked.vm_uuid or known_role is not role:
        raise Conflict(
            f"migration id {asked.id} is taken by VM {migration.vm_name} ({known_role} side)", fix="use another id"
        )
    return migration


def migration_of(row: Row[tuple[object, ...]]) -> tuple[Migration, Role]:
    """The migration that a row holds, and this host's part in it."""
    return Migration.model_validate_json(row.body), Role(row.role)


def entry_of(row: Row[tuple[object, ...]]) -> Entry:
    """The entry that a row holds."""
    return Entry.model_validate(dict(row._mapping) | {"data": json.loads(row.data)})
