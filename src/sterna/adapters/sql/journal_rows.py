"""Rows of the journal as values, and which of them may be forgotten. Called by `journal.py`."""

from __future__ import annotations

import json
import sqlite3

from sqlalchemy import ColumnElement, Integer, Select, Table, bindparam, delete, func, select

from sterna.adapters.sql.schema import entries, inbox, migrations, outbox
from sterna.adapters.sql.statement import Statement
from sterna.domain.errors import Conflict
from sterna.domain.journal import Entry, Migration, Role

_AT_ONCE = 100
_KEEP: ColumnElement[int] = bindparam("keep", type_=Integer)


def _old_casts(table: Table) -> Statement:
    newest = select(table.c.n).where(table.c.done.is_(True)).order_by(table.c.n.desc()).offset(_KEEP).limit(1)
    return Statement(delete(table).where(table.c.done.is_(True), table.c.n <= newest.scalar_subquery()))


def _forgettable() -> Select[tuple[str]]:
    last = func.max(entries.c.seq)
    ended = (
        select(entries.c.migration_id, last.label("last"))
        .join(migrations, migrations.c.id == entries.c.migration_id)
        .where(migrations.c.closed.is_(True))
        .group_by(entries.c.migration_id)
        .order_by(last.desc())
        .offset(_KEEP)
        .subquery()
    )
    spared = select(entries.c.migration_id).where(entries.c.name == bindparam("spare"))
    pending = select(outbox.c.n).where(outbox.c.done.is_(False), outbox.c.id.startswith(ended.c.migration_id))
    query = select(ended.c.migration_id).where(
        ended.c.last < bindparam("read_to"), ended.c.migration_id.not_in(spared), ~pending.exists()
    )
    return query.order_by(ended.c.last).limit(_AT_ONCE)


_OLD_CASTS = (_old_casts(outbox), _old_casts(inbox))
_CLOSED = Statement(select(func.count()).select_from(migrations).where(migrations.c.closed.is_(True)))
_FORGETTABLE = Statement(_forgettable())
_FORGET = (
    Statement(delete(entries).where(entries.c.migration_id == bindparam("of"))),
    Statement(delete(migrations).where(migrations.c.id == bindparam("of"))),
)


def forget_casts(db: sqlite3.Connection, keep: int) -> None:
    """Delete those that are done, but for the newest `keep` of each table."""
    for statement in _OLD_CASTS:
        statement.run(db, keep=keep)


def forgettable(db: sqlite3.Connection, read_to: int, spare: str, keep: int) -> list[str]:
    """Closed, beyond the newest `keep`, read, with every cast delivered, and without that note."""
    (closed,) = _CLOSED.run(db).fetchone()
    if closed <= keep:
        return []
    return [row["migration_id"] for row in _FORGETTABLE.rows(db, read_to=read_to, spare=spare, keep=keep)]


def forget(db: sqlite3.Connection, ids: list[str]) -> None:
    """Delete these migrations, and their entries."""
    for statement in _FORGET:
        statement.run_for_each(db, [{"of": id} for id in ids])


def same(asked: Migration, role: Role, known: sqlite3.Row) -> Migration:
    """The migration accepted before under this id. Raises Conflict where it was about something else."""
    migration, known_role = migration_of(known)
    if migration.vm_uuid != asked.vm_uuid or known_role is not role:
        raise Conflict(
            f"migration id {asked.id} is taken by VM {migration.vm_name} ({known_role} side)", fix="use another id"
        )
    return migration


def migration_of(row: sqlite3.Row) -> tuple[Migration, Role]:
    """The migration that a row holds, and this host's part in it."""
    return Migration.model_validate_json(row["body"]), Role(row["role"])


def entry_of(row: sqlite3.Row) -> Entry:
    """The entry that a row holds."""
    return Entry.model_validate(dict(row) | {"data": json.loads(row["data"])})
