from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

from sterna.adapters.sql import fleet_database
from sterna.adapters.sql.fleet import SqlFleet
from sterna.adapters.sql.fleet_database import open_database
from sterna.adapters.sql.fleet_schema import metadata
from sterna.domain.errors import Permanent, Unreachable


def test_the_revisions_make_the_tables_the_code_uses(database: str) -> None:
    engine = open_database(database)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_a_folder_that_is_missing_is_made(tmp_path: Path) -> None:
    open_database(f"sqlite:///{tmp_path}/new/controller.db").dispose()
    assert (tmp_path / "new/controller.db").is_file()


def test_opening_twice_is_harmless(database: str) -> None:
    open_database(database).dispose()
    open_database(database).dispose()


def test_a_database_of_a_newer_sterna_is_refused(database: str) -> None:
    engine = open_database(database)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(Permanent, match="newer Sterna"):
        open_database(database)


@pytest.mark.parametrize("url", ["nonsense", "sqlite+nosuchdriver:///x", "mysql://x/y", "postgresql+asyncpg://x/y"])
def test_a_url_nobody_understands_is_refused(url: str) -> None:
    with pytest.raises(Permanent, match="cannot be used"):
        open_database(url)


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.db").write_text("this is a letter, not a database\n" * 100)
    with pytest.raises(Permanent, match="not Sterna's"):
        open_database(f"sqlite:///{tmp_path}/c.db")
    with pytest.raises((Unreachable, Permanent)):
        open_database(f"sqlite:///{tmp_path}")


def test_memory_only_works_too() -> None:
    with open_database("sqlite://").connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM hosts")).scalar() == 0


async def test_a_database_that_was_damaged_meanwhile_says_what_mends_it(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    open_database(f"sqlite:///{path}").dispose()
    fleet = SqlFleet.open(f"sqlite:///{path}")
    await fleet.hosts()
    fleet._engine.dispose()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"?" * (path.stat().st_size - 4096))
    with pytest.raises(Permanent, match="damaged") as raised:
        await fleet.hosts()
    assert "journals" in raised.value.fix
    await fleet.close()


async def test_a_database_that_another_process_has_locked_is_not_waited_for_without_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup with `sqlite3`."""
    monkeypatch.setattr(fleet_database, "_BUSY_MS", 200)
    fleet = SqlFleet.open(f"sqlite:///{tmp_path}/c.db")
    other = sqlite3.connect(tmp_path / "c.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    async with asyncio.timeout(10):
        with pytest.raises(Unreachable, match="locked"):
            await fleet.reread("a")
        with pytest.raises(Unreachable, match="locked"):
            await fleet.hosts()
        other.execute("ROLLBACK")
        other.close()
        await fleet.reread("a")
        assert await fleet.hosts() == []
    await fleet.close()
