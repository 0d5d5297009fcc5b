"""An agent's journal on SQLite: WAL, fsync at every commit, one connection, used from one thread.

Every public method is one transaction, so that kill -9 leaves either all of it or nothing.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC
from pathlib import Path
from uuid import uuid4

from sqlalchemy import Integer, Table, bindparam, delete, func, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from sterna.adapters.sql.file import LOCKED_MS, damaged, is_locked, open_file
from sterna.adapters.sql.journal_rows import entry_of, forget, forget_casts, forgettable, migration_of, same
from sterna.adapters.sql.schema import entries, epochs, inbox, migrations, outbox
from sterna.adapters.sql.statement import Statement, new_row
from sterna.domain.errors import BadRequest, Conflict, NotFound, Temporary
from sterna.domain.journal import JOURNAL_VERSION, Entry, Kind, Migration, Role, leaps
from sterna.domain.model import Data
from sterna.kit.clock import SystemClock
from sterna.ports.clock import Clock
from sterna.ports.records import KEEP, Envelope, Keep

_BY_ID = Statement(select(migrations).where(migrations.c.id == bindparam("id")))
_HELD = Statement(select(migrations).where(migrations.c.vm_uuid == bindparam("vm"), migrations.c.held.is_(True)))
_OPEN = Statement(select(migrations).where(migrations.c.closed.is_(False)).order_by(migrations.c.n))
_NEW_MIGRATION = new_row(migrations)
_FREED = Statement(
    update(migrations).where(migrations.c.id == bindparam("of")).values(held=False, closed=bindparam("over"))
)
_NEWEST = Statement(select(epochs.c.newest).where(epochs.c.vm_uuid == bindparam("vm")))
_SEEN_EPOCH = Statement(upsert(epochs).on_conflict_do_update(set_={"newest": upsert(epochs).excluded.newest}))
_NEW_ENTRY = new_row(entries)
_ENTRIES_OF = Statement(select(entries).where(entries.c.migration_id == bindparam("id")).order_by(entries.c.seq))
_ENTRIES_SINCE = Statement(
    select(entries)
    .where(entries.c.seq > bindparam("cursor"))
    .order_by(entries.c.seq)
    .limit(bindparam("most", type_=Integer))
)
_LAST_SEQ = Statement(select(func.max(entries.c.seq)))
_SETTLED = Statement(
    select(entries)
    .join(migrations, migrations.c.id == entries.c.migration_id)
    .where(entries.c.name == bindparam("name"), migrations.c.closed.is_(True))
    .order_by(entries.c.seq)
)
_TOUCH_NOTHING = Statement(delete(inbox).where(inbox.c.id == ""))  # none has that id: no page changes


class _Casts:
    """The statements of an outbox or an inbox."""

    def __init__(self, table: Table) -> None:
        waiting = select(table.c.body).where(table.c.done.is_(False)).order_by(table.c.n)
        self.put = Statement(upsert(table).on_conflict_do_nothing())
        self.waiting = Statement(waiting)
        self.waiting_for = Statement(waiting.where(table.c.receiver == bindparam("to")))
        self.done = Statement(update(table).where(table.c.id == bindparam("cast")).values(done=True))


_OUTBOX, _INBOX = _Casts(outbox), _Casts(inbox)


class SqlJournal:
    """Implements ports.records.Journal. Any method raises Temporary where the file cannot be read or written
    now (disk full, locked), Permanent where it is damaged."""

    def __init__(self, db: sqlite3.Connection, where: str, clock: Clock, boot: str) -> None:
        self._db = db
        self._where = where
        self._clock = clock
        self.boot = boot
        """This life's random id, in every entry it writes."""
        (usual_ms,) = db.execute("PRAGMA busy_timeout").fetchone()
        self._usual_ms = self._patience_ms = int(usual_ms)
        """How long another process that holds the file is waited for: as a rule, and now."""
        self._lazy: list[tuple[dict[str, object], str]] = []
        """Columns and data of the entries that go with the next transaction."""

    @classmethod
    def at(cls, path: Path | None, *, clock: Clock | None = None, boot: str = "") -> SqlJournal:
        """The journal in the file at `path`, created where missing; None: in memory, gone with the process.

        `boot` is the id of this agent's life ('': a new random one). Raises Permanent where the file is damaged,
        something else, or of another schema version; Temporary where it cannot be opened now.
        """
        where = "memory" if path is None else str(path)
        return cls(open_file(path), where, clock or SystemClock(), boot or uuid4().hex)

    def close(self) -> None:
        """Give the file back; nothing needs to be written."""
        self._db.close()

    # migrations

    def accept(self, migration: Migration, role: Role) -> Migration:
        """Open a migration here, write its ACCEPTED entry, take the VM's lock; see ports.records.

        Raises Conflict where another open migration holds the VM, the epoch is stale (as destination) or far above
        the newest seen here, or the id was accepted before for another VM or role.
        """
        with self._write() as db:
            known = _BY_ID.first(db, id=migration.id)
            if known is not None:
                return same(migration, role, known)
            newest = self._newest_epoch(db, migration.vm_uuid)
            if leaps(migration.epoch, newest):
                raise Conflict(
                    f"epoch {migration.epoch} of {migration.vm_name} is implausible: {newest} is the newest here",
                    fix="find out which host sent it, or who wrote it into the VM's metadata",
                )
            if role is Role.SOURCE:
                migration = migration.model_copy(update={"epoch": max(newest, migration.epoch) + 1})
            elif migration.epoch <= newest:
                raise Conflict(
                    f"epoch {migration.epoch} of VM {migration.vm_name} is stale: this host has seen {newest}"
                )
            self._check_free(db, migration)
            _SEEN_EPOCH.run(db, vm_uuid=migration.vm_uuid, newest=migration.epoch)
            body = migration.model_dump_json()
            _NEW_MIGRATION.run(
                db,
                id=migration.id,
                vm_uuid=migration.vm_uuid,
                role=role,
                epoch=migration.epoch,
                held=True,
                closed=False,
                body=body,
            )
            self._write_entry(db, migration.id, migration.epoch, role, Kind.ACCEPTED, data_json=body)
            return migration

    def append(
        self,
        migration_id: str,
        kind: Kind,
        *,
        row: str = "",
        name: str = "",
        data: Data | None = None,
        lazily: bool = False,
    ) -> Entry:
        """Write one entry, durably; RELEASED and CLOSED take effect in the same transaction. See ports.records.

        Raises NotFound where the migration was never accepted here, BadRequest where `data` is not plain JSON.
        """
        try:
            data_json = json.dumps(data or {}, allow_nan=False)
        except (TypeError, ValueError) as e:
            raise BadRequest(f"a journal entry's data must be plain JSON: {e}") from e
        with self._transaction("BEGIN") if lazily else self._write() as db:
            known = _BY_ID.first(db, id=migration_id)
            if known is None:
                raise NotFound(f"migration {migration_id} was never accepted on this host")
            if lazily:
                assert kind not in (Kind.RELEASED, Kind.CLOSED), "an entry that frees a VM cannot be deferred"
                columns = self._columns(migration_id, known["epoch"], Role(known["role"]), kind, row=row, name=name)
                self._lazy.append((columns, data_json))
                return Entry.model_validate(columns | {"seq": 0, "data": json.loads(data_json)})
            if kind in (Kind.RELEASED, Kind.CLOSED):
                _FREED.run(db, of=migration_id, over=known["closed"] or kind is Kind.CLOSED)
            return self._write_entry(
                db, migration_id, known["epoch"], Role(known["role"]), kind, row=row, name=name, data_json=data_json
            )

    def check_writable(self) -> None:
        """Could an entry be written now? Writes nothing, and waits for no lock. Raises Temporary, Permanent."""
        before_ms = self._patience_ms
        self._wait_at_most(0)
        try:
            with self._transaction("BEGIN IMMEDIATE") as db:
                _TOUCH_NOTHING.run(db)
        finally:
            self._wait_at_most(before_ms)

    def flush(self) -> Entry | None:
        """Make durable what was written lazily; see ports.records."""
        if not self._lazy:
            return None
        last = Entry.model_validate(self._lazy[-1][0] | {"seq": 0, "data": json.loads(self._lazy[-1][1])})
        with self._write() as db:
            (seq,) = _LAST_SEQ.run(db).fetchone()
        return last.model_copy(update={"seq": seq})

    def get(self, migration_id: str) -> tuple[Migration, Role] | None:
        """The migration as accepted, None if this host never accepted it."""
        with self._read() as db:
            known = _BY_ID.first(db, id=migration_id)
        return migration_of(known) if known is not None else None

    def entries(self, migration_id: str) -> list[Entry]:
        """All entries of one migration, in order."""
        with self._read() as db:
            return [entry_of(r) for r in _ENTRIES_OF.rows(db, id=migration_id)]

    def settled(self, name: str) -> list[Entry]:
        """Entries of that name of all closed migrations, in order."""
        with self._read() as db:
            return [entry_of(r) for r in _SETTLED.rows(db, name=name)]

    def open(self) -> list[tuple[Migration, Role]]:
        """Migrations not CLOSED here, oldest first."""
        with self._read() as db:
            return [migration_of(r) for r in _OPEN.rows(db)]

    def since(self, cursor: int, limit: int = 500) -> list[Entry]:
        """Entries with seq > cursor, over all migrations, in order."""
        with self._read() as db:
            return [entry_of(r) for r in _ENTRIES_SINCE.rows(db, cursor=cursor, most=limit)]

    def holder(self, vm_uuid: str) -> Migration | None:
        """The open migration that holds the VM's lock here."""
        with self._read() as db:
            held = _HELD.first(db, vm=vm_uuid)
        return migration_of(held)[0] if held is not None else None

    def newest_epoch(self, vm_uuid: str) -> int:
        """The newest epoch of this VM that this host has seen; 0 where it has seen none."""
        with self._read() as db:
            return self._newest_epoch(db, vm_uuid)

    def prune(self, read_to: int, *, spare: str, keep: Keep = KEEP) -> int:
        """Forget what is not needed any more; at most 100 migrations at a time, so that it is done quickly."""
        with self._write() as db:
            forget_casts(db, keep.casts)
            old = forgettable(db, read_to, spare, keep.migrations)
            forget(db, old)
            return len(old)

    # outbox and inbox

    def outbox_put(self, envelope: Envelope) -> bool:
        """Keep until `outbox_done`. The same id again, even a done one, is ignored: False."""
        return self._put(_OUTBOX, envelope.id, envelope)

    def outbox(self, to: str | None = None) -> Sequence[Envelope]:
        """Casts not yet acknowledged, to all or to one receiver, oldest first."""
        return self._waiting(_OUTBOX, to)

    def outbox_done(self, envelope_id: str) -> None:
        """The receiver has journaled it."""
        with self._write() as db:
            _OUTBOX.done.run(db, cast=envelope_id)

    def inbox_put(self, envelope: Envelope) -> bool:
        """Journal a received cast; False where this id of this sender was already there (handled or not)."""
        return self._put(_INBOX, _received(envelope), envelope)

    def inbox(self) -> Sequence[Envelope]:
        """Received casts not yet handled, oldest first."""
        return self._waiting(_INBOX, None)

    def inbox_done(self, envelope: Envelope) -> None:
        """Handled; its id is remembered so that a repeat is recognised."""
        with self._write() as db:
            if not _INBOX.done.run(db, cast=_received(envelope)).rowcount:
                _INBOX.done.run(db, cast=envelope.id)  # an earlier version kept the id alone

    def _put(self, casts: _Casts, id: str, envelope: Envelope) -> bool:
        body = envelope.model_dump_json()
        with self._write() as db:
            return casts.put.run(db, id=id, receiver=envelope.to, done=False, body=body).rowcount == 1

    def _waiting(self, casts: _Casts, to: str | None) -> list[Envelope]:
        with self._read() as db:
            found = casts.waiting.rows(db) if to is None else casts.waiting_for.rows(db, to=to)
            return [Envelope.model_validate_json(row["body"]) for row in found]

    # inside a transaction

    def _newest_epoch(self, db: sqlite3.Connection, vm_uuid: str) -> int:
        seen = _NEWEST.first(db, vm=vm_uuid)
        return int(seen["newest"]) if seen is not None else 0

    def _check_free(self, db: sqlite3.Connection, migration: Migration) -> None:
        held = _HELD.first(db, vm=migration.vm_uuid)
        if held is not None:
            other, _ = migration_of(held)
            raise Conflict(
                f"VM {other.vm_name} is already migrating from {other.source} to {other.destination} "
                f"(migration {other.id})",
                fix=f"wait for migration {other.id} to end, or abort it",
            )

    def _write_entry(  # noqa: PLR0913 - one parameter per column
        self,
        db: sqlite3.Connection,
        migration_id: str,
        epoch: int,
        role: Role,
        kind: Kind,
        *,
        row: str = "",
        name: str = "",
        data_json: str = "{}",
    ) -> Entry:
        columns = self._columns(migration_id, epoch, role, kind, row=row, name=name)
        seq = _NEW_ENTRY.run(db, **columns, data=data_json).lastrowid
        return Entry.model_validate(columns | {"seq": seq, "data": json.loads(data_json)})

    def _columns(
        self, migration_id: str, epoch: int, role: Role, kind: Kind, *, row: str, name: str
    ) -> dict[str, object]:
        """As of now: what is written lazily keeps the time at which it was true."""
        return {
            "v": JOURNAL_VERSION,
            "migration_id": migration_id,
            "epoch": epoch,
            "role": role,
            "kind": kind,
            "row": row,
            "name": name,
            "at": self._clock.now().astimezone(UTC).isoformat(timespec="milliseconds"),
            "mono_ms": self._clock.monotonic_ms(),
            "boot": self.boot,
        }

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        """One transaction, what was put off first. Where it fails, that stays put off."""
        # IMMEDIATE: take the write lock before reading, or two processes could both read "free"
        with self._transaction("BEGIN IMMEDIATE") as db:
            for columns, data_json in self._lazy:
                _NEW_ENTRY.run(db, **columns, data=data_json)
            yield db
        self._lazy.clear()
        self._wait_at_most(self._usual_ms)

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        with contextlib.suppress(Temporary):  # a full disk: what is on it can be read
            self.flush()
        with self._transaction("BEGIN") as db:
            yield db

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        try:
            self._db.execute(begin)
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.OperationalError as e:
            if is_locked(e):
                self._wait_at_most(min(LOCKED_MS, self._patience_ms))
            raise Temporary(f"journal {self._where}: {e}", fix="check free space and locks") from e
        except sqlite3.DatabaseError as e:
            raise damaged(self._where, str(e)) from e

    def _wait_at_most(self, ms: int) -> None:
        """How long to wait for another process that locks the file. The agent does nothing else while it waits."""
        if ms != self._patience_ms:
            self._db.execute(f"PRAGMA busy_timeout = {ms}")
            self._patience_ms = ms


def _received(envelope: Envelope) -> str:
    """A sender chooses its ids: it must not use up those of others. No name of a sender has a space in it."""
    return f"{envelope.sender} {envelope.id}"
