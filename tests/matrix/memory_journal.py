"""A journal in plain memory, for speed: what `SqlJournal` promises, on lists of JSON text.

It outlives the agents of a test as a file would: everything goes in and out as text, so no life of an agent
shares an object with another. `test_harness.py` runs it beside `SqlJournal`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sterna.domain.errors import Conflict, NotFound
from sterna.domain.journal import Entry, Kind, Migration, Role
from sterna.domain.model import Data
from sterna.ports.clock import Clock
from sterna.ports.records import Envelope


@dataclass
class Page:
    """One migration on this host."""

    body: str
    role: Role
    vm_uuid: str
    epoch: int
    held: bool = True
    closed: bool = False


class MemoryJournal:
    """Implements ports.records.Journal."""

    def __init__(self, clock: Clock, boot: str = "boot") -> None:
        self.clock, self.boot = clock, boot
        self.pages: dict[str, Page] = {}
        self.lines: list[dict[str, object]] = []
        self.epochs: dict[str, int] = {}
        self.casts_out: dict[str, tuple[str, str]] = {}
        """Id -> receiver, envelope ('' once acknowledged)."""
        self.casts_in: dict[str, str] = {}

    def accept(self, migration: Migration, role: Role) -> Migration:
        known = self.pages.get(migration.id)
        if known is not None:
            if known.vm_uuid != migration.vm_uuid or known.role is not role:
                raise Conflict(f"migration id {migration.id} is taken")
            return Migration.model_validate_json(known.body)
        newest = self.epochs.get(migration.vm_uuid, 0)
        if role is Role.SOURCE:
            migration = migration.model_copy(update={"epoch": max(newest, migration.epoch) + 1})
        elif migration.epoch <= newest:
            raise Conflict(f"epoch {migration.epoch} of VM {migration.vm_name} is stale: seen {newest}")
        held = self.holder(migration.vm_uuid)
        if held is not None:
            raise Conflict(f"VM {held.vm_name} is already migrating ({held.id})")
        self.epochs[migration.vm_uuid] = migration.epoch
        body = migration.model_dump_json()
        self.pages[migration.id] = Page(body, role, migration.vm_uuid, migration.epoch)
        self._write(migration.id, Kind.ACCEPTED, "", "", body)
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
        """`lazily` is `guarded_journal.GuardedJournal`'s affair: what is here is on disk."""
        text = json.dumps(data or {}, allow_nan=False)
        if migration_id not in self.pages:
            raise NotFound(f"migration {migration_id} was never accepted on this host")
        page = self.pages[migration_id]
        if kind in (Kind.RELEASED, Kind.CLOSED):
            page.held = False
            page.closed = page.closed or kind is Kind.CLOSED
        return self._write(migration_id, kind, row, name, text)

    def flush(self) -> Entry | None:
        """Nothing is put off here."""
        return None

    def get(self, migration_id: str) -> tuple[Migration, Role] | None:
        page = self.pages.get(migration_id)
        return None if page is None else (Migration.model_validate_json(page.body), page.role)

    def entries(self, migration_id: str) -> list[Entry]:
        return [_entry(line) for line in self.lines if line["migration_id"] == migration_id]

    def open(self) -> list[tuple[Migration, Role]]:
        return [(Migration.model_validate_json(p.body), p.role) for p in self.pages.values() if not p.closed]

    def since(self, cursor: int, limit: int = 500) -> list[Entry]:
        return [_entry(line) for line in self.lines[cursor : cursor + limit]]

    def holder(self, vm_uuid: str) -> Migration | None:
        held = (p for p in self.pages.values() if p.held and p.vm_uuid == vm_uuid)
        page = next(held, None)
        return None if page is None else Migration.model_validate_json(page.body)

    def newest_epoch(self, vm_uuid: str) -> int:
        return self.epochs.get(vm_uuid, 0)

    def outbox_put(self, envelope: Envelope) -> bool:
        new = envelope.id not in self.casts_out
        self.casts_out.setdefault(envelope.id, (envelope.to, envelope.model_dump_json()))
        return new

    def outbox(self, to: str | None = None) -> list[Envelope]:
        found = [text for receiver, text in self.casts_out.values() if text and to in (None, receiver)]
        return [Envelope.model_validate_json(text) for text in found]

    def outbox_done(self, envelope_id: str) -> None:
        if envelope_id in self.casts_out:
            self.casts_out[envelope_id] = (self.casts_out[envelope_id][0], "")

    def inbox_put(self, envelope: Envelope) -> bool:
        if envelope.id in self.casts_in:
            return False
        self.casts_in[envelope.id] = envelope.model_dump_json()
        return True

    def inbox(self) -> list[Envelope]:
        return [Envelope.model_validate_json(text) for text in self.casts_in.values() if text]

    def inbox_done(self, envelope: Envelope) -> None:
        if envelope.id in self.casts_in:
            self.casts_in[envelope.id] = ""

    def _write(self, migration_id: str, kind: Kind, row: str, name: str, text: str) -> Entry:
        page = self.pages[migration_id]
        line: dict[str, object] = {
            "seq": len(self.lines) + 1,
            "migration_id": migration_id,
            "epoch": page.epoch,
            "role": page.role,
            "kind": kind,
            "row": row,
            "name": name,
            "at": self.clock.now().isoformat(timespec="milliseconds"),
            "mono_ms": self.clock.monotonic_ms(),
            "boot": self.boot,
            "text": text,
        }
        self.lines.append(line)
        return _entry(line)


def _entry(line: dict[str, object]) -> Entry:
    told: dict[str, Any] = {k: v for k, v in line.items() if k != "text"}
    return Entry.model_construct(**told, data=json.loads(str(line["text"])))  # its own words: nothing to check
