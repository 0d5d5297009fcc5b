"""What a journal puts off until the next write (docs/adr/0010), and which steps may put off their intent."""

import sqlite3
import time
from pathlib import Path

import pytest

from sterna.adapters.sql.journal import SqlJournal
from sterna.domain.errors import Conflict, NotFound, Temporary
from sterna.domain.journal import Kind, Role
from sterna.migration import flow
from sterna.sim.world.clock import SimClock
from tests.unit.journal_values import cast, migration

S = Role.SOURCE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def test_a_step_whose_intent_may_be_lost_has_no_undo() -> None:
    every = {
        s for f in (flow.SOURCE, flow.DESTINATION, flow.DESTINATION_POST) for s in (*f.until_pivot, *f.after_pivot)
    }
    assert [s.name for s in every if s.reads_only and s.undo] == []
    assert any(s.reads_only for s in every)


def names(journal: SqlJournal) -> list[str]:
    return [e.name for e in journal.entries("m1") if e.name]


def test_lazy_entries_go_with_the_next_write_in_order_and_are_lost_before_it(path: Path) -> None:
    journal = SqlJournal.at(path)
    journal.accept(migration("m1"), S)
    first = journal.append("m1", Kind.DONE, name="one", lazily=True)
    journal.append("m1", Kind.INTENT, name="two", lazily=True)
    assert (first.seq, first.name, first.epoch, first.role) == (0, "one", 1, S)
    assert names(SqlJournal.at(path)) == []  # what another life would find
    third = journal.append("m1", Kind.NOTE, name="three")
    assert names(SqlJournal.at(path)) == ["one", "two", "three"]
    assert third.seq == 4
    assert journal.flush() is None


@pytest.mark.parametrize("write", ["outbox", "accept", "read", "flush"])
def test_everything_that_is_asked_of_the_journal_writes_them_first(path: Path, write: str) -> None:
    journal = SqlJournal.at(path)
    journal.accept(migration("m1"), S)
    journal.append("m1", Kind.DONE, name="one", lazily=True)
    match write:
        case "outbox":
            journal.outbox_put(cast())
        case "accept":
            journal.accept(migration("m2", vm="vm-2"), S)
        case "read":
            assert [e.name for e in journal.since(1)] == ["one"]
        case "flush":
            assert journal.flush() == journal.entries("m1")[-1]
    assert names(SqlJournal.at(path)) == ["one"]


def test_a_write_that_fails_keeps_them_for_the_next(path: Path) -> None:
    journal = SqlJournal.at(path)
    journal.accept(migration("m1"), S)
    journal.append("m1", Kind.DONE, name="one", lazily=True)
    with pytest.raises(Conflict):
        journal.accept(migration("m2"), S)
    assert names(SqlJournal.at(path)) == []
    journal.flush()
    assert names(SqlJournal.at(path)) == ["one"]


def test_a_file_that_stays_locked_is_waited_for_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent does nothing else while it waits: after the first time it hardly does, for reads either."""
    monkeypatch.setattr("sterna.adapters.sql.file._BUSY_MS", 400)
    journal = SqlJournal.at(path)
    journal.accept(migration("m1"), S)
    journal.append("m1", Kind.DONE, name="one", lazily=True)
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        for _ in range(20):
            with pytest.raises(Temporary, match="locked"):
                journal.append("m1", Kind.NOTE, name="two")
            assert names(journal) == []  # what can be read is read
        assert time.monotonic() - began < 8
        other.execute("ROLLBACK")
    journal.append("m1", Kind.NOTE, name="two")
    assert names(journal) == ["one", "two"]
    assert journal._db.execute("PRAGMA busy_timeout").fetchone()[0] == 400


def test_nothing_is_put_off_for_a_stranger() -> None:
    journal = SqlJournal.at(None, clock=SimClock())
    with pytest.raises(NotFound):
        journal.append("nobody", Kind.DONE, name="one", lazily=True)
    assert journal.flush() is None
