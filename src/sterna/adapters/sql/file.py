"""Opening a journal file: durable settings, and refusing what is not a journal this Sterna can read."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from sterna.adapters.sql.schema import APPLICATION_ID, SCHEMA_VERSION, metadata
from sterna.adapters.sql.statement import creation
from sterna.domain.errors import Permanent, Temporary

_CREATION = creation(metadata)
_BUSY_MS = 2_000
"""How long another process may lock the file. The agent does nothing else while it waits: after 5 s its host is
down."""
LOCKED_MS = 50
"""Once one has held it for longer, until it has let go."""


def open_file(path: Path | None) -> sqlite3.Connection:
    """The one connection to the journal at `path` (None: in memory), created where missing.

    Raises Permanent where the file is damaged, is not a journal, or has a schema this version does not know;
    Temporary where it is locked or cannot be written.
    """
    where = "memory" if path is None else str(path)
    try:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        db = _connect(path)
        try:
            _prepare(db, where)
        except BaseException:
            db.close()
            raise
        if path is not None:
            _sync_directory(path.parent)  # the new file's name must survive a power cut as well
    except (OSError, sqlite3.OperationalError) as e:
        raise Temporary(f"journal {where} cannot be opened: {e}", fix="check its folder and permissions") from e
    except sqlite3.DatabaseError as e:
        raise damaged(where, str(e)) from e
    return db


def is_locked(error: sqlite3.OperationalError) -> bool:
    """Does another process hold the file?"""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def damaged(where: str, what: str) -> Permanent:
    """The error for a file that is not an intact journal."""
    return Permanent(
        f"journal {where} is damaged or not a journal: {what}",
        fix="restore it from a copy; without it Sterna does not know what it has begun on this host",
    )


def _connect(path: Path | None) -> sqlite3.Connection:
    # isolation_level None: sqlite3's own guessing when to BEGIN is off, journal.py says it itself
    file = ":memory:" if path is None else path
    db = sqlite3.connect(file, isolation_level=None, timeout=_BUSY_MS / 1000)
    db.row_factory = sqlite3.Row
    return db


def _prepare(db: sqlite3.Connection, where: str) -> None:
    def pragma(text: str) -> object:
        row = db.execute(f"PRAGMA {text}").fetchone()
        return None if row is None else row[0]

    pragma("foreign_keys = ON")
    pragma("synchronous = FULL")  # in WAL mode: fsync at every commit, the promise of ports.records
    sound = pragma("quick_check")
    if sound != "ok":
        raise damaged(where, str(sound))
    version = pragma("user_version")
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if version == 0 and tables == 0:
        pragma("journal_mode = WAL")
        db.execute("BEGIN EXCLUSIVE")
        for statement in _CREATION:
            db.execute(statement)
        pragma(f"application_id = {APPLICATION_ID}")
        pragma(f"user_version = {SCHEMA_VERSION}")
        db.execute("COMMIT")
    elif pragma("application_id") != APPLICATION_ID:
        raise damaged(where, "it is another program's SQLite database")
    elif version != SCHEMA_VERSION:
        raise Permanent(
            f"journal {where} has schema version {version}; this Sterna reads version {SCHEMA_VERSION}",
            fix="run the Sterna version that wrote it, or a newer one",
        )


def _sync_directory(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
