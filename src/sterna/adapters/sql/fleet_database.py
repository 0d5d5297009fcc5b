"""Opening the controller's database: SQLite or PostgreSQL, brought to this version's tables first."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, func, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DataError,
    DBAPIError,
    InternalError,
    OperationalError,
    PendingRollbackError,
    SQLAlchemyError,
)
from sqlalchemy.pool import StaticPool

from sterna.domain.errors import BadRequest, Permanent, Unreachable

_BUSY_MS = 5_000
"""How long a SQLite database may be held by another process before that is an error."""
_TURN = 0x5354524E
"""The advisory lock that PostgreSQL's writers take ("STRN"); advisory locks are each database's own."""
_POSTGRES = {
    "application_name": "sterna",
    "client_encoding": "UTF8",
    # a server that vanished: noticed within some 10 s, where libpq would wait for a quarter of an hour
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
"""Of each connection to PostgreSQL, unless the URL says otherwise."""
_SESSION = (
    # a controller that hangs in its turn, or is cut off in it, loses it before the others stop waiting
    "SET idle_in_transaction_session_timeout = '5s'",
    "SET lock_timeout = '10s'",
)
_UPGRADE_S = 600.0
"""One statement that brings the tables up to date may take this long."""
_RIGHTS = {"42501", "42P01"}
"""SQLSTATE: not allowed; no such table."""


def open_database(url: str) -> Engine:
    """An engine for `url` (SQLAlchemy's form), its tables at this version's revision.

    Raises Permanent for a URL that is not valid, a file that is not a database, or tables of a newer Sterna;
    Unreachable where the database is away or its file cannot be written.
    """
    try:
        engine = _engine(url)
    except (ArgumentError, ModuleNotFoundError, OSError) as e:
        fix = "see `database` in the controller's settings"
        if isinstance(e, ModuleNotFoundError):
            fix += "; PostgreSQL needs the extra: pip install 'sterna[postgres]'"
        raise Permanent(f"the database {_shown(url)} cannot be used: {e}", fix=fix) from e
    except ValueError:  # its text may be a part of the password
        fix = (
            "see `database` in the controller's settings: write `@`, `:` and `/` in a password as %40, %3A and %2F"
        )
        message = f"the database {_shown(url)} cannot be used: its host or port is not valid"
        raise Permanent(message, fix=fix) from None
    shown = _shown(url)
    try:
        with engine.begin() as connection:
            _upgrade(connection, shown)
    except (OperationalError, OSError) as e:
        raise Unreachable(
            f"the database {shown} cannot be opened: {_words(e)}", fix="check that it can be reached"
        ) from e
    except (DatabaseError, sqlite3.DatabaseError) as e:
        denied = isinstance(e, DatabaseError) and getattr(e.orig, "sqlstate", None) in _RIGHTS
        fix = "let the user of the URL own the database" if denied else "name another one"
        raise Permanent(f"the database {shown} is damaged or not Sterna's: {_words(e)}", fix=fix) from e
    return engine


def is_away(url: str, error: Unreachable) -> bool:
    """Is it worth while to wait, after `open_database` has raised this? Not where the server takes connections, but
    not this one: a wrong password, user or name of a database. The server is asked without any of them."""
    failed = getattr(error.__cause__, "orig", None)
    if getattr(failed, "sqlstate", None) is not None:
        return True  # it has taken the connection; another controller holds the turn, or it is being stopped
    from sterna.adapters.sql.postgres import takes_connections  # needs the extra

    parsed = _with_limits(make_url(url).set(drivername="postgresql+psycopg"))
    _, named = parsed.get_dialect()().create_connect_args(parsed)
    return not takes_connections(named)


@contextmanager
def _patient(connection: Connection) -> Iterator[None]:
    """Statements may take long on this connection; only PostgreSQL's have a limit."""
    raw: Any = connection.connection.dbapi_connection
    if connection.dialect.name != "postgresql":
        yield
        return
    usual_s, raw.patience_s = raw.patience_s, _UPGRADE_S
    try:
        yield
    finally:
        raw.patience_s = usual_s


def _parsed(url: str) -> URL:
    """Raises ArgumentError, and ValueError where a part of the password would be taken for the host or the port."""
    parsed = make_url(url)
    if "@" in (parsed.host or ""):
        raise ValueError("an @ in the host")
    return parsed


def _shown(url: str) -> str:
    try:
        parsed = _parsed(url)
    except (ArgumentError, ValueError):
        return "in the settings"  # it may hold a password
    secrets = [key for key in parsed.query if "pass" in key.lower()]
    return parsed.difference_update_query(secrets).render_as_string(hide_password=True)


def _words(error: Exception) -> str:
    return str(error.orig if isinstance(error, SQLAlchemyError) and hasattr(error, "orig") else error)


def take_turn(connection: Connection) -> None:
    """Be the only writer until this transaction ends: on SQLite it is already, PostgreSQL gives it a lock.

    So what a writer reads does not change before it writes, and writers cannot deadlock. Ids become visible in the
    order in which they are given out, because the lock is released after the commit: a reader that asks for events
    after the last id it saw misses none.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_TURN)))


@contextmanager
def own_errors() -> Iterator[None]:
    """Attempts the errors of the database into Unreachable, Permanent or BadRequest, each with a fix."""
    try:
        yield
    except DBAPIError as e:
        raise _own_error(e) from e
    except PendingRollbackError as e:
        raise _away("the connection was lost in the middle of a transaction") from e


def has_ended(connection: Connection) -> bool:
    """Is its transaction over, so that it can only be taken back? The connection is lost, or SQLite has ended it by
    itself, whatever savepoint it was in (its disk is full or broken)."""
    if connection.invalidated:
        return True
    raw = connection.connection.dbapi_connection
    return isinstance(raw, sqlite3.Connection) and not raw.in_transaction


def _away(why: object) -> Unreachable:
    fix = "check that it runs, can be reached and written to, and that its disk has free space"
    return Unreachable(f"the controller's database does not answer: {why}", fix=fix)


def _own_error(e: DBAPIError) -> Exception:
    if isinstance(e, OperationalError | InternalError) or e.connection_invalidated:
        return _away(e.orig)
    if isinstance(e, DataError):
        return BadRequest(f"the controller's database cannot hold that: {e.orig}", fix="leave it out")
    if getattr(e.orig, "sqlstate", None) in _RIGHTS:
        fix = "its user must own it; if tables were removed, restart the controller: it reads the journals again"
        return Permanent(f"the controller's database refuses: {e.orig}", fix=fix)
    if type(e) is DatabaseError:  # no kind of its own: the file
        fix = (
            "stop the controller, move the database away, start it: it reads the agents' journals again; "
            "declare again which hosts are in maintenance or dead, and create the tokens again"
        )
        return Permanent(f"the controller's database is damaged: {e.orig}", fix=fix)
    return e


def _engine(url: str) -> Engine:
    parsed = _parsed(url)
    if parsed.drivername in ("postgresql", "postgresql+psycopg"):
        return _postgres(parsed.set(drivername="postgresql+psycopg"))
    if parsed.get_backend_name() != "sqlite":
        raise ArgumentError(f"Sterna does not know {parsed.drivername}, but sqlite and postgresql+psycopg")
    return _sqlite(parsed)


def _postgres(url: URL) -> Engine:
    from sterna.adapters.sql.postgres import PatientConnection  # needs the extra

    # READ COMMITTED whatever the server's default: who waited for its turn must see what was written before it
    engine = create_engine(_with_limits(url), pool_pre_ping=True, isolation_level="READ COMMITTED")

    @event.listens_for(engine, "do_connect")
    def connect(_dialect: object, _record: object, arguments: list[Any], named: dict[str, Any]) -> Any:
        return PatientConnection.connect(*arguments, **named)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        with connection.cursor() as cursor:
            for statement in _SESSION:
                cursor.execute(statement)
        connection.commit()

    return engine


def _with_limits(url: URL) -> URL:
    return url.update_query_dict({name: value for name, value in _POSTGRES.items() if name not in url.query})


def _sqlite(parsed: URL) -> Engine:
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
    take_turn(connection)  # another controller may be starting as well
    if connection.dialect.name == "postgresql":
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar()
        if encoding != "UTF8":
            fix = "CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"
            raise Permanent(f"the database {shown} is in {encoding}: names of VMs may not fit into it", fix=fix)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "alembic").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    revisions = ScriptDirectory.from_config(config)
    known = {revision.revision for revision in revisions.walk_revisions()}
    current = MigrationContext.configure(connection).get_current_revision()
    if current is not None and current not in known:
        raise Permanent(
            f"the database {shown} was written by a newer Sterna (revision {current}, this one knows {max(known)})",
            fix="start that version of Sterna, or restore the copy made before it was upgraded",
        )
    if current != revisions.get_current_head():
        with _patient(connection):
            command.upgrade(config, "head")
