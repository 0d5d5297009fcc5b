"""Tables of an agent's journal (SQLite). Values are kept whole as JSON; columns are what queries need."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Float, ForeignKey, Index, Integer, MetaData, String, Table, Text

SCHEMA_VERSION = 1
"""Kept in the file (PRAGMA user_version). A change below raises it, and migrates the older file on opening."""
APPLICATION_ID = 0x5354524E
"""Marks the file as Sterna's (PRAGMA application_id, "STRN")."""

metadata = MetaData()

migrations = Table(
    "migrations",
    metadata,
    Column("n", Integer, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("vm_uuid", String, nullable=False),
    Column("role", String, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("held", Boolean, nullable=False),
    Column("closed", Boolean, nullable=False),
    Column("body", Text, nullable=False),
)
Index("one_holder_per_vm", migrations.c.vm_uuid, unique=True, sqlite_where=migrations.c.held.is_(True))

epochs = Table(
    "epochs",
    metadata,
    Column("vm_uuid", String, primary_key=True),
    Column("newest", Integer, nullable=False),
)

entries = Table(
    "entries",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("v", Integer, nullable=False),
    Column("migration_id", String, ForeignKey("migrations.id"), nullable=False, index=True),
    Column("epoch", Integer, nullable=False),
    Column("role", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("row", String, nullable=False),
    Column("name", String, nullable=False),
    Column("at", String, nullable=False),
    Column("mono_ms", Float, nullable=False),
    Column("boot", String, nullable=False),
    Column("data", Text, nullable=False),
    sqlite_autoincrement=True,
)


def _casts(name: str) -> Table:
    return Table(
        name,
        metadata,
        Column("n", Integer, primary_key=True, autoincrement=True),
        Column("id", String, nullable=False, unique=True),
        Column("receiver", String, nullable=False),
        Column("done", Boolean, nullable=False),
        Column("body", Text, nullable=False),
        Index(f"{name}_waiting", "done", "receiver"),
    )


outbox = _casts("outbox")
inbox = _casts("inbox")
