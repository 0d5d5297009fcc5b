"""The journal's statements: made with SQLAlchemy, once, and run by sqlite3 alone.

SQLAlchemy's engine would need many times the processor time that SQLite needs for a statement.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from sqlalchemy import Insert, Table, insert
from sqlalchemy.dialects.sqlite import dialect
from sqlalchemy.schema import CreateIndex, CreateTable, ExecutableDDLElement, MetaData
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import ClauseElement

_SQLITE = dialect(paramstyle="named")


class Statement:
    """The statement `made`, as text. The caller gives values to its bind parameters."""

    def __init__(self, made: ClauseElement) -> None:
        keys = _columns(made.table) if isinstance(made, Insert) and isinstance(made.table, Table) else None
        compiled = made.compile(dialect=_SQLITE, column_keys=keys)
        assert isinstance(compiled, SQLCompiler)
        self._text = str(compiled)
        self._fixed = {name: bind.value for name, bind in compiled.binds.items() if not bind.required}

    def run(self, db: sqlite3.Connection, **values: object) -> sqlite3.Cursor:
        """Obey it; for what returns no rows."""
        return db.execute(self._text, self._fixed | values)

    def run_for_each(self, db: sqlite3.Connection, many: Sequence[dict[str, object]]) -> None:
        """Obey it once for each of these values."""
        db.executemany(self._text, [self._fixed | values for values in many])

    def rows(self, db: sqlite3.Connection, **values: object) -> list[sqlite3.Row]:
        """All it finds."""
        return self.run(db, **values).fetchall()

    def first(self, db: sqlite3.Connection, **values: object) -> sqlite3.Row | None:
        """The first row it finds. None is left unread: that would keep the file's log from being truncated."""
        cursor = self.run(db, **values)
        row: sqlite3.Row | None = cursor.fetchone()
        cursor.close()
        return row


def new_row(table: Table) -> Statement:
    """A new row; its number is SQLite's affair."""
    return Statement(insert(table))


def creation(metadata: MetaData) -> list[str]:
    """What makes the tables and their indexes."""
    made: list[ExecutableDDLElement] = []
    for table in metadata.sorted_tables:
        made.append(CreateTable(table))
        made += [CreateIndex(index) for index in sorted(table.indexes, key=lambda i: str(i.name))]
    return [str(one.compile(dialect=_SQLITE)) for one in made]


def _columns(table: Table) -> list[str]:
    return [c.name for c in table.columns if c is not table.autoincrement_column]
