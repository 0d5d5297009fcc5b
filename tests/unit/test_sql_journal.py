import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from sterna.adapters.sql.journal import SqlJournal
from sterna.domain.errors import BadRequest, Conflict, NotFound, Permanent, Temporary
from sterna.domain.journal import Kind, Migration, Role
from sterna.ports.records import Journal, Keep
from sterna.sim.world.clock import SimClock
from tests.narrowing import not_none
from tests.unit.journal_values import cast, migration

S, D = Role.SOURCE, Role.DESTINATION


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "journal.db"


@pytest.fixture
def journal() -> SqlJournal:
    return SqlJournal.at(None, clock=SimClock(), boot="life-1")


def test_it_is_a_journal(journal: SqlJournal) -> None:
    typed: Journal = journal
    assert typed.open() == []
    assert typed.get("m1") is None
    assert typed.entries("m1") == []
    assert typed.holder("vm-1") is None


# accept


def test_the_source_issues_epochs_that_only_grow(journal: SqlJournal) -> None:
    assert journal.accept(migration("m1"), S).epoch == 1
    journal.append("m1", Kind.CLOSED)
    assert journal.accept(migration("m2", epoch=7), S).epoch == 8  # the domain's metadata knew better
    journal.append("m2", Kind.CLOSED)
    assert journal.accept(migration("m3", epoch=2), S).epoch == 9
    assert journal.accept(migration("m4", vm="vm-2"), S).epoch == 1


def test_accept_again_returns_what_was_accepted_first(journal: SqlJournal) -> None:
    first = journal.accept(migration("m1", options={"a": 1}), S)
    assert journal.accept(migration("m1", options={"a": 2}), S) == first
    journal.append("m1", Kind.CLOSED)
    assert journal.accept(migration("m1"), S) == first
    assert [e.kind for e in journal.entries("m1")] == [Kind.ACCEPTED, Kind.CLOSED]


def test_an_id_means_one_migration(journal: SqlJournal) -> None:
    journal.accept(migration("m1"), S)
    with pytest.raises(Conflict, match="m1 is taken"):
        journal.accept(migration("m1", vm="vm-2"), S)
    with pytest.raises(Conflict, match="m1 is taken"):
        journal.accept(migration("m1", epoch=9), D)


@pytest.mark.parametrize("role", [S, D])
def test_one_migration_per_vm(journal: SqlJournal, role: Role) -> None:
    journal.accept(migration("m1", epoch=1), role)
    assert not_none(journal.holder("vm-1")).id == "m1"
    with pytest.raises(Conflict, match="already migrating from a to b"):
        journal.accept(migration("m2", epoch=5), S)
    with pytest.raises(Conflict, match="m1"):
        journal.accept(migration("m2", epoch=5), D)
    assert journal.get("m2") is None
    assert journal.accept(migration("m3", vm="vm-2", epoch=1), role)


@pytest.mark.parametrize("end", [Kind.RELEASED, Kind.CLOSED])
def test_the_lock_ends_with_release_or_close(journal: SqlJournal, end: Kind) -> None:
    journal.accept(migration("m1"), S)
    journal.append("m1", Kind.NOTE, name="still held")
    assert journal.holder("vm-1")
    journal.append("m1", end)
    assert journal.holder("vm-1") is None
    assert [m.id for m, _ in journal.open()] == (["m1"] if end is Kind.RELEASED else [])
    assert journal.accept(migration("m2"), S).epoch == 2
    assert not_none(journal.holder("vm-1")).id == "m2"


def test_release_after_close_does_not_open_again(journal: SqlJournal) -> None:
    journal.accept(migration("m1"), S)
    journal.append("m1", Kind.CLOSED)
    journal.append("m1", Kind.RELEASED)
    assert journal.open() == []


def test_release_of_an_old_migration_does_not_free_the_new_one(journal: SqlJournal) -> None:
    journal.accept(migration("m1"), S)
    journal.append("m1", Kind.RELEASED)
    journal.accept(migration("m2"), S)
    journal.append("m1", Kind.CLOSED)
    assert not_none(journal.holder("vm-1")).id == "m2"


def test_the_destination_refuses_stale_epochs_for_ever(journal: SqlJournal) -> None:
    assert journal.accept(migration("m1", epoch=3), D).epoch == 3
    journal.append("m1", Kind.CLOSED)
    for stale in (0, 2, 3):
        with pytest.raises(Conflict, match=f"epoch {stale} .* stale.* 3"):
            journal.accept(migration("m2", epoch=stale), D)
    assert journal.accept(migration("m2", epoch=4), D).epoch == 4
    journal.append("m2", Kind.CLOSED)
    assert journal.accept(migration("m3"), S).epoch == 5  # back again: epochs seen as destination count


# entries


async def test_entries_carry_time_life_and_role() -> None:
    clock = SimClock()
    journal = SqlJournal.at(None, clock=clock, boot="life-1")
    journal.accept(migration("m1", epoch=1), D)
    await clock.advance(1.5)
    entry = journal.append("m1", Kind.DONE, row="P9", name="connect volumes", data={"n": [1, {"x": None}]})
    assert entry == journal.entries("m1")[1]
    assert entry.model_dump(mode="json") == {
        "v": 1, "seq": 2, "migration_id": "m1", "epoch": 1, "role": "destination", "kind": "done", "row": "P9",
        "name": "connect volumes", "at": "2026-01-01T00:00:01.500+00:00", "mono_ms": 1500.0, "boot": "life-1",
        "data": {"n": [1, {"x": None}]},
    }  # fmt: skip


def test_accepted_is_the_first_entry_and_carries_the_migration(journal: SqlJournal) -> None:
    accepted = journal.accept(migration("m1"), S)
    (entry,) = journal.entries("m1")
    assert entry.kind is Kind.ACCEPTED
    assert Migration.model_validate(entry.data) == accepted


def test_append_to_a_stranger(journal: SqlJournal) -> None:
    with pytest.raises(NotFound):
        journal.append("m9", Kind.NOTE)


@pytest.mark.parametrize("data", [{"x": object()}, {"x": float("nan")}, {"x": {1, 2}}])
def test_data_must_be_json(journal: SqlJournal, data: dict[str, object] | dict[str, set[int]]) -> None:
    journal.accept(migration("m1"), S)
    with pytest.raises(BadRequest, match="plain JSON"):
        journal.append("m1", Kind.NOTE, data=data)
    assert len(journal.entries("m1")) == 1


def test_followers_use_a_cursor(journal: SqlJournal) -> None:
    journal.accept(migration("m1"), S)
    journal.accept(migration("m2", vm="vm-2"), S)
    for i in range(4):
        journal.append(f"m{i % 2 + 1}", Kind.NOTE, name=str(i))
    first = journal.since(0, limit=3)
    assert [e.seq for e in first] == [1, 2, 3]
    assert [e.seq for e in journal.since(3)] == [4, 5, 6]
    assert journal.since(6) == []
    assert [m.id for m, _ in journal.open()] == ["m1", "m2"]


# outbox and inbox


def test_outbox_keeps_until_done(journal: SqlJournal) -> None:
    for id, to in (("c1", "b"), ("c2", "c"), ("c3", "b")):
        journal.outbox_put(cast(id, to, params={"n": id}))
    journal.outbox_put(cast("c1", "b", params={"n": "again"}))
    assert [e.id for e in journal.outbox()] == ["c1", "c2", "c3"]
    assert [e.params["n"] for e in journal.outbox("b")] == ["c1", "c3"]
    journal.outbox_done("c1")
    journal.outbox_done("c1")
    journal.outbox_done("never there")
    journal.outbox_put(cast("c1"))
    assert [e.id for e in journal.outbox("b")] == ["c3"]


def test_inbox_knows_repeats(journal: SqlJournal) -> None:
    assert journal.inbox_put(cast("c1"))
    assert not journal.inbox_put(cast("c1"))
    assert journal.inbox_put(cast("c2"))
    assert [e.id for e in journal.inbox()] == ["c1", "c2"]
    journal.inbox_done(cast("c1"))
    assert not journal.inbox_put(cast("c1"))
    assert [e.id for e in journal.inbox()] == ["c2"]
    assert journal.outbox() == []


# the file


def test_it_survives_closing(path: Path) -> None:
    journal = SqlJournal.at(path, boot="life-1")
    accepted = journal.accept(migration("m1"), S)
    journal.outbox_put(cast("c1"))
    journal.inbox_put(cast("c2"))
    before = journal.entries("m1")
    journal.close()
    again = SqlJournal.at(path, boot="life-2")
    assert again.get("m1") == (accepted, S)
    assert again.entries("m1") == before
    assert (again.outbox(), again.inbox()) == ([cast("c1")], [cast("c2")])
    assert again.append("m1", Kind.NOTE).boot == "life-2"


def test_two_lives_have_two_ids() -> None:
    assert SqlJournal.at(None).boot != SqlJournal.at(None).boot


def test_another_process_reads_while_we_write(path: Path) -> None:
    journal = SqlJournal.at(path)
    journal.accept(migration("m1"), S)
    script = (
        "import sys; from pathlib import Path; from sterna.adapters.sql.journal import SqlJournal\n"
        "print(*[e.kind for e in SqlJournal.at(Path(sys.argv[1])).since(0)])"
    )
    out = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert out.stdout.strip() == "accepted"
    journal.append("m1", Kind.NOTE)


CHILD = """
import sys
from pathlib import Path
from sterna.adapters.sql.journal import SqlJournal
from sterna.domain.journal import Kind, Migration, Role
journal = SqlJournal.at(Path(sys.argv[1]))
journal.accept(Migration(id="m1", epoch=0, vm_uuid="v", vm_name="v", source="a", destination="b"), Role.SOURCE)
n = 0
while True:
    print(journal.append("m1", Kind.NOTE, data={"n": n}).seq, flush=True)
    n += 1
"""


def test_kill_9_loses_nothing_that_was_written(path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True)
    promised = 0
    for _ in range(50):
        promised = int(not_none(child.stdout).readline())
    os.kill(child.pid, signal.SIGKILL)
    rest = not_none(child.stdout).read().split("\n")
    child.wait()
    promised = int(rest[-2]) if len(rest) > 1 else promised  # the last whole line it had printed
    journal = SqlJournal.at(path)
    entries = journal.since(0, limit=100_000)
    assert [e.seq for e in entries] == list(range(1, len(entries) + 1))
    assert promised <= len(entries) <= promised + 1
    assert not_none(journal.holder("v")).id == "m1"
    assert journal.append("m1", Kind.CLOSED).seq == len(entries) + 1


def test_every_commit_is_synced(path: Path) -> None:
    journal = SqlJournal.at(path)
    with journal._read() as db:
        assert db.execute("PRAGMA synchronous").fetchone()[0] == 2
        assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_a_failure_in_the_middle_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = SqlJournal.at(path)

    def die(*_: object, **__: object) -> None:
        raise RuntimeError("between two statements")

    with monkeypatch.context() as m, pytest.raises(RuntimeError):
        m.setattr(journal, "_write_entry", die)
        journal.accept(migration("m1"), S)
    assert journal.get("m1") is None
    assert journal.accept(migration("m2"), S).epoch == 1


@pytest.mark.parametrize("content", [b"hello, world\n" * 1000, os.urandom(8192)])
def test_a_file_that_is_no_journal(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(Permanent, match=r"journal\.db is damaged or not a journal"):
        SqlJournal.at(path)
    assert path.read_bytes() == content


def test_a_damaged_page(path: Path) -> None:
    journal = SqlJournal.at(path)
    journal.accept(migration("m1"), S)
    for i in range(200):
        journal.append("m1", Kind.NOTE, data={"n": str(i) * 100})
    journal.close()
    raw = bytearray(path.read_bytes())
    raw[8192 : len(raw) - 4096] = os.urandom(len(raw) - 12288)
    path.write_bytes(raw)
    with pytest.raises(Permanent, match="damaged"):
        SqlJournal.at(path)


def test_somebody_elses_database(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE theirs (x)")
    with pytest.raises(Permanent, match="another program's"):
        SqlJournal.at(path)


def test_another_schema_version(path: Path) -> None:
    SqlJournal.at(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(Permanent, match=r"version 99.*reads version 1"):
        SqlJournal.at(path)


def test_a_folder_in_its_place(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(Temporary, match="cannot be opened"):
        SqlJournal.at(path)


def test_a_locked_file_is_temporary(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sterna.adapters.sql.file._BUSY_MS", 10)
    journal = SqlJournal.at(path)
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Temporary, match="locked"):
            journal.accept(migration("m1"), S)
        other.execute("ROLLBACK")
    assert journal.accept(migration("m1"), S).epoch == 1


def test_unknown_fields_of_a_newer_version_are_ignored(journal: SqlJournal) -> None:
    journal.accept(migration("m1"), S)
    with journal._write() as db:
        body = json.dumps(migration("m1", epoch=1).model_dump(mode="json") | {"from_the_future": 1})
        db.execute("UPDATE migrations SET body = ?", (body,))
    assert not_none(journal.get("m1"))[0].epoch == 1


def closed(journal: SqlJournal, id: str, vm: str, entries: int = 3) -> None:
    journal.accept(migration(id, vm), Role.SOURCE)
    for n in range(entries):
        journal.append(id, Kind.NOTE, name=f"n{n}")
    journal.append(id, Kind.CLOSED)


def test_old_migrations_are_forgotten_once_they_are_read_and_nothing_depends_on_them(journal: SqlJournal) -> None:
    for n in range(6):
        closed(journal, f"m{n}", f"vm-{n}")
        if n == 1:
            journal.append("m1", Kind.NOTE, name="spare-me")
    journal.outbox_put(cast("m2/R4"))
    journal.accept(migration("open", "vm-9"), Role.SOURCE)
    last = journal.since(0, 1000)[-1].seq
    keep = Keep(migrations=2)
    assert journal.prune(0, spare="spare-me", keep=keep) == 0  # nobody has read anything
    assert journal.prune(journal.entries("m0")[-1].seq, spare="spare-me", keep=keep) == 0  # its last one: not yet
    assert journal.prune(last, spare="spare-me", keep=keep) == 2
    left = {e.migration_id for e in journal.since(0, 1000)}
    assert left == {"m1", "m2", "m4", "m5", "open"}  # m1 is spared; m2: a cast is under way
    assert journal.get("m0") is None and journal.entries("m0") == []
    journal.outbox_done("m2/R4")
    assert journal.prune(last, spare="spare-me", keep=keep) == 1
    assert journal.get("m2") is None
    assert journal.prune(last, spare="spare-me", keep=keep) == 0
    # what was seen of a VM is not forgotten with its migrations
    with pytest.raises(Conflict, match="stale"):
        journal.accept(migration("late", "vm-0", epoch=1), Role.DESTINATION)
    assert [m.id for m, _ in journal.open()] == ["open"]


def test_casts_that_are_done_are_forgotten_but_the_newest(journal: SqlJournal) -> None:
    for n in range(8):
        journal.inbox_put(cast(f"in{n}"))
        journal.outbox_put(cast(f"out{n}"))
        if n != 1:
            journal.inbox_done(cast(f"in{n}"))
            journal.outbox_done(f"out{n}")
    for _ in range(2):
        journal.prune(0, spare="x", keep=Keep(casts=3))
    assert [e.id for e in journal.inbox()] == ["in1"] and [e.id for e in journal.outbox()] == ["out1"]
    assert not journal.inbox_put(cast("in7")) and not journal.inbox_put(cast("in1"))
    assert journal.inbox_put(cast("in0"))  # so long ago that it is forgotten


def test_the_journal_stays_small_however_many_migrations_there_were(path: Path) -> None:
    journal = SqlJournal.at(path)
    sizes = []
    for n in range(300):
        closed(journal, f"m{n}", f"vm-{n % 7}")
        journal.prune(journal.since(0, 10_000)[-1].seq, spare="x", keep=Keep(migrations=20, casts=20))
        sizes.append(len(journal.since(0, 10_000)))
    assert max(sizes) <= 21 * 5
