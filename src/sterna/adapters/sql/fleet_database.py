"""Opening the controller's database: SQLite or PostgreSQL, brought to this version's tables first."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from sterna.domain.errors import Permanent, Unreachable

_BUSY_MS = 5_000
"""How long a SQLite database may be held by another process before that is an error."""


def open_database(url: str) -> Engine:
    """An engine for `url` (SQLAlchemy's form), its tables at this version's revision.

    Raises Permanent for a URL nobody understands, a file that is no database, or tables of a newer Sterna;
    Unreachable where the database is away or its file cannot be written.
    """
    try:
        engine = _engine(url)
    except (ArgumentError, ModuleNotFoundError, OSError) as e:
        fix = "see `database` in the controller's settings"
        if isinstance(e, ModuleNotFoundError):
            fix += "; PostgreSQL needs the extra: pip install 'sterna[postgres]'"
        raise Permanent(f"the database {_shown(url)} cannot be used: {e}", fix=fix) from e
    shown = engine.url.render_as_string(hide_password=True)
    try:
        with engine.begin() as connection:
            _upgrade(connection, shown)
    except (OperationalError, OSError) as e:
        raise Unreachable(
            f"the database {shown} cannot be opened: {_words(e)}", fix="see that it can be reached"
        ) from e
    except (DatabaseError, sqlite3.DatabaseError) as e:
        raise Permanent(
            f"the database {shown} is damaged or not Sterna's: {_words(e)}", fix="name another one"
        ) from e
    return engine


def _shown(url: str) -> str:
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return "in the settings"  # it may hold a password


def _words(error: Exception) -> str:
    return str(error.orig if isinstance(error, SQLAlchemyError) and hasattr(error, "orig") else error)


def _engine(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return create_engine(parsed, pool_pre_ping=True)
    in_memory = parsed.database in (None, "", ":memory:")
    if not in_memory:
        Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
    arguments: dict[str, Any] = {"connect_args": {"check_same_thread": False, "timeout": _BUSY_MS / 1000}}
    engine = create_engine(parsed, **arguments, **({"poolclass": StaticPool} if in_memory else {}))

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # sqlite3's own guessing when to BEGIN is off
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")  # all of it can be read again from the journals

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # one writer at a time, across processes

    return engine


def _upgrade(connection: Connection, shown: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "alembic").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    known = {revision.revision for revision in ScriptDirectory.from_config(config).walk_revisions()}
    current = MigrationContext.configure(connection).get_current_revision()
    if current is not None and current not in known:
        raise Permanent(
            f"the database {shown} was written by a newer Sterna (revision {current}, this one knows {max(known)})",
            fix="start that version of Sterna, or restore the copy made before it was upgraded",
        )
    command.upgrade(config, "head")
