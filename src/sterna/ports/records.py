"""The journal of one agent. Synchronous on purpose: an intent must be on disk before the step acts (fsync)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sterna.domain.journal import Entry, Kind, Migration, Role
from sterna.domain.model import Data, Value


class Envelope(Value):
    """A cast waiting in the outbox, or seen by the inbox."""

    id: str
    to: str
    """Host name of the receiver."""
    sender: str = ""
    """Host name of the sender; the outbox fills it in."""
    method: str
    migration_id: str
    epoch: int
    params: Data = {}


class Keep(Value):
    """How much of the past a journal keeps. Counted, not timed: a clock that jumps deletes nothing."""

    migrations: int = 1_000
    """About 40 entries and 20 kB each on one host; a copy that goes on for long has more."""
    casts: int = 5_000
    """Number of handled casts kept for deduplication. A sender has at most one unacknowledged cast, so this covers
    5,000 hosts. An older repeat finds its migration closed, or its epoch stale, and does nothing."""


KEEP = Keep()


class Journal(Protocol):
    """One host's journal, outbox and inbox. Survives kill -9 of the agent at any moment."""

    def accept(self, migration: Migration, role: Role) -> Migration:
        """Open a migration on this host; the same id again returns what was accepted first.

        As source: take the VM's lock and issue the epoch (the larger of the newest seen here and
        `migration.epoch`, plus 1). As destination: refuse an epoch not newer than the newest seen for the VM.

        Raises Conflict where another open migration holds the VM here, or the epoch is stale, or leaps
        (`domain/journal.py`).
        """

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
        """Write one entry, durably. RELEASED frees the VM's lock, CLOSED closes the migration here.

        `lazily`: together with whatever is written or read next, before it; lost if the process dies earlier. Its
        `seq` is 0 until then. Not for RELEASED and CLOSED."""

    def flush(self) -> Entry | None:
        """Make durable what was written lazily; the last entry of it, None where there was none."""

    def get(self, migration_id: str) -> tuple[Migration, Role] | None:
        """The migration as accepted, None if this host never accepted it."""

    def entries(self, migration_id: str) -> list[Entry]:
        """All entries of one migration, in order."""

    def settled(self, name: str) -> list[Entry]:
        """Entries of that name of all migrations CLOSED here, in order: what was done here in the past."""

    def open(self) -> list[tuple[Migration, Role]]:
        """Migrations not CLOSED here, oldest first."""

    def since(self, cursor: int, limit: int = 500) -> list[Entry]:
        """Entries with seq > cursor, over all migrations, in order: how the controller follows."""

    def holder(self, vm_uuid: str) -> Migration | None:
        """The open migration that holds the VM's lock here."""

    def newest_epoch(self, vm_uuid: str) -> int:
        """The newest epoch of this VM that this host has seen; 0 where it has seen none."""

    def prune(self, read_to: int, *, spare: str, keep: Keep = KEEP) -> int:
        """Forget what is not needed any more; how many migrations that were.

        Of closed migrations beyond the newest `keep.migrations`: those whose every entry has a seq below `read_to`
        (the controller has it), whose casts have all been delivered, and that have no note named `spare`. Of
        handled inbox and delivered outbox casts: all but the newest `keep.casts`. Epochs are kept for ever.
        """

    # outbox and inbox: casts are never lost

    def outbox_put(self, envelope: Envelope) -> bool:
        """Keep until `outbox_done`. The same id again is ignored: False."""

    def outbox(self, to: str | None = None) -> Sequence[Envelope]:
        """Casts not yet acknowledged, oldest first."""

    def outbox_done(self, envelope_id: str) -> None:
        """The receiver has journaled it."""

    def inbox_put(self, envelope: Envelope) -> bool:
        """Journal a received cast; False where this id of this sender was already there (handled or not)."""

    def inbox(self) -> Sequence[Envelope]:
        """Received casts not yet handled, oldest first."""

    def inbox_done(self, envelope: Envelope) -> None:
        """Handled; its id is remembered so that a repeat is recognised."""
